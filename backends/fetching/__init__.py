"""Models from elsewhere: Ollama's registries, Hugging Face, plain https; and back to a registry. ``fetching`` is the door.

It is imported by the first pull, so that no start pays for it.
"""
