"""What models there are: ``/api/tags``, ``/api/ps``, ``/api/show``, ``/api/version``, in both roles.

Clients are strict here: one missing text in ``details`` empties a list, a missing ``capabilities`` hides the model, and
its context length is read from ``model_info["<architecture>.context_length"]``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from adapters.ollama import names, seen, wire
from adapters.ollama.fields import read_fields, read_reply
from adapters.ollama.modelfile import Modelfile, read_parameters, write_modelfile
from adapters.ollama.times import nanoseconds_from_rfc3339, rfc3339
from adapters.ollama.turns import read_messages, write_messages
from canonical.errors import InvalidRequest
from canonical.messages import Message
from canonical.models import Capability, LoadedModel, ModelDetails, ModelInfo, Tensor

CAPABILITIES: tuple[tuple[str, tuple[Capability, ...]], ...] = (
    ("completion", (Capability.CHAT, Capability.COMPLETE)),
    ("tools", (Capability.TOOLS,)),
    ("insert", (Capability.INSERT,)),
    ("vision", (Capability.VISION,)),
    ("embedding", (Capability.EMBED,)),
    ("thinking", (Capability.REASONING,)),
    ("rerank", (Capability.RERANK,)),  # no word of Ollama's, which has no such models
)
"""Ollama's word -> ours, read in both directions; a word is said when the model can do any of its row."""

Scalar = TypeVar("Scalar", str, int)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPLATE = "tokenizer.chat_template"
_HIDDEN = frozenset(("general.name", _TEMPLATE))
_NULL = Raw(b"null")
_COUNT = "general.parameter_count"
_ARCHITECTURE = "general.architecture"

_show = msgspec.json.Decoder(wire.ShowRequest)
_shown = msgspec.json.Decoder(wire.Shown)
_tags = msgspec.json.Decoder(wire.Tags)
_running = msgspec.json.Decoder(seen.Runnings)
_encode = msgspec.json.encode


class ShowAsk(Struct, frozen=True):
    """``POST /api/show``: which model, and whether long lists are wanted too."""

    name: str
    verbose: bool = False


def read_show(body: bytes) -> ShowAsk:
    """``POST /api/show``; ``name`` is the older spelling of ``model``. Raises InvalidRequest."""
    asked, _ = read_fields(_show, body)
    name = asked.model or asked.name
    if not name:
        raise InvalidRequest("model is required", param="model")
    return ShowAsk(name, bool(asked.verbose))


def tags_reply(models: Sequence[ModelInfo]) -> bytes:
    """``GET /api/tags``: newest first."""
    rows = [
        wire.ListedModel(
            name=names.short(info.id),
            model=names.short(info.id),
            modified_at=rfc3339(info.modified),
            size=info.size,
            digest=_digest(info),
            details=_details(info, lengths=True),
            capabilities=_capabilities(info),
        )
        for info in sorted(models, key=lambda info: -info.modified)
    ]
    return _encode(wire.Tags(rows))


def ps_reply(models: Sequence[LoadedModel]) -> bytes:
    """``GET /api/ps``: longest remaining first; a model that never expires does so centuries ahead."""
    rows = [
        wire.RunningModel(
            name=names.short(loaded.info.id),
            model=names.short(loaded.info.id),
            size=loaded.size,
            digest=_digest(loaded.info),
            details=_details(loaded.info),
            expires_at=rfc3339(loaded.expires),
            size_vram=loaded.size_vram,
            context_length=loaded.context_length,
        )
        for loaded in sorted(models, key=lambda loaded: -(2**63) if loaded.expires is None else -loaded.expires)
    ]
    return _encode(wire.Running(rows))


def show_reply(details: ModelDetails, verbose: bool = False, label: str = "") -> bytes:
    """``POST /api/show``. Lists inside the metadata (a vocabulary) are ``null`` unless ``verbose``, tensors are left out.

    ``label``: the base name to tell instead of the model's own.
    """
    info = details.info
    return _encode(
        wire.Shown(
            license=details.license or None,
            modelfile=_modelfile(details),
            parameters=details.parameters or None,
            template=details.template or None,
            system=details.system or None,
            details=_details(info, parent=details.source),
            messages=write_messages(details.messages) or None,
            model_info=_model_info(details, verbose, label),
            projector_info=_told(details.projector, verbose) or None,
            tensors=[_tensor(row) for row in details.tensors] if verbose and details.tensors else None,
            capabilities=_capabilities(info),
            modified_at=rfc3339(info.modified),
            requires=details.requires or None,
        )
    )


def version_reply(version: str) -> bytes:
    """``GET /api/version``. Clients parse it as dotted integers and some want 0.6.4 at least."""
    return _encode({"version": version})


def status_reply() -> bytes:
    """``GET /api/status``: nothing here leads to the vendor's cloud."""
    return _encode({"cloud": {"disabled": True, "source": "config"}})


def recommendations_reply() -> bytes:
    """``GET /api/experimental/model-recommendations``: none."""
    return _encode({"recommendations": []})


def read_tags(body: bytes) -> list[ModelInfo]:
    """The models of another server's ``/api/tags``. Raises BackendError."""
    rows = read_reply(_tags, body, "list of models").models or []
    found = []
    for row in rows:
        told = row.details or wire.Details()
        words = None if row.capabilities is UNSET else row.capabilities
        found.append(
            structs.replace(
                _info(row, told),
                capabilities=_read_capabilities(words, told.family),
                modified=nanoseconds_from_rfc3339(row.modified_at),
                context_length=told.context_length or 0,
                embedding_length=told.embedding_length or 0,
            )
        )
    return [info for info in found if info.id]


def read_running(body: bytes) -> list[LoadedModel]:
    """What another server has in its memory, by its ``/api/ps``. Raises BackendError."""
    rows = read_reply(_running, body, "list of models").models or []
    found = []
    for row in rows:
        told = row.details or wire.Details()
        info = _info(row, told)
        expires = nanoseconds_from_rfc3339(row.expires_at) or None
        if info.id:
            found.append(
                LoadedModel(
                    info=info,
                    size=row.size or 0,
                    size_vram=row.size_vram or 0,
                    expires=expires,
                    context_length=row.context_length or 0,
                )
            )
    return found


def _info(row: wire.ListedModel | seen.Running, told: wire.Details) -> ModelInfo:
    """What both lists tell of a model."""
    return ModelInfo(
        id=row.model or row.name or "",
        size=row.size or 0,
        digest=row.digest or "",
        format=told.format or "",
        family=told.family or "",
        parameter_size=told.parameter_size or "",
        quantization=told.quantization_level or "",
    )


def read_shown(body: bytes, name: str) -> ModelDetails:
    """Another server's ``/api/show`` on ``name``. Raises BackendError."""
    shown = read_reply(_shown, body, "description of a model")
    told = shown.details or wire.Details()
    metadata = shown.model_info or {}
    architecture = _text(metadata.get(_ARCHITECTURE))
    info = ModelInfo(
        id=name,
        capabilities=_read_capabilities(shown.capabilities, told.family),
        modified=nanoseconds_from_rfc3339(shown.modified_at),
        format=told.format or "",
        family=told.family or architecture,
        parameter_count=_number(metadata.get(_COUNT)),
        parameter_size=told.parameter_size or "",
        quantization=told.quantization_level or "",
        context_length=_number(metadata.get(f"{architecture}.context_length")),
        embedding_length=_number(metadata.get(f"{architecture}.embedding_length")),
    )
    return ModelDetails(
        info=info,
        metadata=metadata,
        template=shown.template or "",
        system=shown.system or "",
        parameters=shown.parameters or "",
        license=shown.license if isinstance(shown.license, str) else "",
        messages=_read_messages(shown.messages),
        source=told.parent_model or "",
        requires=shown.requires or "",
        projector=shown.projector_info or {},
        tensors=tuple(Tensor(row.name, row.type, tuple(row.shape)) for row in shown.tensors or ()),
    )


def parameter_size(count: int) -> str:
    """``4.0B``, ``7B``, ``22.57M``, ``137M``, ``12K``: a whole number has no decimals."""
    for unit, letter, decimals in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= unit:
            return f"{count // unit}{letter}" if count % unit == 0 else f"{count / unit:.{decimals}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def _details(info: ModelInfo, *, lengths: bool = False, parent: str = "") -> wire.Details:
    size = info.parameter_size or (parameter_size(info.parameter_count) if info.parameter_count else "")
    return wire.Details(
        parent_model=parent,
        format=info.format,
        family=info.family,
        families=[info.family] if info.family else [],
        parameter_size=size,
        quantization_level=info.quantization or "unknown",
        context_length=info.context_length if lengths and info.context_length else UNSET,
        embedding_length=info.embedding_length if lengths and info.embedding_length else UNSET,
    )


def _model_info(details: ModelDetails, verbose: bool, label: str) -> dict[str, Raw]:
    info = details.info
    found = _told(details.metadata, verbose)
    architecture = _text(found.get(_ARCHITECTURE)) or info.family or "unknown"
    known = ((f"{architecture}.context_length", info.context_length), (_COUNT, info.parameter_count))
    found[_ARCHITECTURE] = Raw(_encode(architecture))
    if label:
        found["general.basename"] = Raw(_encode(label))
    for name, value in (*known, (f"{architecture}.embedding_length", info.embedding_length)):
        if value:
            found.setdefault(name, Raw(_encode(value)))
    return dict(sorted(found.items()))


def _told(metadata: dict[str, Raw], verbose: bool) -> dict[str, Raw]:
    found = {name: value for name, value in metadata.items() if name not in _HIDDEN}
    return found if verbose else {name: _NULL if bytes(value)[:1] == b"[" else value for name, value in found.items()}


def _tensor(row: Tensor) -> wire.ShownTensor:
    return wire.ShownTensor(name=row.name, type=row.type, shape=list(row.shape))


def _modelfile(details: ModelDetails) -> str:
    """The Modelfile of a model that is just like this one. It is made from this one: paths are nobody's business."""
    name = names.short(details.info.id)
    # The file's own template goes along with the weights, and is no TEMPLATE of Ollama's.
    inside = details.template and _text(details.metadata.get(_TEMPLATE)) == details.template
    said = Modelfile(
        sources=(name,),
        template=None if inside else details.template or None,
        system=details.system or None,
        licenses=(details.license,) if details.license else (),
        parameters=read_parameters(details.parameters),
        messages=tuple(message for message in details.messages if message.role in {"system", "user", "assistant"}),
        requires=details.requires,
    )
    return (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {name}\n\n{write_modelfile(said)}"
    )


def _digest(info: ModelInfo) -> str:
    """Bare hex that the CLI can cut; a model without one gets that of its own place, which does not change."""
    digest = info.digest.removeprefix("sha256:").lower()
    return digest if _DIGEST.fullmatch(digest) else hashlib.sha256(f"{info.backend}/{info.id}".encode()).hexdigest()


def _capabilities(info: ModelInfo) -> list[str]:
    """Of a model of which nothing is known never none: clients hide one without any, and many servers of other dialects tell none.

    Then all that the gateway would let pass is said, so that nothing is closed to their users; but not thinking, which
    some clients turn on by themselves wherever they can.
    """
    told = [word for word, ours in CAPABILITIES if not info.capabilities.isdisjoint(ours)]
    if info.capabilities and not told:
        return ["image"] if Capability.PAINT in info.capabilities else []
    return told or (["embedding"] if _embeds(f"{info.id} {info.family}") else ["completion", "tools", "vision"])


def _embeds(name: str) -> bool:
    return any(word in name.lower() for word in ("bert", "embed"))


def _read_capabilities(words: Sequence[str] | None, family: str | None) -> frozenset[Capability]:
    """Servers before 0.6.4 tell none; what is no BERT can at least talk."""
    if words is None:
        words = ["embedding"] if _embeds(family or "") else ["completion"]
    return frozenset(one for word, ours in CAPABILITIES if word in words for one in ours)


def _read_messages(turns: list[wire.Message] | None) -> tuple[Message, ...]:
    """A server's own turns; what is no turn there tells nothing here."""
    try:
        return tuple(read_messages(turns or []))
    except InvalidRequest:
        return ()


def _text(value: Raw | None) -> str:
    return _scalar(value, str) or ""


def _number(value: Raw | None) -> int:
    return _scalar(value, int) or 0


def _scalar(value: Raw | None, kind: type[Scalar]) -> Scalar | None:
    try:
        return None if value is None else msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
