"""GGUF models inside the gateway, through llama.cpp: chat, completion, vision and embeddings.

Two engines do it, of which a backend has one: ``xllamacpp`` (default; in this process or in a worker) and
``llama-cpp-python`` (always in a worker process), each with many requests at once. Neither is imported before a model
loads.
"""

from backends.llama_cpp.backend import LlamaCppBackend

__all__ = ["LlamaCppBackend"]
