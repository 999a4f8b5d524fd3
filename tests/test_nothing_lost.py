"""A request that goes through dragoman arrives as it was meant, or the report names what did not (promises M3 and M5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adapters.dialect import Ask, EmbedAsk
from canonical.errors import GatewayError
from canonical.features import Feature, said
from canonical.origin import top
from canonical.report import Report, report
from canonical.requests import Embed, Generate
from tests.asking import PAIRS, ROUTES, Fields, encoded, odd_paths
from tests.meaning import meant
from tests.test_honours import body_of, honours_of, read_back

Request = Generate | Embed


def read(route: str, body: Fields) -> Request:
    ask = ROUTES[route][1](encoded(body))
    if isinstance(ask, EmbedAsk):
        return ask.request
    assert isinstance(ask, Ask)
    (request,) = ask.requests
    return request


def sent(column: str, request: Request) -> tuple[bytes, Report]:
    """What goes out to a backend, and what is told of it. A request that is refused is none of these tests' business."""
    try:
        return body_of(column, request), report(request, honours_of(column))
    except GatewayError:
        assume(False)
        raise


def changed(request: Request, told: Report) -> set[Feature]:
    """The features that the report says are not as they were said."""
    words, spelled = request.origin.vocabulary, request.origin.spelled()
    named = {*told.dropped, *told.approximated}
    return {feature for feature in said(request) if words.name(feature, spelled) in named}


tries = settings(max_examples=25)  # of each pair
routes = pytest.mark.parametrize("route", ROUTES)
pairs = pytest.mark.parametrize(("route", "column"), PAIRS)


@pairs
@tries
@given(data=st.data())
def test_m5_what_arrives_is_what_was_meant_or_it_is_told(route: str, column: str, data: st.DataObject) -> None:
    body = data.draw(ROUTES[route][0])
    request = read(route, body)
    out, told = sent(column, request)
    again = read_back(column, request, out)
    without = changed(request, told)
    if request.origin.dialect == "anthropic" and isinstance(request, Generate) and request.think is None:
        without.add(Feature.THINK_OFF)  # who does not ask for thoughts there wants none
    assert meant(again, without) == meant(request, without)  # type: ignore[arg-type]  # what goes out is what came in


@pairs
@tries
@given(data=st.data())
def test_m3_every_field_that_nobody_knows_travels_or_is_named(route: str, column: str, data: st.DataObject) -> None:
    body = data.draw(ROUTES[route][0])
    request = read(route, body)
    out, told = sent(column, request)
    travelled = odd_paths(json.loads(out))
    odd = odd_paths(body)
    assert odd <= travelled | set(told.dropped)
    assert not odd & set(told.honoured) - travelled
    if request.origin.dialect != column:
        assert not travelled


@pairs
@tries
@given(data=st.data())
def test_m3_every_field_of_the_body_is_held_or_travels_or_is_named(
    route: str, column: str, data: st.DataObject
) -> None:
    """Known by name, that is; and what is said of a field is said of one that the body has."""
    body = data.draw(ROUTES[route][0])
    request = read(route, body)
    _, told = sent(column, request)
    known = request.origin.vocabulary.known
    named = {top(path) for path in (*told.honoured, *told.approximated, *told.dropped)}
    idle = request.origin.vocabulary.idle
    for name, value in body.items():
        quiet = value in (None, [], {}) or json.dumps(value).encode() in idle.get(name, ())
        assert name in known or name in named or quiet
    assert named <= body.keys() | {"max_tokens"}  # a completion has a limit without saying it


@routes
@tries
@given(data=st.data())
def test_m3_an_order_of_fields_changes_nothing(route: str, data: st.DataObject) -> None:
    body = data.draw(ROUTES[route][0])
    other: dict[str, Any] = dict(data.draw(st.permutations(list(body.items()))))
    for column in ("openai", "ollama", "anthropic"):
        first, second = (report(read(route, one), honours_of(column)) for one in (body, other))
        assert set(first.dropped) == set(second.dropped)
        assert first.approximated == second.approximated
        assert set(first.honoured) == set(second.honoured)


@pytest.mark.parametrize("route", ["openai chat", "ollama chat", "ollama generate", "anthropic messages"])
@tries
@given(data=st.data())
def test_m5_a_conversation_that_was_changed_is_never_sent_as_it_came(route: str, data: st.DataObject) -> None:
    """Whoever changes the messages switches ``verbatim`` off, and every write half goes by the canonical ones then."""
    from msgspec import structs

    from canonical.messages import Message, Text

    request = read(route, data.draw(ROUTES[route][0]))
    assume(isinstance(request, Generate) and request.prompt is None)
    assert isinstance(request, Generate)
    changed = structs.replace(
        request,
        messages=(Message("user", (Text("CHANGED"),)),),
        tools=(),
        tool_choice=None,
        origin=structs.replace(request.origin, verbatim=False),
    )
    for column in ("openai", "ollama", "anthropic"):
        out, _ = sent(column, changed)
        (message,) = json.loads(out)["messages"]
        assert "CHANGED" in json.dumps(message["content"])
        assert "system" not in json.loads(out)
        assert not json.loads(out).get("tools")
