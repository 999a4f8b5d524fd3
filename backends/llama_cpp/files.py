"""Which GGUF files there are, and what each is as a model. Everything here blocks for a disk's time."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Raw, Struct, structs

from backends.llama_cpp import gguf
from backends.llama_cpp.engine import Lora
from backends.llama_cpp.gguf import Head
from backends.llama_cpp.settings import LlamaCppModelSettings, LlamaCppSettings
from canonical.errors import BackendError, ModelNotFound
from canonical.models import Capability, ModelDetails, ModelInfo

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


class Files:
    """The GGUF files of one folder, each a model, and the configured ones. Nothing is read before it is asked for."""

    def __init__(self, backend: str, settings: LlamaCppSettings, base: Path) -> None:
        self.folder = (base / settings.models_dir).resolve()
        self._backend = backend
        self._settings = settings
        self._configured: dict[str, LlamaCppModelSettings] = {}
        self._heads = Heads()

    def configure(self, id: str, settings: LlamaCppModelSettings) -> None:
        """Name a model. Raises ValueError for a file that is not a GGUF file's name inside the folder."""
        self._inside(settings.file or f"{id}.gguf")
        for file in (settings.mmproj, settings.draft_model, *(lora.file for lora in settings.loras)):
            if file:
                self._inside(file)
        self._configured[id] = settings

    def catalog(self) -> list[ModelInfo]:
        """Every configured model whose file is there, and every other GGUF file that is a model by itself."""
        rows: dict[str, ModelInfo] = {}
        used = {settings.file or f"{id}.gguf" for id, settings in self._configured.items()}
        used |= {settings.mmproj for settings in self._configured.values()}
        found = sorted(path.name for path in self.folder.glob("*.gguf")) if self.folder.is_dir() else []
        for id in [*self._configured, *(name.removesuffix(".gguf") for name in found if name not in used)]:
            try:
                info = self.find(id).info
            except (ModelNotFound, BackendError):
                continue  # a file that is gone, half downloaded or no model costs itself alone
            if info.capabilities & SERVED:
                rows[id] = info
        return list(rows.values())

    def find(self, name: str) -> Offered:
        """Raises ModelNotFound; BackendError where there is a file that cannot be served."""
        configured = self._configured.get(name)
        settings = configured or LlamaCppModelSettings()
        missing = ModelNotFound(f"model {name!r} not found", param="model")
        try:
            path = self._inside(settings.file or f"{name}.gguf")
            head = self._heads.of(path)
        except (OSError, ValueError) as error:
            raise missing from error
        if not head.is_model or (configured is None and _PART.search(path.stem)):
            raise missing
        projector = self._inside(settings.mmproj) if settings.mmproj else None
        if settings.chat_template:
            head = head.with_template(settings.chat_template)
        info = structs.replace(
            gguf.model_info(name, head, vision=projector is not None),
            backend=self._backend,
            context_length=self._context(settings, head),
        )
        return Offered(
            info=info,
            head=head,
            settings=settings,
            path=path,
            projector=projector,
            loras=tuple(Lora(path=str(self._inside(lora.file)), scale=lora.scale) for lora in settings.loras),
            draft=self._inside(settings.draft_model) if settings.draft_model else None,
            template=settings.chat_template,
        )

    def details(self, name: str) -> ModelDetails:
        """What the file says of itself. Raises as ``find``."""
        offered = self.find(name)
        head, info = offered.head, offered.info
        return ModelDetails(
            info=info,
            # Clients fill the length that they read here, and what is served may be less than what was trained.
            metadata={**gguf.metadata_json(head), f"{head.family}.context_length": Raw(b"%d" % info.context_length)},
            template=head.template,
            license=head.text("general.license"),
        )

    def _context(self, own: LlamaCppModelSettings, head: Head) -> int:
        """Tokens of one request: as configured, but no more than the model was trained on, unless it is stretched."""
        context = own.context or self._settings.context
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
