"""Which CLIP models there are: folders as transformers keeps them, with their weights as safetensors.

Pickled weights are refused unopened: reading them runs what is written in them. Everything here blocks for a disk's time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from backends.clip.settings import ClipModelSettings, ClipSettings, check_template
from canonical.errors import BackendError, ModelNotFound
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
        """All that can be loaded; those that can't are not in it."""
        return [offered.info for offered in self._all()]

    def find(self, name: str) -> Offered:
        """One of them.

        Raises:
            ModelNotFound: there is no such folder, or it holds no CLIP model.
            BackendError: it is there and cannot be used; the words say why.
        """
        settings = self._configured.get(name, ClipModelSettings())
        path = self._root / (settings.folder or name)
        if path.parent != self._root or not (path / "config.json").is_file():
            raise ModelNotFound(f"model {name!r} not found", param="model")
        offered = self._offered(name, path, settings)
        if offered is None:
            raise BackendError(self._fault(name, path))
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
        """None: it is no CLIP model with weights that can be read."""
        try:
            config = _read_config(path)
            files = sorted(path.glob("model*.safetensors"))
            weights = [file.stat() for file in files]
            there = any((path / name).is_file() for name in _WEIGHTS) and all(map(_has_head, files))
        except (OSError, msgspec.MsgspecError):
            return None
        if config.model_type != "clip" or not there or not weights:
            return None
        marks = [(status.st_size, status.st_mtime_ns) for status in weights]
        info = ModelInfo(
            id=id,
            backend=self._backend,
            capabilities=frozenset({Capability.MATCH}),
            modified=max(mark[1] for mark in marks),
            size=sum(mark[0] for mark in marks),
            # Weights of gigabytes are not read for it; a file that is replaced has another time or size.
            digest=hashlib.sha256(repr((id, marks)).encode()).hexdigest(),
            format="safetensors",
            family="clip",
            context_length=config.text_config.max_position_embeddings,
            embedding_length=config.projection_dim,
        )
        template = self._settings.template if settings.template is None else settings.template
        return Offered(info=info, path=path, template=template)

    def _fault(self, name: str, path: Path) -> str:
        """Why a folder that is there cannot be used."""
        try:
            config = _read_config(path)
        except (OSError, msgspec.MsgspecError):
            return f"the model {name!r} has a config.json that cannot be read"
        if config.model_type != "clip":
            return f"the model {name!r} is of the type {config.model_type[:40]!r}, and only clip can be used here"
        if any((path / file).exists() for file in _PICKLES):
            return (
                f"the model {name!r} has pickled weights, which may run anything when they are read, and are refused: "
                "it is needed as safetensors (save_pretrained writes them)"
            )
        return f"the model {name!r} has no weights (model.safetensors) that can be read"


def _has_head(file: Path) -> bool:
    """Whether it begins as safetensors does: the length of a JSON text, and that text."""
    with file.open("rb") as opened:
        head = opened.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size - 8


def _read_config(path: Path) -> _Config:
    with (path / "config.json").open("rb") as file:
        return _config.decode(file.read(_CONFIG))
