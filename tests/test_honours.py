"""The table of what backends honour is walked: every feature is said to every backend, and what goes out is read back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from adapters.anthropic import serve as anthropic
from adapters.ollama import serve as ollama
from adapters.openai import serve as openai
from backends.anthropic import AnthropicBackend, AnthropicSettings
from backends.echo import EchoBackend, EchoSettings
from backends.honours import BACKENDS, TABLE
from backends.lmstudio import LMStudioBackend
from backends.lmstudio.settings import LMStudioSettings
from backends.ollama import OllamaBackend, OllamaSettings
from backends.openai import OpenAIBackend, OpenAISettings
from backends.transport import Head
from backends.upstream import Exchange
from canonical.errors import InvalidRequest, Unsupported
from canonical.events import Event, Finished, fold
from canonical.features import Feature, said
from canonical.media import Blob
from canonical.messages import Text
from canonical.report import Honours
from canonical.requests import Embed, Generate, Prompt, Rerank, Sampling, needs
from gateway.fetch import _with_images
from gateway.router import check_needs
from tests.meaning import meant
from tests.sayings import LINK, PNG, SAYINGS, Asked, chat, user

URL = "http://127.0.0.1:1"


class Sent(Exception):
    """A body that would have gone out."""

    def __init__(self, body: bytes) -> None:
        self.body = body


class Wire:
    """Stands where a backend's HTTP would be: a fake that keeps the body and answers nothing."""

    async def generate(self, exchange: Exchange, *, stream: bool) -> AsyncGenerator[Sequence[Event], None]:
        self._keep(exchange.body)
        yield []

    async def ask(self, head: Head, body: bytes) -> NoReturn:
        self._keep(body)

    def _keep(self, body: bytes) -> NoReturn:
        raise Sent(body)


def backend(column: str, **settings: Any) -> Any:
    kinds: dict[str, Any] = {
        "openai": (OpenAIBackend, OpenAISettings),
        "ollama": (OllamaBackend, OllamaSettings),
        "anthropic": (AnthropicBackend, AnthropicSettings),
        "lmstudio": (LMStudioBackend, partial(LMStudioSettings, jit=True)),  # what loads nothing needs no server
    }
    kind, made = kinds[column]
    return kind("b", made(url=URL, models=("m",), **settings), Path())


def body_of(column: str, request: Asked, **settings: Any) -> bytes:
    """What would go out for ``request``. Raises what the backend raises."""
    home = backend(column, **settings)

    async def ask() -> None:
        model = await home.open("m")
        model._upstream = Wire()
        verb = {Generate: "generate", Embed: "embed", Rerank: "rerank"}[type(request)]
        if not hasattr(model, verb):
            raise Unsupported(f"no {verb}", param="model")  # the engine's own words for it
        asking = getattr(model, verb)(request)
        if isinstance(request, Generate):
            async for _ in asking:
                pass
        else:
            await asking

    try:
        asyncio.run(ask())
    except Sent as sent:
        return sent.body
    raise AssertionError("nothing went out")


def read_back(column: str, request: Asked, body: bytes) -> Asked:
    """What a server of the backend's dialect understands."""
    column = "openai" if column == "lmstudio" else column
    fields = msgspec.json.decode(body)
    if isinstance(request, Rerank):
        return openai.read_rerank(body).request
    if isinstance(request, Embed):
        return {"openai": openai.read_embeddings, "ollama": ollama.read_embed}[column](body).request
    if column == "openai":
        ask = openai.read_completion(body) if "prompt" in fields else openai.read_chat(body)
    elif column == "ollama":
        ask = ollama.read_generate(body) if "prompt" in fields else ollama.read_chat(body)  # type: ignore[assignment]
    else:
        ask = anthropic.read_messages(body)
    (again,) = ask.requests
    return again


def honours_of(column: str, **settings: Any) -> Honours:
    found: Honours = asyncio.run(backend(column, **settings).open("m")).honours
    return found


def check(column: str, feature: Feature, **settings: Any) -> None:
    """One cell of the table."""
    saying, without = SAYINGS[feature]
    verdict = honours_of(column, **settings).verdicts[feature]
    if feature is Feature.IMAGE_LINK and not backend(column).image_links:
        assert isinstance(saying, Generate)
        assert isinstance(PNG.source, Blob)
        saying = _with_images(saying, {LINK: PNG.source})  # the gateway follows it
    if verdict.fate == "refused":
        with pytest.raises(InvalidRequest) as refused:
            body_of(column, saying, **settings)
        assert refused.value.param
        return
    body = body_of(column, saying, **settings)
    if verdict.fate == "dropped":
        assert body == body_of(column, without, **settings)
        return
    again = read_back(column, saying, body)
    if feature is Feature.STOP_TOLD:  # no field says it, but the dialect as such
        assert (verdict.fate == "honoured") is (feature in said(again))
    elif verdict.fate == "honoured":
        assert meant(again) == meant(saying)
    else:
        assert verdict.note
        assert meant(again) != meant(saying)


def test_every_feature_has_its_probe_and_its_row() -> None:
    assert set(SAYINGS) == set(Feature)
    for column in BACKENDS:
        assert set(TABLE[column]) == set(Feature)


@pytest.mark.parametrize("feature", Feature)
def test_a_probe_says_its_feature_and_nothing_else(feature: Feature) -> None:
    saying, without = SAYINGS[feature]
    assert set(said(saying)) - set(said(without)) == {feature}


@pytest.mark.parametrize("column", ["openai", "ollama", "anthropic", "lmstudio"])
@pytest.mark.parametrize("feature", Feature)
def test_m5_a_backend_does_what_its_column_says(column: str, feature: Feature) -> None:
    check(column, feature)


@pytest.mark.parametrize("feature", Feature)
def test_m5_a_server_that_is_told_budgets_has_a_column_of_its_own(feature: Feature) -> None:
    check("anthropic", feature, thinking="enabled")


@pytest.mark.parametrize("feature", Feature)
def test_m5_a_server_that_takes_signed_thoughts_only_has_too(feature: Feature) -> None:
    check("anthropic", feature, unsigned_thoughts=False)


# The model that needs nothing


WORDS = "one two\nthree END four"
EVIDENCE: dict[Feature, tuple[Asked, str]] = {
    Feature.MAX_TOKENS: (chat(user(Text(WORDS)), sampling=Sampling(max_tokens=2)), "one two"),
    Feature.STOP: (chat(user(Text(WORDS)), sampling=Sampling(stop=("END",))), "one two\nthree "),
    Feature.STOP_BLANK: (chat(user(Text(WORDS)), sampling=Sampling(stop=("END", "\n"))), "one two"),
    Feature.THINK_OFF: (chat(user(Text(WORDS)), think="off"), WORDS),
    Feature.PROMPT: (Generate(model="m", prompt=Prompt(text=WORDS)), WORDS),
}
"""What it honours by its text."""


async def echoed(request: Asked) -> list[Any]:
    """Its answer. Raises what the engine would."""
    model = await EchoBackend("b", EchoSettings()).open("echo")
    if isinstance(request, Generate):
        check_needs("echo", needs(request), model.info)
        return [event async for batch in model.generate(request) for event in batch]
    return [await (model.embed(request) if isinstance(request, Embed) else model.rerank(request))]


def told(answer: list[Any]) -> Any:
    """What it says, whatever it counts."""
    return fold(answer).text if isinstance(answer[-1], Finished) else answer


@pytest.mark.parametrize("feature", Feature)
def test_m5_echo_does_what_its_column_says(feature: Feature) -> None:
    saying, without = SAYINGS[feature]
    match TABLE["echo"][feature].fate:
        case "refused":
            with pytest.raises(InvalidRequest) as refused:
                asyncio.run(echoed(saying))
            assert refused.value.param
        case "dropped":
            assert told(asyncio.run(echoed(saying))) == told(asyncio.run(echoed(without)))
        case "honoured" if feature in EVIDENCE:
            asked, text = EVIDENCE[feature]
            assert fold(asyncio.run(echoed(asked))).text == text
        case "honoured" if feature is Feature.STOP_TOLD:
            asked, _ = EVIDENCE[Feature.STOP]
            assert fold(asyncio.run(echoed(asked))).stop_sequence == "END"
        case "honoured" if feature is Feature.DIMENSIONS:
            assert len(asyncio.run(echoed(saying))[0].vectors[0]) == 8
        case fate:
            # The engine itself cuts a ranking, for every backend.
            assert (fate, feature) == ("honoured", Feature.TOP_N)
