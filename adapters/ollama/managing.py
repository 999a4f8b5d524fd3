"""The routes that change which models there are: pull, push, create, copy, delete and blobs. Both roles.

A progress is a line ``{"status":"pulling 3f8eb4da87fa","digest":"sha256:...","total":5,"completed":3}``; the last line
says ``success``, or ``{"error":"..."}`` and nothing follows it. The server never reads Modelfile text: clients do, and
send what it says as fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from adapters.framing import LineReader, encode_line
from adapters.ollama import wire
from adapters.ollama.answers import error_body
from adapters.ollama.fields import read_fields, read_reply
from adapters.ollama.replies import error_text
from adapters.ollama.turns import read_messages, write_messages
from adapters.ollama.values import read_option
from canonical.digests import normal
from canonical.errors import BackendError, GatewayError, InvalidRequest, ModelNotFound, Unsupported
from canonical.progress import Progress
from canonical.recipe import Recipe

FIRST: dict[str, str] = {"pull": "pulling manifest", "push": "retrieving manifest"}
"""What stands before everything else, a missing model's error too: those routes have begun when they look for it."""
FILES = 1_000
"""Files, adapters or drafts of one creation; options, licenses likewise."""
TEXT = 16 * 1024 * 1024
"""Characters of a template or system text."""

_NOT_THERE = ("file does not exist", "not found")
_transfer = msgspec.json.Decoder(wire.TransferRequest)
_copy = msgspec.json.Decoder(wire.CopyRequest)
_create = msgspec.json.Decoder(wire.CreateRequest)
_progress = msgspec.json.Decoder(wire.Progress)
_encode = msgspec.json.encode


class TransferAsk(Struct, frozen=True):
    """A pull, a push or a deletion."""

    name: str
    insecure: bool = False
    stream: bool = True


class CopyAsk(Struct, frozen=True):
    """A copy."""

    source: str
    destination: str


class CreateAsk(Struct, frozen=True):
    """A creation."""

    name: str
    recipe: Recipe
    stream: bool = True
    notes: tuple[str, ...] = ()
    """What of it has no effect, in words for its author."""


# Us as a server


def read_transfer(body: bytes) -> TransferAsk:
    """``POST /api/pull``, ``POST /api/push``, ``DELETE /api/delete``. Raises InvalidRequest."""
    asked, _ = read_fields(_transfer, body)
    return TransferAsk(asked.model or asked.name or "", bool(asked.insecure), asked.stream is not False)


def read_copy(body: bytes) -> CopyAsk:
    """``POST /api/copy``. Raises InvalidRequest."""
    asked, _ = read_fields(_copy, body)
    return CopyAsk(asked.source or "", asked.destination or "")


def read_create(body: bytes) -> CreateAsk:
    """``POST /api/create``. An empty text is none, as in Ollama. Raises InvalidRequest."""
    asked, _ = read_fields(_create, body)
    if asked.remote_host:
        raise Unsupported("a model of another server is a backend in config.yaml, not a creation", param="remote_host")
    if not asked.source and not asked.files:
        raise InvalidRequest("neither 'from' or 'files' was specified", param="from")
    recipe = Recipe(
        source=asked.source or "",
        files=_files(asked.files, "files"),
        adapters=_files(asked.adapters, "adapters"),
        drafts=_files(asked.draft_files, "draft_files"),
        template=_text(asked.template, "template"),
        system=_text(asked.system, "system"),
        licenses=_licenses(asked.license),
        parameters=_parameters(asked.parameters),
        messages=tuple(read_messages(asked.messages)) if asked.messages else None,
        requires=asked.requires or "",
        quantize=asked.quantize or asked.quantization or "",
    )
    programs = {"renderer": asked.renderer, "parser": asked.parser}
    notes = tuple(
        f"{field} {name[:80]} is not known here: the template does its work" for field, name in programs.items() if name
    )
    return CreateAsk(asked.model or asked.name or "", recipe, asked.stream is not False, notes)


class ProgressStream:
    """Progress -> the lines of pull, push and create."""

    media_type: ClassVar[str] = "application/x-ndjson"

    def feed(self, progress: Progress) -> bytes:
        """One line."""
        return _line(progress) + b"\n"

    def finish(self) -> bytes:
        """The line of success."""
        return _SUCCESS + b"\n"

    def fail(self, error: GatewayError) -> bytes:
        """The line of a failure; nothing follows it."""
        return error_body(error) + b"\n"


def progress_reply() -> bytes:
    """The answer that is not streamed, which tells only of success."""
    return _SUCCESS


def transfer_failed(error: GatewayError) -> GatewayError:
    """``error`` as a pull, push or creation that is not streamed has it: what is no client's mistake is of the 500 family."""
    if isinstance(error, ModelNotFound):
        return GatewayError(error.message, param=error.param, code=error.code)
    return error


# Us as a client


def write_transfer(name: str, *, insecure: bool = False) -> bytes:
    """The body for ``/api/pull``, ``/api/push`` and ``/api/delete``, under both names of the field that servers know."""
    return _encode(wire.TransferRequest(model=name, name=name, insecure=insecure or None))


def write_copy(source: str, destination: str) -> bytes:
    """The body for ``/api/copy``."""
    return _encode(wire.CopyRequest(source=source, destination=destination))


def write_create(name: str, recipe: Recipe) -> bytes:
    """The body for ``/api/create``."""
    body = wire.CreateRequest(
        model=name,
        name=name,
        source=recipe.source or None,
        files=recipe.files or None,
        adapters=recipe.adapters or None,
        draft_files=recipe.drafts or None,
        template=recipe.template or None,
        system=recipe.system or None,
        license=list(recipe.licenses) if recipe.licenses else None,
        parameters=recipe.parameters or None,
        messages=write_messages(recipe.messages) if recipe.messages else None,
        quantize=recipe.quantize or None,
        requires=recipe.requires or None,
    )
    return _encode(body)


class ProgressReader:
    """The lines of another server's pull, push or create -> what they tell. ``finished``: success was among them."""

    __slots__ = ("_lines", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._lines = LineReader()

    def feed(self, data: bytes) -> list[Progress]:
        """What the lines tell that ``data`` completes.

        Raises:
            ModelNotFound, BackendError: a line of failure; BackendError also for what is no such line.
        """
        found: list[Progress] = []
        for line in self._lines.feed(data):
            if not line or line.isspace() or self.finished:
                continue
            told = read_reply(_progress, line)
            if told.error is not None:
                raise _failure(error_text(told.error))
            if told.status == "success":
                self.finished = True
            elif told.status:
                found.append(
                    Progress(
                        status=told.status,
                        digest=told.digest or "",
                        total=max(told.total or 0, 0),
                        completed=max(told.completed or 0, 0),
                    )
                )
        return found

    def finish(self) -> list[Progress]:
        """What the last line tells, if it is whole but for its line break. Raises BackendError where success never came."""
        found = self.feed(b"\n")
        if not self.finished:
            raise BackendError("the backend ended before it had succeeded", code="incomplete_stream")
        return found


# Inside


def _line(progress: Progress) -> bytes:
    told = wire.Progress(
        status=progress.status, digest=progress.digest, total=progress.total, completed=progress.completed
    )
    return encode_line(told)


def _failure(text: str) -> GatewayError:
    if any(words in text for words in _NOT_THERE):
        return ModelNotFound(text, param="model")
    return BackendError(text)


def _files(given: Mapping[str, str] | None, field: str) -> dict[str, str]:
    if given is None:
        return {}
    _check_count(given, field)
    found: dict[str, str] = {}
    for name, digest in given.items():
        # A drive's letter or a share's slashes are absolute as well, on the machine where this may run.
        parts = re.split(r"[/\\]", name)
        if not name or "\0" in name or len(name) > 1024 or parts[0] in {"", "~"} or ".." in parts or ":" in parts[0]:
            raise InvalidRequest("file path must be relative", param=field)
        found[name] = normal(digest)
    return found


def _text(text: str | None, field: str) -> str | None:
    if text and len(text) > TEXT:
        raise InvalidRequest(f"{field} may have at most {TEXT} characters", param=field)
    return text or None


def _licenses(given: Any) -> tuple[str, ...] | None:
    texts = [given] if isinstance(given, str) else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("license must be a string or an array of strings", param="license")
    _check_count(texts, "license")
    return tuple(text for text in texts if text) or None


def _parameters(given: dict[str, Any] | None) -> dict[str, Any]:
    """Typed as options of a request are; a name that is none of today's is kept, and has no effect."""
    if given is None:
        return {}
    _check_count(given, "parameters")
    found = {name: read_option(name, value) for name, value in given.items() if value is not None}
    for name, value in found.items():
        if isinstance(value, list | tuple):
            _check_count(value, f"parameters.{name[:80]}")
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _check_count(given: Any, field: str) -> None:
    if len(given) > FILES:
        raise InvalidRequest(f"{field} may have at most {FILES} entries", param=field)


_SUCCESS = _line(Progress(status="success"))
