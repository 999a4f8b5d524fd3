"""LM Studio's models folder, read in place: ``publisher/repository/file.gguf``, projectors beside the models.

A model's name is what LM Studio calls it: the file's name without its quantization, in lower case, and with it
(``qwen3-4b@q4_k_m``) where one name would mean two. Its path in the folder is a name as well. Only names of files are
looked at here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from msgspec import structs

from backends.store.kept import Kept

_QUANT = re.compile(
    r"[-._]((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|T?Q\d_\d|BF16|F16|F32|FP16|FP32|MXFP4(?:_MOE)?))\Z", re.IGNORECASE
)
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\Z")
_GGUF = ".gguf"
PARTS = 1000


class StudioFolder:
    """One folder; it need not be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self) -> list[Kept]:
        """Every model that has all its parts."""
        found: list[tuple[Path, Kept]] = []
        for publisher in _folders(self.folder):
            for repository in _folders(publisher):
                found += _in(repository)
        bases = Counter(base for base, _ in (_named(path) for path, _ in found))
        full = Counter(_joined(*_named(path)) for path, _ in found)
        rows = []
        for path, kept in found:
            base, quant = _named(path)
            id = base if bases[base] == 1 else _joined(base, quant)
            if full[_joined(base, quant)] > 1:
                id = f"{path.parent.parent.name}/{id}"
            rows.append(structs.replace(kept, id=id.lower()))
        return rows

    def find(self, name: str) -> Kept | None:
        """A model by LM Studio's name for it, or its path."""
        wanted = name.casefold().removesuffix(":latest")
        for kept in self.models():
            path = kept.parts[0].relative_to(self.folder).as_posix().casefold()
            if wanted in {kept.id, path, path.removesuffix(_GGUF)}:
                return kept
        return None


def _in(folder: Path) -> list[tuple[Path, Kept]]:
    """The models of one repository, each with the path of its (first) file."""
    files = {path.stem: path for path in _files(folder) if path.suffix.lower() == _GGUF}
    projectors = sorted(path for stem, path in files.items() if "mmproj" in stem.lower())
    projector = projectors[0] if projectors else None
    found = []
    for stem, path in sorted(files.items()):
        if "mmproj" in stem.lower():
            continue
        parts = parts_of(path)
        if parts:
            size = sum(_size(part) for part in (*parts, *projectors[:1]))
            owner = folder.parent.name
            found.append((path, Kept(id=stem, parts=parts, projector=projector, size=size, owner=owner)))
    return found


def parts_of(path: Path) -> tuple[Path, ...]:
    """The file, or all parts of a split one if this is the first; nothing where one is missing, or this is a later one."""
    split = _SPLIT.fullmatch(path.stem)
    if split is None:
        return (path,)
    total = int(split[3])
    if int(split[2]) != 1 or not 1 <= total <= PARTS:
        return ()
    parts = tuple(
        path.with_name(f"{split[1]}-{number:05}-of-{total:05}{path.suffix}") for number in range(1, total + 1)
    )
    return parts if all(part.is_file() for part in parts) else ()


def _named(path: Path) -> tuple[str, str]:
    """A file's name without its quantization, and that."""
    split = _SPLIT.fullmatch(path.stem)
    stem = split[1] if split else path.stem
    quant = _QUANT.search(stem)
    return (stem[: quant.start()], quant[1]) if quant else (stem, "")


def _joined(base: str, quant: str) -> str:
    return f"{base}@{quant}" if quant else base


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in _entries(folder) if path.is_dir())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in _entries(folder) if path.is_file())


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
