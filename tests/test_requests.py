"""Golden requests: what each dialect's body means, and that the client halves write it so that it means the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.anthropic import call as anthropic_call
from adapters.anthropic import serve as anthropic_serve
from adapters.brenda import serve as brenda_serve
from adapters.conversation import serve as conversation_serve
from adapters.dialect import Ask, LoadAsk
from adapters.lmstudio import serve as lmstudio_serve
from adapters.ollama import call as ollama_call
from adapters.ollama import serve as ollama_serve
from adapters.openai import call, serve
from adapters.responses import serve as responses_serve
from canonical.requests import Generate, Origin

REQUESTS = Path(__file__).parent / "requests"


def _read_response(body: bytes) -> Ask:
    question = responses_serve.read_create(body)
    return Ask((question.asked(),), question.stream, encoder=_no_answer, whole=_no_answer)


def _no_answer(*_: object) -> Any:
    raise AssertionError("only the request is looked at")


def _read_chat(body: bytes) -> Ask:
    chat = lmstudio_serve.read_chat(body)
    return Ask((chat.asked(),), chat.stream, encoder=_no_answer, whole=_no_answer)


def _read_brenda(body: bytes) -> Ask:
    chat = brenda_serve.read_chat(body)
    return chat.ask(chat.model)


def _read_query(body: bytes) -> Ask:
    question = conversation_serve.read_query(body)
    return conversation_serve.generate_ask(question.asked(question.model), lines=False)


READ: dict[str, Callable[[bytes], Ask | LoadAsk]] = {
    "anthropic.json": anthropic_serve.read_messages,
    "brenda.json": _read_brenda,
    "conversation.json": _read_query,
    "openai.json": serve.read_chat,
    "completion.json": serve.read_completion,
    "ollama.json": ollama_serve.read_chat,
    "generate.json": ollama_serve.read_generate,
    "responses.json": _read_response,
    "lmstudio.json": _read_chat,
}
WRITE: dict[str, Callable[[Generate, str], bytes]] = {
    "anthropic.json": anthropic_call.write_messages,
    "openai.json": call.write_chat,
    "completion.json": call.write_completion,
    "ollama.json": ollama_call.write_chat,
    "generate.json": ollama_call.write_generate,
}

_CASES = [path for file in READ for path in sorted(REQUESTS.glob(f"*/{file}"))]
written = pytest.mark.parametrize(
    "path",
    [path for path in _CASES if path.name in WRITE],
    ids=[f"{path.parent.name}-{path.stem}" for path in _CASES if path.name in WRITE],
)
cases = pytest.mark.parametrize("path", _CASES, ids=[f"{path.parent.name}-{path.stem}" for path in _CASES])


def canonical(request: Generate) -> dict[str, Any]:
    """The request as plain JSON values, without its origin and what is at its default."""
    values: dict[str, Any] = json.loads(msgspec.json.encode(bare(request)))
    return _lean(values, json.loads(msgspec.json.encode(Generate(model=""))))


def bare(request: Generate) -> Generate:
    return msgspec.structs.replace(request, origin=Origin())


def _lean(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    lean = {}
    for name, value in values.items():
        if name in {"sampling", "load"}:
            value = _lean(value, defaults[name])
        if name == "model" or value not in (defaults.get(name), {}):
            lean[name] = value
    return lean


@cases
def test_m4_a_body_means_its_canonical_request(path: Path) -> None:
    (request,) = READ[path.name](path.read_bytes()).requests
    assert canonical(request) == json.loads((path.parent / "canonical.json").read_bytes())
    assert request.origin.body == path.read_bytes()


@written
def test_m5_what_the_client_half_writes_means_the_same(path: Path) -> None:
    (request,) = READ[path.name](path.read_bytes()).requests
    (again,) = READ[path.name](WRITE[path.name](bare(request), request.model)).requests
    assert bare(again) == bare(request)


@written
def test_m5_fields_that_only_this_dialect_knows_travel_on(path: Path) -> None:
    (request,) = READ[path.name](path.read_bytes()).requests
    body, sent = json.loads(WRITE[path.name](request, "other")), json.loads(path.read_bytes())
    assert body["model"] == "other"
    for name in ("user", "metadata", "truncate"):
        assert body.get(name) == sent.get(name)


if __name__ == "__main__":
    for case in _CASES:
        (found,) = READ[case.name](case.read_bytes()).requests
        text = json.dumps(canonical(found), indent=1, ensure_ascii=False)
        (case.parent / "canonical.json").write_text(text + "\n")
