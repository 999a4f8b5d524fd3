"""What the configuration lets a model bring along, and how that reaches each request, whichever dialect it comes in."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from adapters.ollama.go import is_jinja
from adapters.ollama.modelfile import Modelfile, read_modelfile, read_parameters, write_parameters
from adapters.ollama.values import LOAD_OPTIONS, OPTIONS, RETIRED, read_options
from backends.base import Model
from canonical.errors import InvalidRequest
from canonical.messages import Message, Text
from canonical.models import ModelDetails
from canonical.own import NOTHING, Own, applied, laid_over
from canonical.requests import Generate
from gateway.settings import ModelEntry

_SIZE = 16 * 1024 * 1024


def with_own(request: Generate, entry: ModelEntry | None, model: Model) -> Generate:
    """``request`` with what its model brings along; the same object where that is nothing."""
    own: Own = getattr(model, "own", NOTHING)
    if entry is not None and entry.own is not NOTHING:
        own = laid_over(entry.own, own)
    return request if own is NOTHING else applied(request, own)


def brought_along(entry: ModelEntry, base: Path) -> tuple[ModelEntry, str]:
    """The entry with what its keys and its Modelfile come to, and the TEMPLATE of the latter.

    Raises:
        ValueError: a file that cannot be read, or says what cannot be.
    """
    if not (entry.system or entry.parameters or entry.messages or entry.modelfile):
        return entry, ""
    file = _modelfile(base / entry.modelfile) if entry.modelfile else Modelfile(sources=())
    unknown = entry.parameters.keys() - OPTIONS.keys() - LOAD_OPTIONS.keys() - RETIRED
    if unknown:
        raise ValueError(f"unknown parameter {min(unknown)!r}")
    parameters = {**file.parameters, **entry.parameters}
    try:
        sampling, load = read_options(parameters)
    except InvalidRequest as error:
        raise ValueError(error.message) from error
    turns = tuple(Message(turn.role, (Text(turn.content),)) for turn in entry.messages)
    own = Own(system=entry.system or file.system or "", messages=turns or file.messages, sampling=sampling, load=load)
    return structs.replace(entry, own=own, parameters=parameters), file.template or ""


def in_jinja(template: str) -> str:
    """A TEMPLATE as engines render it. Raises ValueError: it cannot be said in Jinja."""
    if is_jinja(template):
        return template
    from adapters.ollama.go.jinja import jinja_of
    from adapters.ollama.go.parse import BadTemplate

    try:
        return jinja_of(template)
    except BadTemplate as error:
        raise ValueError(f"the modelfile: {error.message}") from error


def shown(details: ModelDetails, entry: ModelEntry | None) -> ModelDetails:
    """What is told of a model, with what its entry lets it bring along."""
    if entry is None or entry.own is NOTHING:
        return details
    parameters = {**read_parameters(details.parameters), **entry.parameters}
    return structs.replace(
        details,
        system=entry.own.system or details.system,
        messages=entry.own.messages or details.messages,
        parameters=write_parameters(parameters),
    )


def _modelfile(path: Path) -> Modelfile:
    try:
        with path.open("rb") as file:
            found = read_modelfile(file.read(_SIZE))
    except OSError as error:
        raise ValueError(f"the modelfile cannot be read: {error.strerror}") from error
    except InvalidRequest as error:
        raise ValueError(f"the modelfile: {error.message}") from error
    if found.adapters or found.drafts:
        raise ValueError("the modelfile names an adapter or a draft: the keys lora and draft_model do that here")
    return found
