"""Models from elsewhere: Ollama's registries, Hugging Face, plain https; and back to a registry."""

from backends.fetching.fetching import Fetching
from backends.fetching.hosts import PullSettings

__all__ = ["Fetching", "PullSettings"]
