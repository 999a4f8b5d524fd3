"""The image-job API's reading and telling, without a gateway: any body is read or refused with words, and what is told can be posted."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from adapters.images import asked, serve
from adapters.images.errors import error_body, error_status
from adapters.recipe import json_of
from canonical.errors import Busy, GatewayError, InvalidRequest, NotFound, TooLarge
from canonical.painting import SEED, Lora, Paint, check_paint

_WORDS = st.text(max_size=30)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=6,
)
_PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | _WORDS
_FIELDS = st.sampled_from(serve.wire.GenerateRequest.__struct_fields__)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


_PAINTS = st.builds(
    Paint,
    prompt=st.text(max_size=60),
    model=st.text(max_size=20),
    negative_prompt=st.text(max_size=20),
    loras=st.lists(
        st.builds(Lora, name=st.text(min_size=1, max_size=9), weight=_maybe(st.floats(-10, 10))),
        max_size=4,
        unique_by=lambda lora: lora.name,
    ).map(tuple),
    steps=_maybe(st.integers(1, 500)),
    guidance_scale=_maybe(st.floats(0, 100)),
    guidance_rescale=_maybe(st.floats(0, 1)),
    seed=_maybe(st.integers(0, SEED)),
    width=_maybe(st.integers(2, 1024).map(lambda side: 8 * side)),
    height=_maybe(st.integers(2, 1024).map(lambda side: 8 * side)),
    sampler=_maybe(st.text(min_size=1, max_size=9)),
    clip_skip=_maybe(st.integers(1, 12)),
)


def refusal(read: Callable[[], object]) -> InvalidRequest | None:
    """Why it is refused; None: it is not."""
    try:
        read()
    except InvalidRequest as error:
        return error
    return None


@given(_PAINTS, st.dictionaries(_WORDS.map(lambda word: f"x-{word}"), _PLAIN, max_size=2))
def test_i10_a_recipe_is_read_back_as_what_it_tells(made: Paint, more: dict[str, Any]) -> None:
    told = serve.metadata_header(b"{}", made, "/status/x")
    assert told.isascii()
    assert b"\n" not in told
    read = asked.read_generate(json.dumps({**json.loads(told), **more}).encode())
    assert read.digests == {}
    assert read.request == made


@given(st.binary(max_size=60) | st.dictionaries(_FIELDS | _WORDS, _JSON).map(json.dumps).map(str.encode))
def test_any_body_is_read_or_refused_with_words(body: bytes) -> None:
    error = refusal(lambda: check_paint(asked.read_generate(body).request))
    if error is not None:
        told = json.loads(error_body(error))
        assert error_status(error) in {413, 422}
        assert told["status"] == "failed"
        assert told["error"] == error.message


@given(st.text(max_size=20), st.binary(max_size=20))
def test_any_query_and_header_is_read_or_refused_with_words(query: str, prefer: bytes) -> None:
    for name in ("wait", "index", "limit", "state", "previews"):
        text = f"{name}={query}".encode()
        for error in (
            refusal(partial(asked.read_wait, text, [(b"prefer", prefer)])),
            refusal(partial(asked.read_index, text)),
            refusal(partial(asked.read_page, text)),
            refusal(partial(asked.wants_previews, text)),
        ):
            if error is not None:
                assert error_status(error) == 422
                assert json.loads(error_body(error))["detail"][0]["loc"][0] == "query"


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (b"wait=10", 10),
        (b'wait="10"', 10),
        (b"respond-async, wait=10", 10),
        (b"wait=10; foo=bar", 10),
        (b"Wait = 0", 0),
        (b"wait=999999", asked.WAIT),
        (b"wait=-1", None),
        (b"wait=1.5", None),
        (b"await=10", None),
        (b"wait=soon", None),
        (b"respond-async", None),
        (b"", None),
    ],
)
def test_how_long_a_client_wants_to_wait_is_read_as_rfc_7240_has_it(prefer: bytes, seconds: float | None) -> None:
    assert asked.read_wait(b"", [(b"prefer", prefer)]) == seconds


def test_a_recipe_that_is_too_long_goes_without_its_prompts_and_says_where_they_are() -> None:
    made = Paint(prompt="é" * 2000, negative_prompt="x", model="m", seed=1)
    told = json.loads(serve.metadata_header(b"{}", made, "/status/x"))
    assert told == {"model": "m", "seed": 1, "left_out": ["prompt", "negative_prompt"], "whole": "/status/x"}
    short = structs.replace(made, prompt='"left_out"')
    assert json.loads(serve.metadata_header(json_of(short), short, "/status/x")) == json.loads(json_of(short))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("no", param="steps"), 422),
        (TooLarge("no"), 413),
        (NotFound("no", param="loras"), 404),
        (Busy("no"), 503),
        (GatewayError("half \ud800 a character"), 500),
    ],
)
def test_errors_keep_their_status_but_for_what_is_wrong_with_a_request(error: GatewayError, status: int) -> None:
    assert error_status(error) == status
    told = json.loads(error_body(error))
    assert set(told) == {"status", "error", "detail"}
    assert isinstance(told["detail"], list) is (status == 422)
