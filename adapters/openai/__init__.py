"""OpenAI's wire format: ``/v1/chat/completions``, ``/v1/completions``, ``/v1/embeddings``, ``/v1/models``.

``serve`` is us as server, ``call`` us as client of any server that speaks it (llama-server, vLLM, LM Studio, a cloud).
"""
