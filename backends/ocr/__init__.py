"""The text in pictures, read by RapidOCR: its wheel brings the models along, and nothing is ever fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.ocr.backend import OcrBackend

__all__ = ["OcrBackend"]


def __getattr__(name: str) -> Any:
    """The backend, at its first use: a worker process, which is of this package too, never needs it."""
    if name != "OcrBackend":
        raise AttributeError(name)
    from backends.ocr.backend import OcrBackend

    return OcrBackend
