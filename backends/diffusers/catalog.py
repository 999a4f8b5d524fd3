"""Which models there are to paint with, and which adapters fit them. Everything here blocks for a disk's time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from backends.diffusers import recognising
from backends.diffusers.headers import BadFile
from backends.diffusers.lora.files import LoraFile
from backends.diffusers.lora.shelf import Shelf, is_text
from backends.diffusers.recognising import PICKLED, PICKLES, Recognised
from backends.diffusers.settings import PainterModelSettings, PainterSettings
from backends.seeing.machine import may_have_gpu
from canonical.errors import ModelNotFound, Unsupported
from canonical.models import Capability, ModelInfo

_NO_CONFIG = (
    "a single file does not say how it is built: `config` has to name a folder of diffusers of its family "
    "(without weights it will do), or one has to lie in models_dir"
)


class Known(Struct, frozen=True, kw_only=True):
    """A model that is there, before it is loaded."""

    info: ModelInfo
    path: Path
    single: bool
    config: Path | None
    """Of a single file."""
    of: Recognised
    settings: PainterModelSettings
    loras: dict[str, LoraFile]
    """Those that may be laid over it, by id; also such as cannot, with the reason."""


class Catalog:
    """Those of one ``models_dir``, under their own names or configured ones."""

    def __init__(self, backend: str, settings: PainterSettings, base: Path) -> None:
        self._backend = backend
        self._root = base / Path(settings.models_dir).expanduser()
        self._shelf = Shelf(
            base / Path(settings.loras_dir).expanduser() if settings.loras_dir else self._root / "loras"
        )
        self._halves = settings.dtype in {"float16", "bfloat16"} or (
            settings.dtype == "auto" and settings.device != "cpu" and may_have_gpu()
        )
        self._configured: dict[str, PainterModelSettings] = {}
        self._seen: dict[Path, tuple[object, Recognised | None]] = {}

    def configure(self, id: str, settings: PainterModelSettings) -> None:
        """Name a model. The settings are checked."""
        self._configured[id] = settings

    def place(self, name: str) -> Path | None:
        """Where something lies that a setting names; None: it names nothing."""
        return self._root / Path(name).expanduser() if name else None

    def all(self) -> Iterator[Known]:
        """All of them, also those that cannot be loaded as they lie there."""
        shelf = self._shelf.files()
        taken: set[Path] = set()
        for id, settings in self._configured.items():
            path = self._path(id, settings)
            taken.add(path)
            known = self._known(id, path, settings, shelf)
            if known is not None:
                yield known
        ids = set(self._configured)
        for path in self._lying():
            id = path.name if path.is_dir() or path.stem in ids else path.stem
            if path in taken or id in ids:
                continue
            known = self._known(id, path, PainterModelSettings(), shelf)
            if known is not None:
                ids.add(id)
                yield known

    def find(self, name: str) -> Known:
        """One of them. Raises ModelNotFound: there is no such folder or file, or it holds no model that paints."""
        settings = self._configured.get(name)
        if settings is not None:
            known = self._known(name, self._path(name, settings), settings, self._shelf.files())
        else:
            known = next((one for one in self.all() if one.info.id == name), None)
        if known is None:
            raise ModelNotFound(f"model {name!r} not found", param="model")
        return known

    def usable(self, name: str) -> Known:
        """One that can be loaded. Raises ModelNotFound; Unsupported: it cannot, and why."""
        known = self.find(name)
        if known.info.trouble:
            raise Unsupported(f"{name!r} cannot be loaded: {known.info.trouble}", param="model")
        return known

    def _path(self, id: str, settings: PainterModelSettings) -> Path:
        named = self.place(settings.folder or settings.file)
        if named is not None:
            return named
        file = self._root / f"{id}.safetensors"
        return file if file.is_file() else self._root / id

    def _lying(self) -> list[Path]:
        try:
            return sorted(path for path in self._root.iterdir() if not path.name.startswith(".") and is_text(path.name))
        except OSError:
            return []

    def _known(self, id: str, path: Path, settings: PainterModelSettings, shelf: dict[str, LoraFile]) -> Known | None:
        """None: it holds no model that paints."""
        if path.suffix in PICKLES and path.is_file():
            of: Recognised | None = Recognised(family="", trouble=PICKLED)
        else:
            of = self._recognised(path)
        if of is None:
            return None
        one_file, config = not path.is_dir(), None
        if one_file and not of.trouble:
            config = self.place(settings.config) or self._config_for(of)
            of = self._described(of, config)
        for name in ("vae", "ip_adapter"):
            beside = self.place(getattr(settings, name))
            if beside is not None and not beside.exists() and not of.trouble:
                of = structs.replace(of, trouble=f"what its `{name}` names is not there")
        loras = _allowed(of, settings, shelf)
        marks = of.marks
        info = ModelInfo(
            id=id,
            backend=self._backend,
            capabilities=frozenset({Capability.PAINT}),
            modified=max((mark.changed for mark in marks), default=0),
            size=sum(mark.size for mark in marks),
            # Weights of gigabytes are not read for it; a file that is replaced has another time or size.
            digest=hashlib.sha256(repr((id, [structs.astuple(mark) for mark in marks])).encode()).hexdigest(),
            format="safetensors" if marks else "",
            family=of.family,
            parameter_count=of.numbers,
            title=settings.title,
            loras=tuple(id for id, file in loras.items() if not file.trouble),
            trouble=of.trouble,
        )
        return Known(info=info, path=path, single=one_file, config=config, of=of, settings=settings, loras=loras)

    def _described(self, of: Recognised, config: Path | None) -> Recognised:
        """A single file, with what the folder tells that describes it."""
        told = self._recognised(config) if config is not None else None
        if told is None or told.family != of.family or told.shape != of.shape:
            words = (
                _NO_CONFIG
                if config is None
                else f"its `config` is no folder of a model that is built like it ({of.family})"
            )
            return structs.replace(of, trouble=words)
        return structs.replace(of, side=told.side, scheduler=told.scheduler)

    def _config_for(self, of: Recognised) -> Path | None:
        named = (self._path(id, settings) for id, settings in self._configured.items())
        for path in (*self._lying(), *named):
            told = self._recognised(path) if path.is_dir() else None
            if told is not None and (told.family, told.shape, told.task) == (of.family, of.shape, of.task):
                return path
        return None

    def _recognised(self, path: Path) -> Recognised | None:
        """What lies there; looked at again where a file has changed."""
        try:
            mark = _mark(path)
            if mark is None:
                return None
            seen = self._seen.get(path)
            if seen is None or seen[0] != mark:
                seen = self._seen[path] = (mark, _look(path, halves=self._halves))
            return seen[1]
        except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
            return None  # it goes meanwhile, is no JSON, or has a name that no file has


def _allowed(of: Recognised, settings: PainterModelSettings, shelf: dict[str, LoraFile]) -> dict[str, LoraFile]:
    """In the order in which they are configured, or else of their ids."""
    named = sorted(shelf) if settings.loras is None else settings.loras
    return {id: _held_against(of, shelf[id]) for id in named if id in shelf}


def _held_against(of: Recognised, lora: LoraFile) -> LoraFile:
    if lora.trouble or lora.family in {"", of.family}:
        return lora
    return structs.replace(lora, trouble=f"it is made for models of the family {lora.family}, and this is {of.family}")


def _look(path: Path, *, halves: bool) -> Recognised | None:
    if path.is_dir():
        return recognising.folder(path, halves=halves)
    try:
        return recognising.single(path)
    except BadFile as error:
        return Recognised(family="", trouble=str(error))


def _mark(path: Path) -> object:
    """What is another one once something there has changed; None: there is nothing that could be a model."""
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            return None
        inside = [file for part in sorted(path.iterdir()) for file in ([part] if part.is_file() else part.iterdir())]
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in inside]
    if path.suffix == ".safetensors" and path.is_file():
        return (path.stat().st_size, path.stat().st_mtime_ns)
    return None
