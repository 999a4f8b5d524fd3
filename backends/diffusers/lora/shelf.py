"""The adapters that lie in a folder, or in folders in it."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from backends.diffusers.lora.files import LoraFile, lora_file

_MOST = 10_000
"""Files that are looked at."""
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Shelf:
    """One folder. Each file is read again only once it has changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[Path, tuple[object, LoraFile | None]] = {}

    def files(self) -> dict[str, LoraFile]:
        """All adapters, by id; of two with the same one that of the first folder."""
        seen: dict[Path, tuple[object, LoraFile | None]] = {}
        for path in islice(self._paths(), _MOST):
            try:
                mark = tuple(_mark(path.with_suffix(end)) for end in (path.suffix, ".json", ".civitai.info"))
                known = self._seen.get(path)
                seen[path] = known if known is not None and known[0] == mark else (mark, lora_file(path))
            except OSError:
                continue  # it went meanwhile
        self._seen = seen
        found: dict[str, LoraFile] = {}
        for _, file in seen.values():
            if file is not None:
                found.setdefault(file.info.id, file)
        return found

    def _paths(self) -> list[Path]:
        return [
            Path(folder, name)
            for folder, folders, names in os.walk(self._root)
            for name in _in_order(folders, names)
            if name.endswith(".safetensors") and is_text(name)
        ]


def is_text(name: str) -> bool:
    """Whether a file's name can be told: it may have bytes that are no UTF-8, or lines of its own."""
    return _NO_TEXT.search(name) is None


def _in_order(folders: list[str], names: list[str]) -> list[str]:
    folders.sort()
    return sorted(names)


def _mark(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
