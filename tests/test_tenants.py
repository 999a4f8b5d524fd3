"""What one key's requests have computed is never used for another's: neither the usage nor the time tells of it.

The demo model says how much of a prompt was there already (``cached``); that is what is looked at.
"""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.llama_cpp.model import TextModel
from backends.llama_cpp.places import Places, tenant_of
from tests.serving import serving
from tests.test_llama_cpp import COMPILED, answer, ask, every_engine, on

LONG = "Repeat: alpha beta gamma delta. " + "The quick brown fox sees it. " * 6


async def cached(model: TextModel, tenant: str, text: str = LONG) -> int:
    request = ask(text, tenant=tenant, sampling={"max_tokens": 3})
    usage = (await answer(model, request)).usage
    assert usage is not None
    assert usage.prompt > 60
    return usage.cached or 0


@every_engine
@pytest.mark.parametrize("slots", [1, 4])
def test_a_prefix_is_shared_within_a_tenant_and_never_across(engine: dict[str, Any], slots: int) -> None:
    async def story(model: TextModel) -> None:
        assert await cached(model, "ada") == 0
        assert await cached(model, "ada") > 60
        assert await cached(model, "bob") == 0
        assert await cached(model, "bob") > 60
        assert await cached(model, "") == 0
        assert (await cached(model, "ada") > 60) == (slots > 1)  # with one slot the others have taken it

    on(engine, story, slots=slots, context=512, mmproj="")


@every_engine
def test_a_count_leaves_nothing_for_another_tenant(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        assert await model.count(ask(LONG, tenant="ada")) > 60
        assert await cached(model, "bob") == 0
        assert await model.count(ask(LONG, tenant="ada")) > 60
        assert await cached(model, "ada") == 0 or engine["engine"] == "xllamacpp"

    on(engine, story, slots=1, context=512, mmproj="")


@every_engine
def test_many_tenants_at_once_get_their_own(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        for _ in range(3):
            found = await asyncio.gather(*(cached(model, f"tenant {number % 4}") for number in range(8)))
            assert all(0 <= one < 200 for one in found)
        for number in range(4, 8):
            assert await cached(model, f"tenant {number}") == 0

    on(engine, story, slots=3, context=512, mmproj="")


@pytest.mark.parametrize("engine", ["xllamacpp", pytest.param("llama-cpp-python", marks=COMPILED)])
def test_keys_are_tenants(engine: str) -> None:
    config = f"""
listeners: [{{port: 0, dialects: [openai]}}]
keys: [the-key-of-ada, the-key-of-bob]
backends: {{local: {{type: llama_cpp, engine: {engine}, models_dir: ./models, threads: 1, context: 512}}}}
models: [{{id: pip, backend: local}}]
"""

    def used(url: str, key: str) -> int:
        body = {"model": "pip", "max_tokens": 2, "messages": [{"role": "user", "content": LONG}]}
        request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
        request.add_header("authorization", f"Bearer the-key-of-{key}")
        with urllib.request.urlopen(request, timeout=30) as reply:
            usage = json.load(reply)["usage"]
        return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))

    with serving(config) as gateway:
        found = [used(gateway.url, key) for key in ("ada", "bob", "ada", "bob")]
    assert found[:2] == [0, 0]
    assert min(found[2:]) > 60


def body_of(tenant: str, text: str) -> bytes:
    named = {"dragoman_tenant": tenant} if tenant else {}
    return msgspec.json.encode({"messages": [{"role": "user", "content": text}], "n": 1, **named})


@given(
    slots=st.integers(1, 3),
    asks=st.lists(
        st.tuples(st.sampled_from(["ada", "bob", ""]), st.sampled_from(["x", "hello", "hello you"])), max_size=20
    ),
)
def test_a_slot_of_somebody_else_is_always_computed_anew(slots: int, asks: list[tuple[str, str]]) -> None:
    places, holds, several = Places(slots), dict[int, set[str]](), False
    for tenant, text in asks:
        several = several or bool(tenant)
        with places.taken(body_of(tenant, text)) as placed:
            told = msgspec.json.decode(placed)
            assert tenant_of(placed) == tenant
            if not several:
                assert "id_slot" not in told
                for slot in range(slots):  # wherever the core has put it
                    holds.setdefault(slot, set()).add(tenant)
                continue
            slot = told["id_slot"]
            assert 0 <= slot < slots
            if told.get("cache_prompt", True):
                assert holds.get(slot, {tenant}) == {tenant}
            holds[slot] = {tenant}


def test_a_place_is_waited_for_and_loose_requests_are_let_out_first() -> None:
    places = Places(1)
    began, seen = threading.Event(), []

    def bob() -> None:
        began.set()
        with places.taken(body_of("bob", "x")) as placed:
            seen.append(placed)

    with places.taken(body_of("", "x")):
        thread = threading.Thread(target=bob)
        thread.start()
        began.wait()
        assert seen == []
    thread.join(5)
    assert len(seen) == 1
    with places.taken(body_of("bob", "x")):
        thread = threading.Thread(target=bob)
        thread.start()
        assert len(seen) == 1
    thread.join(5)
    assert b'"cache_prompt":false' in seen[0]
    assert b'"cache_prompt":false' not in seen[1]
