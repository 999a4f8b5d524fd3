"""The wire of pull, push and create, as a server and as a client: what one half writes the other reads."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama._types import CreateRequest, ProgressResponse

from adapters.ollama import managing
from canonical.errors import BackendError, ModelNotFound
from canonical.messages import Message, Text
from canonical.progress import Progress
from canonical.recipe import Recipe

DIGEST = "sha256:" + "ab" * 32
WORDS = st.text(min_size=1).filter(lambda text: text != "success")
STEPS = st.builds(
    Progress,
    status=WORDS,
    digest=st.sampled_from(["", DIGEST]),
    total=st.integers(0, 2**53),
    completed=st.integers(0, 2**53),
)
TEXTS = st.none() | st.text(min_size=1)
DIGESTS = st.dictionaries(st.sampled_from(["a.gguf", "b/c.gguf", "x-00001-of-00002.gguf"]), st.just(DIGEST), max_size=2)
RECIPES = st.builds(
    Recipe,
    source=st.sampled_from(["qwen3:4b", "hf.co/a/b:Q4_K_M"]),
    files=DIGESTS,
    adapters=DIGESTS,
    drafts=DIGESTS,
    template=TEXTS,
    system=TEXTS,
    licenses=st.none() | st.lists(st.text(min_size=1), min_size=1, max_size=2).map(tuple),
    parameters=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(allow_nan=False, allow_infinity=False),
            "num_ctx": st.integers(-1, 2**40),
            "use_mmap": st.booleans(),
            "stop": st.lists(st.text(min_size=1), min_size=1, max_size=2),
        },
    ),
    messages=st.none()
    | st.lists(
        st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.tuples(st.builds(Text, st.text()))),
        min_size=1,
        max_size=3,
    ).map(tuple),
    quantize=st.sampled_from(["", "Q4_K_M"]),
    requires=st.sampled_from(["", "0.14.0"]),
)


@given(st.lists(STEPS), st.lists(st.integers(0, 400)))
def test_progress_is_read_as_it_was_told_in_any_slices(steps, cuts):
    encoder, reader = managing.ProgressStream(), managing.ProgressReader()
    data = b"".join(map(encoder.feed, steps)) + encoder.finish()
    at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [step for one, two in pairwise(at) for step in reader.feed(data[one:two])]
    assert found + reader.finish() == steps
    for line in data.splitlines() if data.isascii() else []:
        ProgressResponse.model_validate_json(line)


@given(RECIPES)
def test_a_recipe_is_read_as_it_was_written(recipe):
    ask = managing.read_create(managing.write_create("m", recipe))
    assert (ask.name, ask.recipe, ask.stream) == ("m", recipe, True)


def test_lines_are_ollamas():
    told = managing.ProgressStream()
    step = Progress(status="pulling abababababab", digest=DIGEST, total=5)
    assert json.loads(told.feed(step)) == {"status": "pulling abababababab", "digest": DIGEST, "total": 5}
    assert told.feed(Progress(status="verifying\u2028")) == b'{"status":"verifying\\u2028"}\n'
    assert told.finish() == b'{"status":"success"}\n'
    assert told.fail(BackendError("no")) == b'{"error":"no"}\n'
    assert managing.progress_reply() == b'{"status":"success"}'


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        (
            b'{"status":"pulling manifest"}\n{"error":"pull model manifest: file does not exist"}\n',
            ModelNotFound,
            "exist",
        ),
        (b'{"error":"max retries exceeded: EOF"}\n', BackendError, "max retries"),
        (b'{"error":{"message":"odd"}}\n', BackendError, "odd"),
        (b"<html>\n", BackendError, "not Ollama's"),
        (b'{"status":"pulling manifest"}\n', BackendError, "before it had succeeded"),
        (b"", BackendError, "before it had succeeded"),
        (b'{"status":"half', BackendError, "not Ollama's"),
    ],
)
def test_what_goes_wrong_there_is_an_error_here(lines, kind, words):
    def whole() -> None:
        reader = managing.ProgressReader()
        reader.feed(lines)
        reader.finish()

    with pytest.raises(kind, match=words):
        whole()


def test_a_last_line_may_lack_its_end():
    reader = managing.ProgressReader()
    assert reader.feed(b'\n {"status":"a","completed":-5,"new":1}\n\n{"status":"success"}') == [Progress(status="a")]
    assert reader.finish() == []


def test_the_official_client_sends_what_is_read():
    sent = CreateRequest(model="m", from_="q", license="MIT", parameters={"stop": "x"}, stream=False)
    ask = managing.read_create(sent.model_dump_json(exclude_none=True).encode())
    assert ask == managing.CreateAsk(
        "m", Recipe(source="q", licenses=("MIT",), parameters={"stop": ["x"]}), stream=False
    )


def test_older_names_of_fields_count_where_the_newer_ones_are_absent():
    assert managing.read_transfer(b'{"name":"a"}').name == "a"
    assert managing.read_transfer(b'{"name":"a","model":"b","insecure":true,"stream":false}') == managing.TransferAsk(
        "b", insecure=True, stream=False
    )
    assert managing.read_create(b'{"name":"a","from":"b","quantization":"Q8_0"}').recipe.quantize == "Q8_0"
    assert json.loads(managing.write_transfer("m", insecure=True)) == {"model": "m", "name": "m", "insecure": True}
    assert managing.read_copy(managing.write_copy("a", "b")) == managing.CopyAsk("a", "b")
