"""OpenAI's wire format: ``/v1/chat/completions``, ``/v1/completions``, ``/v1/embeddings``, ``/v1/models``, ``/v1/images``.

``serve`` is us as server, ``call`` us as client of any server that speaks it (llama-server, vLLM, LM Studio, a cloud). For
pictures these are ``images`` with ``image_reply``, and ``painting_call``.
"""
