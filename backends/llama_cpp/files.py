"""Which GGUF files there are, and what each is as a model. Everything here blocks for a disk's time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

from msgspec import Raw, Struct, structs

from adapters.ollama.modelfile import write_parameters
from backends.llama_cpp import gguf
from backends.llama_cpp.engine import Lora
from backends.llama_cpp.gguf import Head
from backends.llama_cpp.lists import read_lists
from backends.llama_cpp.settings import LlamaCppModelSettings, LlamaCppSettings
from backends.llama_cpp.shelves import Shelves, jinja
from backends.store import Store
from backends.store.kept import Kept
from backends.store.studio import parts_of
from canonical.errors import BackendError, ModelNotFound
from canonical.models import Capability, ModelDetails, ModelInfo, spelling
from canonical.own import NOTHING, Own
from canonical.requests import LoadOptions

SERVED = frozenset({Capability.CHAT, Capability.COMPLETE, Capability.EMBED, Capability.RERANK})
"""A model with none of these is neither listed nor opened."""
_PART = re.compile(r"-\d{5}-of-\d{5}\Z")


class Offered(Struct, frozen=True, kw_only=True):
    """A model that is there, before it is loaded."""

    info: ModelInfo
    """``context_length`` is what is served, not what was trained."""
    head: Head
    settings: LlamaCppModelSettings
    path: Path
    projector: Path | None = None
    loras: tuple[Lora, ...] = ()
    draft: Path | None = None
    template: str = ""
    """Jinja, instead of the file's own; ``head`` has it too."""
    kept: Kept
    own: Own = NOTHING
    """What it brings along to each request."""


class Heads:
    """The heads of files, each read once as long as its file does not change."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int, Head | None]] = {}

    def of(self, path: Path) -> Head:
        """Raises OSError; BadGguf for a file that cannot be served."""
        status = path.stat()
        key = (status.st_size, status.st_mtime_ns)
        known = self._known.get(path)
        if known is None or known[:2] != key:
            try:
                head = gguf.read_head(path)
            except gguf.BadGguf:
                head = None
            known = self._known[path] = (*key, head)
        if known[2] is None:
            raise gguf.BadGguf(f"{path.name} is not a GGUF file that can be served")
        return known[2]

    def of_parts(self, paths: Sequence[Path]) -> Head:
        """That of a model in several files: the first has the metadata. Raises as ``of``."""
        first, *others = heads = [self.of(path) for path in paths]
        if not others:
            return first
        return structs.replace(
            first,
            parameters=sum(head.parameters for head in heads),
            tensor_type=max(heads, key=lambda head: head.parameters).tensor_type,
            size=sum(head.size for head in heads),
            digest=hashlib.sha256("".join(head.digest for head in heads).encode()).hexdigest(),
        )


class Files:
    """The GGUF files of one folder, each a model, the configured ones, and those kept elsewhere. Read when asked for."""

    def __init__(self, backend: str, settings: LlamaCppSettings, base: Path) -> None:
        self.folder = (base / settings.models_dir).resolve()
        also_read = [base / Path(path).expanduser() for path in settings.also_read]
        store = Store((base / Path(settings.store).expanduser()).resolve()) if settings.store else None
        self.shelves = Shelves(store, also_read)
        self._backend = backend
        self._settings = settings
        self._configured: dict[str, LlamaCppModelSettings] = {}
        self._heads = Heads()
        self._jinja: dict[str, str] = {}

    def configure(self, id: str, settings: LlamaCppModelSettings) -> None:
        """Name a model. Raises ValueError for a file that is not a GGUF file's name inside the folder."""
        self._inside(settings.file or f"{id}.gguf")
        for file in (settings.mmproj, settings.draft_model, *(lora.file for lora in settings.loras)):
            if file:
                self._inside(file)
        self._configured[id] = settings

    def catalog(self) -> list[ModelInfo]:
        """Every configured model whose file is there, every other GGUF file that is a model by itself, and what is kept."""
        self.shelves.tidy()
        rows: dict[str, ModelInfo] = {}
        for id in [*self._configured, *self._unnamed()]:
            with suppress(ModelNotFound, BackendError):  # what is gone, half there or no model costs itself alone
                rows.setdefault(spelling(id), self.find(id).info)
        for kept in self.shelves.every():
            with suppress(BackendError, OSError):
                if spelling(kept.id) not in rows:
                    rows[spelling(kept.id)] = self._offered(kept, LlamaCppModelSettings()).info
        return [info for info in rows.values() if info.capabilities & SERVED]

    def find(self, name: str) -> Offered:
        """Raises ModelNotFound; BackendError where there is a file that cannot be served."""
        settings = self._configured.get(name) or self._configured_as(name) or LlamaCppModelSettings()
        missing = ModelNotFound(f"model {name!r} not found", param="model")
        try:
            kept = self.here(name, settings)
            if kept is None and not settings.file:
                kept = self.shelves.find(name)
            if kept is None:
                raise missing
            return self._offered(kept, settings)
        except (OSError, ValueError) as error:
            raise missing from error

    def openable(self, name: str) -> Offered:
        """As ``find``, with paths that an engine can open. Raises Unsupported, StorageFailed too."""
        offered = self.find(name)
        if len(offered.kept.parts) == 1:
            return offered
        return structs.replace(offered, path=self.shelves.openable(offered.kept)[0])

    def here(self, name: str, settings: LlamaCppModelSettings | None = None) -> Kept | None:
        """A model of the folder of GGUF files; None: it has none of that name. Raises ValueError."""
        settings = settings or self._configured.get(name) or LlamaCppModelSettings()
        path = self._inside(settings.file or f"{name}.gguf")
        if not settings.file and not path.is_file():
            path = min(self.folder.glob(f"{escape(name)}-00001-of-*.gguf"), default=path)
        elif name not in self._configured and _PART.search(path.stem):
            return None
        parts = parts_of(path) if path.is_file() else ()
        return Kept(id=name, parts=parts) if parts else None

    def here_alone(self, offered: Offered) -> bool:
        """Whether the model lies in the folder of GGUF files, where only the operator puts any."""
        return not offered.kept.digest and offered.kept.parts[0].is_relative_to(self.folder)

    def details(self, name: str) -> ModelDetails:
        """What the file says of itself, and what the model brings along. Raises as ``find``."""
        offered = self.find(name)
        head, info, brought = offered.head, offered.info, offered.kept.brought
        # What renders is told: a TEMPLATE that cannot be said in Jinja does not.
        template = brought.template if brought.template and offered.template else head.template
        return ModelDetails(
            info=info,
            # Clients fill the length that they read here, and what is served may be less than what was trained.
            metadata={**gguf.metadata_json(head), f"{head.family}.context_length": Raw(b"%d" % info.context_length)},
            template=offered.settings.chat_template or template,
            system=brought.system,
            parameters=write_parameters(brought.parameters),
            messages=brought.messages,
            license="\n".join(brought.licenses) or head.text("general.license"),
            requires=brought.requires,
            source=offered.kept.source,
            projector=self._projector(offered),
        )

    def all_details(self, name: str) -> ModelDetails:
        """``details``, with the lists that the file has."""
        details = self.details(name)
        try:
            parts = [read_lists(path) for path in self.find(name).kept.parts]
        except OSError as error:  # it has just been removed
            raise ModelNotFound(f"model {name!r} not found", param="model") from error
        tensors = tuple(row for _, rows in parts for row in rows)
        return structs.replace(details, metadata={**details.metadata, **parts[0][0]}, tensors=tensors)

    def _offered(self, kept: Kept, settings: LlamaCppModelSettings) -> Offered:
        """Raises ModelNotFound for files that are no model by themselves; OSError, ValueError, BackendError."""
        head = self._heads.of_parts(kept.parts)
        if not head.is_model:
            raise ModelNotFound(f"model {kept.id!r} not found", param="model")
        projector = self._inside(settings.mmproj) if settings.mmproj else kept.projector
        template = settings.chat_template or self._template(kept)
        if template:
            head = head.with_template(template)
        own = kept.brought.own()
        info = gguf.model_info(kept.id, head, vision=projector is not None)
        info = structs.replace(
            info,
            backend=self._backend,
            context_length=self._context(settings, head, own.load.context),
            digest=kept.digest or info.digest,
            owner=kept.owner,
            size=kept.size or info.size,
            modified=kept.modified or info.modified,
        )
        loras = tuple(Lora(path=str(path), scale=1.0) for path in kept.adapters)
        loras += tuple(Lora(path=str(self._inside(lora.file)), scale=lora.scale) for lora in settings.loras)
        return Offered(
            info=info,
            head=head,
            settings=settings,
            path=kept.parts[0],
            projector=projector,
            loras=loras,
            draft=self._inside(settings.draft_model) if settings.draft_model else kept.draft,
            template=template,
            kept=kept,
            own=_left_open(own, settings),
        )

    def hides(self, name: str) -> bool:
        """Whether a model of the folder bears the name in some spelling, and so comes before all that is kept elsewhere."""
        wanted = spelling(name)
        return any(spelling(id) == wanted and self.here(id) is not None for id in [*self._configured, *self._unnamed()])

    def _unnamed(self) -> list[str]:
        """The folder's models that the configuration does not speak of."""
        used = {settings.file or f"{id}.gguf" for id, settings in self._configured.items()}
        used |= {settings.mmproj for settings in self._configured.values()}
        found = sorted(path.name for path in self.folder.glob("*.gguf")) if self.folder.is_dir() else []
        ids = (_PART.sub("", name.removesuffix(".gguf")) for name in found if name not in used)
        return list(dict.fromkeys(ids))

    def _configured_as(self, name: str) -> LlamaCppModelSettings | None:
        """Settings of a model that is kept elsewhere, under another spelling of its name."""
        wanted = spelling(name)
        return next((found for id, found in self._configured.items() if spelling(id) == wanted), None)

    def _template(self, kept: Kept) -> str:
        """The model's TEMPLATE in Jinja, made once."""
        if not kept.brought.template:
            return ""
        if kept.digest not in self._jinja:
            self._jinja[kept.digest] = jinja(kept)
        return self._jinja[kept.digest]

    def _projector(self, offered: Offered) -> dict[str, Raw]:
        if offered.projector is None:
            return {}
        try:
            head = self._heads.of(offered.projector)
            return {**gguf.metadata_json(head), "general.parameter_count": Raw(b"%d" % head.parameters)}
        except (OSError, BackendError):
            return {}

    def _context(self, own: LlamaCppModelSettings, head: Head, brought: int | None) -> int:
        """Tokens of one request: as configured, but no more than the model was trained on, unless it is stretched."""
        context = own.context or brought or self._settings.context
        stretched = own.rope_scaling not in {"", "none"} or own.rope_freq_scale or own.rope_freq_base
        return context if stretched or not head.context_length else min(context, head.context_length)

    def _inside(self, file: str) -> Path:
        """The path of a GGUF file of the folder. Raises ValueError for any other name."""
        if not file.endswith(".gguf") or "\0" in file or len(file) > 255:
            raise ValueError(f"{file[:64]!r} is not the name of a .gguf file")
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.folder):
            raise ValueError(f"{file[:64]!r} is not inside the models folder")
        return path


def _left_open(own: Own, settings: LlamaCppModelSettings) -> Own:
    """What a model brings along, but for its context, which its row has, and for what its entry in config.yaml says."""
    said = [name for name in LoadOptions.__struct_fields__ if getattr(settings, name) is not None]
    load = structs.replace(own.load, **dict.fromkeys(("context", *said)))
    temperature = own.sampling.temperature if settings.temperature is None else None
    return structs.replace(own, load=load, sampling=structs.replace(own.sampling, temperature=temperature))
