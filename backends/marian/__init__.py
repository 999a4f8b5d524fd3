"""Translation by Marian's models (Helsinki-NLP's OPUS-MT and their like), run by CTranslate2 in worker processes.

Folders of safetensors as Hugging Face has them are converted on first use; PyTorch is not needed for that, nor to run them.
"""

from __future__ import annotations

from backends.marian.backend import MarianBackend

__all__ = ["MarianBackend"]
