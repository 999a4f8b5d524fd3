"""Continuous batching over llama.cpp's low-level API: many requests in one context, a token for each of them a step.

``loop`` is the one thread that owns the context. What it decides is decided by pure functions beside it: ``prefix``
(which slot a request gets, and what computed prefix it shares) and ``step`` (which tokens are computed next).
"""
