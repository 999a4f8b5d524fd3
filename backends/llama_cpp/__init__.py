"""GGUF models inside the gateway, through llama.cpp: chat, completion, vision and embeddings.

Two engines do it, of which a backend has one: ``xllamacpp`` (default; in this process, many requests at once) and
``llama-cpp-python`` (always in a worker process, one request at a time). Neither is imported before a model loads.
"""

from backends.llama_cpp.backend import LlamaCppBackend

__all__ = ["LlamaCppBackend"]
