"""Bytes that pass unread, without a network: the model's name in a request, and where the frames of an answer end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.framing import RECORD_LIMIT
from adapters.openai.fields import DANGEROUS
from adapters.relaying import Frames, addressed
from canonical.errors import BackendError, Unsupported

BODIES = {
    b'{"model":"a","x":1}': b'{"model":"up/\\"m\\"","x":1}',
    b' {\n\t"x" : [ "model" , {"model":"b"} ] ,\r\n "model" :  "a"  , "y":1e3 }\n': (
        b' {\n\t"x" : [ "model" , {"model":"b"} ] ,\r\n "model" :  "up/\\"m\\""  , "y":1e3 }\n'
    ),
    b'{"messages":"}{\\"model\\":\\"b\\"", "model":null}': b'{"messages":"}{\\"model\\":\\"b\\"", "model":"up/\\"m\\""}',
    b"{}": b'{"model":"up/\\"m\\""}',
    b'{ "x":"\xc3\xa9\\u00e9" }': b'{"model":"up/\\"m\\"", "x":"\xc3\xa9\\u00e9" }',
    b'{"model":"a","Model":"b","\\u004dODEL":{"c":1}}': (
        b'{"model":"up/\\"m\\"","Model":"up/\\"m\\"","\\u004dODEL":"up/\\"m\\""}'
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_request_keeps_every_byte_but_the_name(body: bytes) -> None:
    assert addressed(body, 'up/"m"') == BODIES[body]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text().filter(lambda name: name.casefold() != "model" and name.casefold() not in DANGEROUS)


@given(st.dictionaries(names, values, max_size=5), st.integers(0, 5), st.booleans(), st.sampled_from([None, 1]))
def test_any_request_says_the_same_about_all_else(
    fields: dict[str, object], place: int, escaped: bool, indent: int | None
) -> None:
    items = list(fields.items())
    items.insert(place, ("model", "the public name"))
    text = json.dumps(dict(items), ensure_ascii=escaped, indent=indent)
    try:
        body = text.encode()
    except UnicodeError:
        return  # half a character is no JSON, and refused before
    assert addressed(body, "the inner one") == text.replace('"the public name"', '"the inner one"').encode()


@pytest.mark.parametrize("field", sorted(DANGEROUS))
def test_fields_that_steer_the_server_are_refused(field: str) -> None:
    for spelling in (field, field.upper()):
        with pytest.raises(Unsupported, match=field):
            addressed(json.dumps({"model": "m", spelling: 1}).encode(), "m")


SSE = "text/event-stream"
STREAMS = {
    SSE: (
        b'data: {"a":"\xc3\xa9"}\n\n',
        b": comment\n\n",
        b"event: x\ndata: 1\ndata: 2\n\n",
        b"data: 1\r\n\r\n",
        b"\n\n",
    ),
    "application/x-ndjson": (b'{"a":1}\n', b"\n", b'{"b":"\xe2\x80\xa8"}\n'),
}


@pytest.mark.parametrize("media_type", STREAMS)
@given(st.data())
def test_frames_cut_anywhere_come_out_whole_and_every_byte_of_them(media_type: str, data: st.DataObject) -> None:
    frames = data.draw(st.lists(st.sampled_from(STREAMS[media_type]), max_size=8))
    rest = data.draw(st.sampled_from([b"", b"data: half", b"{"]))
    sent = b"".join(frames) + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    reader = Frames(media_type)
    told = b""
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        piece = reader.feed(sent[start:end])
        told += piece
        ends = (b"\n\n", b"\r\n\r\n") if media_type == SSE else (b"\n",)
        assert not told or told.endswith(ends)
        assert not any(mark in sent[len(told) : end] for mark in ends)
    assert told + reader.finish() == sent


def test_a_frame_without_an_end_is_not_gathered_for_ever() -> None:
    reader = Frames(SSE)
    piece = bytes(65536).replace(b"\0", b"x")
    for _ in range(RECORD_LIMIT // len(piece)):
        assert reader.feed(piece) == b""
    with pytest.raises(BackendError, match="more than 8388608 bytes"):
        reader.feed(b"x")
