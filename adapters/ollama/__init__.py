"""Ollama's native API, ``/api/*``, as server and as client.

Compact JSON objects, one a line when streamed (NDJSON), durations in integer nanoseconds, tool arguments as objects.
Source of the format: the ``api`` package of github.com/ollama/ollama, releases 0.32 and 0.33.
"""
