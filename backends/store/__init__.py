"""Models on this machine's disk: a store of ours in Ollama's layout, and those of other programs, read in place.

``folder`` reads a store, ``store`` also changes one; ``studio`` reads LM Studio's models folder.
"""

from backends.store.folder import OllamaFolder, Stored
from backends.store.store import Store

__all__ = ["OllamaFolder", "Store", "Stored"]
