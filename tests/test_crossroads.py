"""Where dialects meet: a chat that bears Brenda's marks is hers, one path may have several owners, a prefix has one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ConfigError, settle
from gateway.settings import Listener, Mounted
from gateway.web.crossroads import has_marks
from tests.asgi import House
from tests.houses import HELLO, Home, tells
from tests.virtual_time import run

TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": 'Say "ai" and "system":'}]
PREFIXED = Listener(
    port=1, dialects=(Mounted(name="ollama", prefix="/o"), Mounted(name="openai", prefix="/a/b"), "anthropic")
)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": TALK, **fields}).encode()


@pytest.mark.parametrize(
    ("headers", "sent", "brendas"),
    [
        ([], body(), False),
        ([], body(system="Parle français."), True),
        ([], body(system=""), True),
        ([], body(messages=[{"role": "ai", "content": "Bonjour"}, {"role": "user", "content": "Hi"}]), True),
        ([], body(messages=[{"role": "assistant", "content": '"role":"ai"'}]), False),
        ([], body(metadata={"system": "x", "role": "ai"}), False),
        ([(b"x-session-id", b"abc")], body(), True),
        ([(b"x-session", b"abc")], body(), False),
        ([], b'{"messages": [{"role": "ai"', False),
        ([], b'["system"]', False),
        ([], b'{"system":"x","messages":"none"}', False),
        ([], b'{"messages":' + b"[" * 5000 + b'"system"', False),
        ([], b"", False),
    ],
)
def test_a_chat_is_brendas_by_its_header_its_system_text_or_its_role_ai(
    headers: list[tuple[bytes, bytes]], sent: bytes, brendas: bool
) -> None:
    assert has_marks(headers, sent) is brendas


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text() | st.sampled_from(["system", "ai", "role"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["system", "role"]), inner, max_size=3)
    ),
    max_leaves=10,
)
_ROLES = st.sampled_from(["system", "user", "assistant", "ai", "tool"])


def test_a_body_that_its_dialect_refuses_for_its_length_is_not_taken_apart_before() -> None:
    long = b'{"messages":[' + b"{}," * 1_000_000 + b'{"role":"ai"}]}'
    assert has_marks([], long[:-1] + b',"system":""}') is has_marks([], long) is False


@given(
    st.lists(st.fixed_dictionaries({"role": _ROLES, "content": _JSON}), max_size=4),
    st.dictionaries(st.text().filter(lambda name: name != "messages"), _JSON, max_size=3),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_any_other_field_in_any_order_decides_nothing(messages: Any, others: Any, shuffle: Any, ascii: bool) -> None:
    fields = [*others.items(), ("messages", messages)]
    shuffle.shuffle(fields)
    expected = "system" in others or any(message["role"] == "ai" for message in messages)
    assert has_marks([], json.dumps(dict(fields), ensure_ascii=ascii).encode("utf-8", "surrogatepass")) is expected or (
        not ascii and _torn(fields)
    )


def _torn(fields: Any) -> bool:
    """Half a character, which is no UTF-8."""
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def test_a_prefix_is_in_front_of_all_paths_of_its_dialect_and_of_its_errors() -> None:
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)), listener=PREFIXED)
        asked = {"model": "a", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        assert (await house.ask("POST", "/o/api/chat", asked)).json()["message"]["content"] == "Hello"
        assert (await house.ask("POST", "/a/b/v1/chat/completions", asked)).json()["choices"]
        assert (await house.ask("GET", "/a/b/v1/models/a")).json()["object"] == "model"
        assert (await house.ask("GET", "/o/")).body == b"Ollama is running"
        for path, worded in [
            ("/api/chat", "ollama"),
            ("/v1/chat/completions", "ollama"),
            ("/v1/messages/x", "anthropic"),
            ("/o/v1/models", "ollama"),
            ("/o/nothing", "ollama"),
            ("/a/b/nothing", "openai"),
            ("/a/nothing", "ollama"),
        ]:
            call = await house.ask("POST", path, asked)
            assert call.status == 404, path
            error = call.json()["error"]
            says = "ollama" if isinstance(error, str) else "openai" if "param" in error else "anthropic"
            assert says == worded, path
        assert (await house.ask("GET", "/health/live")).status == 200
        await house.close()

    run(whole())


def test_openai_and_brenda_get_one_list_of_models_that_serves_both() -> None:
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)), listener=Listener(port=1, dialects=("openai", "brenda", "anthropic")))
        listed = (await house.ask("GET", "/v1/models")).json()
        assert listed["object"] == "list"
        assert [row["id"] for row in listed["data"]] == listed["models"] == ["a"]
        theirs = (await house.ask("GET", "/v1/models", b"", [(b"anthropic-version", b"2023-06-01")])).json()
        assert "has_more" in theirs
        await house.close()

    run(whole())


@pytest.mark.parametrize("prefix", ["/", "brenda", "/brenda/", "/a b", "//a", "/é"])
def test_a_prefix_that_no_path_can_have_is_refused(prefix: str) -> None:
    from pathlib import Path

    document = {"listeners": [{"port": 1, "dialects": [{"name": "openai", "prefix": prefix}]}]}
    with pytest.raises(ConfigError, match=r"dialects\[0\]\.prefix"):
        settle(document, base=Path(), environ={})
