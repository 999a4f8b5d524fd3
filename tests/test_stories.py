"""One story, told in every dialect: what a client must see, byte for byte."""

from __future__ import annotations

import pytest

from adapters.openai import call as openai
from canonical.events import Check, Event, Finished, Started, fold
from tests.telling import DIALECTS, Story, stories, told

_TOLD = list(told())


@pytest.mark.parametrize(("story", "file"), _TOLD, ids=[f"{story.name}-{file}" for story, file in _TOLD])
def test_m4_each_dialect_tells_the_story(story: Story, file: str) -> None:
    assert DIALECTS[file](story.events) == (story.folder / file).read_bytes()


@pytest.mark.parametrize("story", stories(), ids=lambda story: story.name)
def test_a_story_obeys_the_grammar(story: Story) -> None:
    check = Check()
    for event in story.events:
        check.feed(event)
    check.finish()


def _no_id() -> str:
    raise AssertionError("every call of a story has its id")


@pytest.mark.parametrize("story", stories(), ids=lambda story: story.name)
def test_m5_the_openai_client_half_reads_the_story(story: Story) -> None:
    reader = openai.ChatReader(_no_id)
    events = reader.feed((story.folder / "openai.sse").read_bytes()) + reader.finish()
    assert events == _without_timings(story.events)
    whole = openai.read_chat((story.folder / "openai.json").read_bytes(), _no_id)
    assert fold(whole) == fold(_without_timings(story.events))


@pytest.mark.parametrize("story", [story for story in stories() if story.plain], ids=lambda story: story.name)
def test_m5_the_completion_reader_reads_the_story(story: Story) -> None:
    reader = openai.CompletionReader()
    events = reader.feed((story.folder / "completion.sse").read_bytes()) + reader.finish()
    assert fold(events).text == fold(story.events).text
    assert events[-1] == _without_timings(story.events)[-1]
    whole = openai.read_completion((story.folder / "completion.json").read_bytes())
    assert fold(whole).text == fold(story.events).text
    assert whole[0] == Started("pip")


def _without_timings(events: tuple[Event, ...]) -> list[Event]:
    *others, last = events
    assert isinstance(last, Finished)
    return [*others, Finished(last.reason, last.usage)]
