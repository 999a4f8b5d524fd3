"""The echo backend: what applications and tests are written against."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Backend, Embeds, Generates
from backends.echo import DIMENSIONS, EchoBackend, EchoModel, EchoSettings, counted, words
from canonical.errors import InvalidRequest, ModelNotFound, Unsupported
from canonical.events import Check, Completion, Event, Finished, fold
from canonical.messages import Message, Text
from canonical.models import Capability
from canonical.requests import Embed, Embeddings, Generate, Output, Prompt, Sampling

MESSAGES = (
    Message("system", (Text("Be brief."),)),
    Message("user", (Text("Not this."),)),
    Message("assistant", (Text("Well."),)),
    Message("user", (Text("one two  three\nfour"),)),
)


def model() -> EchoModel:
    return asyncio.run(EchoBackend("e", EchoSettings()).open("echo"))


def told(request: Generate) -> tuple[Completion, list[Event]]:
    async def scenario() -> list[Event]:
        return [event async for batch in model_.generate(request) for event in batch]

    model_ = model()
    events = asyncio.run(scenario())
    check = Check()
    for event in events:
        check.feed(event)
    check.finish()
    return fold(events), events


def test_it_repeats_the_last_user_message() -> None:
    answer, events = told(Generate(model="echo", messages=MESSAGES))
    assert (answer.text, answer.reason, answer.model) == ("one two  three\nfour", "stop", "echo")
    assert len(events) == 6
    assert answer.usage is not None
    assert (answer.usage.prompt, answer.usage.completion) == (9, 4)


@pytest.mark.parametrize(
    ("sampling", "text", "reason"),
    [
        (Sampling(max_tokens=2), "one two", "length"),
        (Sampling(max_tokens=0), "", "length"),
        (Sampling(max_tokens=4), "one two  three\nfour", "stop"),
        (Sampling(stop=("three",)), "one two  ", "stop"),
        (Sampling(stop=("four", "w")), "one t", "stop"),
        (Sampling(stop=("",)), "one two  three\nfour", "stop"),
        (Sampling(stop=("three",), max_tokens=1), "one", "length"),
    ],
)
def test_it_stops_where_it_is_told_to(sampling: Sampling, text: str, reason: str) -> None:
    answer, _ = told(Generate(model="echo", messages=MESSAGES, sampling=sampling))
    assert (answer.text, answer.reason) == (text, reason)


def test_a_prompt_is_repeated() -> None:
    assert told(Generate(model="echo", prompt=Prompt(text="Once upon")))[0].text == "Once upon"
    assert told(Generate(model="echo"))[1][-1] == Finished("stop", told(Generate(model="echo"))[0].usage)


@given(st.text())
def test_words_lose_nothing(text: str) -> None:
    assert "".join(words(text)) == text
    assert counted(text) == len(words(text))


def test_what_it_cannot_do_it_refuses() -> None:
    backend = EchoBackend("e", EchoSettings())
    info = asyncio.run(backend.models())[0]
    assert info.capabilities >= {Capability.CHAT, Capability.COMPLETE, Capability.EMBED, Capability.RERANK}
    for request in (
        Generate(model="echo", messages=MESSAGES, output=Output("json")),
        Generate(model="echo", prompt=Prompt(tokens=(1, 2))),
    ):
        with pytest.raises(Unsupported):
            told(request)
    for name in ("Echo", "other", ""):
        with pytest.raises(ModelNotFound):
            asyncio.run(backend.open(name))
        with pytest.raises(ModelNotFound):
            asyncio.run(backend.details(name))


def embed(*inputs: str | tuple[int, ...], dimensions: int | None = None) -> Embeddings:
    return asyncio.run(model().embed(Embed(model="echo", inputs=inputs, dimensions=dimensions)))


@given(st.text(), st.integers(1, 256))
def test_vectors_have_unit_length(text: str, size: int) -> None:
    (vector,) = embed(text, dimensions=size).vectors
    assert len(vector) == size
    assert sum(value * value for value in vector) == pytest.approx(1)


def test_vectors_of_like_texts_are_near() -> None:
    cat, cats, physics = embed("the cat sat on the mat", "The cat sat on a mat", "quantum field theory").vectors
    assert len(cat) == DIMENSIONS
    assert embed("the cat sat on the mat").vectors == (cat,)
    assert sum(map(float.__mul__, cat, cats)) > 0.6 > sum(map(float.__mul__, cat, physics))


def test_vectors_have_bounds() -> None:
    for dimensions in (0, -1, 5000):
        with pytest.raises(InvalidRequest):
            embed("x", dimensions=dimensions)
    with pytest.raises(Unsupported):
        embed((1, 2))


def test_it_is_a_backend() -> None:
    backend: Backend = EchoBackend("e", EchoSettings())
    found = model()
    assert isinstance(found, Generates)
    assert isinstance(found, Embeds)
    assert found.loaded().info.id == "echo"
    assert asyncio.run(backend.details("echo")).info.embedding_length == DIMENSIONS
    asyncio.run(found.close())
    asyncio.run(backend.close())
