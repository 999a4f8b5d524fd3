"""A model on disk as its files and what it brings along, whichever program keeps it.

``kept`` makes one of a manifest. Small blobs are read once per digest: what a digest names never changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from adapters.ollama import names, wire
from adapters.ollama.turns import read_messages
from adapters.ollama.values import read_options
from backends.store.folder import OllamaFolder, Stored
from backends.store.manifests import Manifest
from canonical.errors import BackendError, GatewayError
from canonical.limits import MESSAGES
from canonical.messages import Message
from canonical.own import Own

TEXT = 16 * 1024 * 1024
"""Bytes of all that a model brings along: template, licenses, conversation ..."""
TEXTS = ("template", "prompt", "system", "license", "params", "messages")
LISTED = 1_000
"""Values of one parameter: stop texts."""
REMEMBERED = 4096
"""Models whose small blobs are kept in memory."""

_turns = msgspec.json.Decoder(list[wire.Message])
_options = msgspec.json.Decoder(dict[str, Any])


class Brought(Struct, frozen=True, kw_only=True):
    """What a manifest's small blobs say."""

    template: str = ""
    """As it stands: Go's or Jinja."""
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    licenses: tuple[str, ...] = ()
    requires: str = ""

    def own(self) -> Own:
        """What of it goes into requests."""
        sampling, load = read_options(self.parameters)
        return Own(system=self.system, messages=self.messages, sampling=sampling, load=load)


class Kept(Struct, frozen=True, kw_only=True):
    """A model. Whether its files can be served is not known yet."""

    id: str
    """Its name as the program that keeps it would write it."""
    parts: tuple[Path, ...]
    """GGUF files: one, or the parts of a split one in their order."""
    names: tuple[str, ...] = ()
    """What the parts were called, where their paths do not say it."""
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    draft: Path | None = None
    brought: Brought = Brought()
    source: str = ""
    """The model that it was made from."""
    owner: str = ""
    """Who published it, where its name says so."""
    digest: str = ""
    """64 hex digits; empty: the file's own."""
    size: int = 0
    modified: int = 0
    """Epoch nanoseconds; 0: the file's own."""


def _short(text: str) -> str:
    """A model's name as lists write it; empty for what is none: Ollama has paths there, too."""
    name = names.parse(text)
    return names.written(name) if name is not None else ""


class Brings:
    """What the models of one folder bring along."""

    def __init__(self, folder: OllamaFolder) -> None:
        self.folder = folder
        self._known: dict[str, Brought] = {}

    def of(self, stored: Stored) -> Brought:
        """Raises BackendError for what cannot be read."""
        known = self._known.get(stored.digest)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[stored.digest] = self._read(stored.manifest)
        return known

    def kept(self, stored: Stored) -> Kept | None:
        """The model of a manifest; None where it holds none of GGUF files. Raises BackendError."""
        manifest, blob = stored.manifest, self.folder.blob
        models = sorted(manifest.of("model"), key=lambda layer: layer.name)
        if not models:
            return None
        projectors, drafts = manifest.of("projector"), manifest.of("draft")
        return Kept(
            id=stored.id,
            parts=tuple(blob(layer.digest) for layer in models),
            names=tuple(layer.name for layer in models),
            projector=blob(projectors[0].digest) if projectors else None,
            adapters=tuple(blob(layer.digest) for layer in manifest.of("adapter")),
            draft=blob(drafts[0].digest) if drafts else None,
            brought=self.of(stored),
            source=_short(models[0].source),
            owner=stored.name.namespace,
            digest=stored.digest,
            size=stored.size,
            modified=stored.modified,
        )

    def _read(self, manifest: Manifest) -> Brought:
        # A manifest may name one blob again and again.
        if sum(layer.size for kind in TEXTS for layer in manifest.of(kind)) > TEXT:
            raise BackendError(f"what the model brings along has more than {TEXT} bytes")
        texts = {kind: self._texts(manifest, kind) for kind in ("template", "prompt", "system", "license")}
        parameters: dict[str, Any] = {}
        turns: list[wire.Message] = []
        requires = ""
        try:
            for content in self._contents(manifest, "params"):
                parameters.update(_options.decode(content))
            for content in self._contents(manifest, "messages"):
                turns.extend(_turns.decode(content))
            if len(turns) > MESSAGES:
                raise BackendError(f"the model brings along more than {MESSAGES} messages")
            read_options(parameters)
            if any(isinstance(value, list) and len(value) > LISTED for value in parameters.values()):
                raise BackendError(f"a parameter of the model has more than {LISTED} values")
            messages = tuple(read_messages(turns))
            if manifest.config.digest:
                config = _options.decode(self.folder.content(manifest.config.digest))
                requires = str(config.get("requires") or "")[:80]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BackendError(f"what the model brings along cannot be read: {error}") from error
        except GatewayError as error:
            raise BackendError(f"what the model brings along cannot be read: {error.message}") from error
        return Brought(
            template="".join((texts["template"] or texts["prompt"])[:1]),
            system="".join(texts["system"][:1]),
            parameters=parameters,
            messages=messages,
            licenses=tuple(texts["license"]),
            requires=requires,
        )

    def _contents(self, manifest: Manifest, kind: str) -> list[bytes]:
        return [self.folder.content(layer.digest, TEXT) for layer in manifest.of(kind)]

    def _texts(self, manifest: Manifest, kind: str) -> list[str]:
        return [content.decode(errors="replace") for content in self._contents(manifest, kind)]
