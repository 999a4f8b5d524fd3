"""Which CLIP models there are: folders as transformers keeps them, with their weights as safetensors.

Pickled weights are refused unopened: reading them runs what is written in them. Everything here blocks for a disk's time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from backends.clip.settings import ClipModelSettings, ClipSettings, check_template
from canonical.errors import ModelNotFound, Unsupported
from canonical.models import Capability, ModelInfo

_CONFIG = 1024 * 1024
"""Bytes that the description of a model may have."""
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.ckpt")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class _Tower(Struct):
    projection_dim: int = 0
    max_position_embeddings: int = 0


class _Config(Struct):
    """What of ``config.json`` matters here."""

    model_type: str = ""
    projection_dim: int = 0
    text_config: _Tower = msgspec.field(default_factory=_Tower)


_config = msgspec.json.Decoder(_Config)


class Offered(Struct, frozen=True, kw_only=True):
    """A model that is there, before it is loaded."""

    info: ModelInfo
    path: Path
    template: str


class Folders:
    """Those of one ``models_dir``, under their own names or configured ones."""

    def __init__(self, backend: str, settings: ClipSettings, base: Path) -> None:
        self._backend = backend
        self._settings = settings
        self._root = base / Path(settings.models_dir).expanduser()
        self._configured: dict[str, ClipModelSettings] = {}

    def configure(self, id: str, settings: ClipModelSettings) -> None:
        """Name a model. Raises ValueError for what cannot be."""
        folder = settings.folder or id
        if Path(folder).name != folder or folder in {"", ".", ".."}:
            raise ValueError(f"folder: {folder[:80]!r} is no name of a folder in models_dir")
        if settings.template is not None:
            check_template(settings.template)
        self._configured[id] = settings

    def catalog(self) -> list[ModelInfo]:
        """All of them, also those that cannot be loaded as they lie there."""
        return [offered.info for offered in self._all()]

    def find(self, name: str) -> Offered:
        """One of them. Raises ModelNotFound: there is no such folder, or it holds no CLIP model."""
        settings = self._configured.get(name, ClipModelSettings())
        path = self._root / (settings.folder or name)
        offered = self._offered(name, path, settings) if path.parent == self._root else None
        if offered is None:
            raise ModelNotFound(f"model {name!r} not found", param="model")
        return offered

    def usable(self, name: str) -> Offered:
        """One that can be loaded. Raises ModelNotFound; Unsupported: it cannot, and why."""
        offered = self.find(name)
        if offered.info.trouble:
            raise Unsupported(f"{name!r} cannot be loaded: {offered.info.trouble}", param="model")
        return offered

    def _all(self) -> Iterator[Offered]:
        named = {settings.folder or id for id, settings in self._configured.items()}
        for id, settings in self._configured.items():
            offered = self._offered(id, self._root / (settings.folder or id), settings)
            if offered is not None:
                yield offered
        try:
            folders = sorted(self._root.iterdir())
        except OSError:
            return
        for path in folders:
            if path.name in named or path.name.startswith("."):
                continue
            offered = self._offered(path.name, path, ClipModelSettings())
            if offered is not None:
                yield offered

    def _offered(self, id: str, path: Path, settings: ClipModelSettings) -> Offered | None:
        """None: it is no CLIP model."""
        try:
            config = _read_config(path)
            files = sorted(path.glob("model*.safetensors"))
            marks = [(status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files)]
            trouble = _trouble(path, files)
        except (
            OSError,
            ValueError,
            msgspec.MsgspecError,
            RecursionError,
        ):  # it goes meanwhile, is no JSON, or has a name that no file has
            return None
        if config.model_type != "clip":
            return None
        info = ModelInfo(
            id=id,
            backend=self._backend,
            capabilities=frozenset({Capability.MATCH}),
            modified=max((mark[1] for mark in marks), default=0),
            size=sum(mark[0] for mark in marks),
            # Weights of gigabytes are not read for it; a file that is replaced has another time or size.
            digest=hashlib.sha256(repr((id, marks)).encode()).hexdigest(),
            format="safetensors",
            family="clip",
            context_length=config.text_config.max_position_embeddings,
            embedding_length=config.projection_dim,
            trouble=trouble,
        )
        template = self._settings.template if settings.template is None else settings.template
        return Offered(info=info, path=path, template=template)


def _trouble(path: Path, files: Sequence[Path]) -> str:
    """Why the weights of a folder cannot be used; empty: they can."""
    if files and any((path / name).is_file() for name in _WEIGHTS) and all(map(_has_head, files)):
        return ""
    if not files and any((path / name).exists() for name in _PICKLES):
        return "its weights are pickled, and reading those runs whatever is in them: it is needed as safetensors"
    return "it has no weights (model.safetensors) that can be read"


def _has_head(file: Path) -> bool:
    """Whether it begins as safetensors does: the length of a JSON text, and that text."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        head = opened.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size - 8


def _read_config(path: Path) -> _Config:
    if not (path / "config.json").is_file():
        raise OSError("no file")  # a pipe would be waited for, with all other models
    with (path / "config.json").open("rb") as file:
        return _config.decode(file.read(_CONFIG))
