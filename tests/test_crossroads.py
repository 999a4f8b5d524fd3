"""Where dialects meet: a chat that bears Brenda's marks is hers, one path may have several owners, a prefix has one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canonical.models import Capability
from gateway.config import ConfigError, settle
from gateway.settings import Config, Defaults, Listener, Mounted
from gateway.web.crossroads import Wish, has_marks, wish_of
from tests.asgi import House
from tests.houses import HELLO, Home, tells
from tests.painter import Painter
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


@pytest.mark.parametrize(
    ("sent", "wish"),
    [
        (b'{"prompt":"x"}', Wish()),
        (b'{"prompt":"x","model":"a"}', Wish("a")),
        (b'{"prompt":"x","model":null}', Wish()),
        (b'{"prompt":"x","model":"a","seed":1}', Wish("a", pictures=True)),
        (b'{"prompt":"x","loras":[]}', Wish(pictures=True)),
        (b'{"prompt":"x","temperature":1,"stream":true}', Wish()),
        (b'{"prompt":"steps","x":{"steps":1}}', Wish()),
        (b'{"model":5,"steps":1}', Wish()),
        (b'["steps"]', Wish()),
        (b'{"steps":', Wish()),
        (b"", Wish()),
        (b'{"steps":' + b"[" * 5000, Wish()),
    ],
)
def test_a_body_shows_whether_it_asks_for_a_picture(sent: bytes, wish: Wish) -> None:
    assert wish_of(sent) == wish


PAINTS = [Capability.PAINT]
CHATS = [Capability.CHAT]
BOTH = Listener(port=1, dialects=("conversation", "images"))


@pytest.mark.parametrize(
    ("abilities", "chat", "fields", "pictures"),
    [
        (PAINTS, "", {}, True),
        (PAINTS, "", {"steps": 2}, True),
        (CHATS, "", {}, False),
        (CHATS, "", {"steps": 2}, True),
        (CHATS + PAINTS, "", {}, False),
        (CHATS + PAINTS, "m", {}, False),
        (CHATS + PAINTS, "m", {"seed": 2}, True),
        (CHATS + PAINTS, "", {"model": "m"}, False),
        (CHATS + PAINTS, "", {"model": "m", "n": 1}, True),
        (CHATS, "", {"model": "m", "n": 1}, False),
        (PAINTS, "m", {"model": "m"}, True),
        (PAINTS, "", {"model": "mm"}, True),
        (CHATS, "", {"model": "mm"}, False),
        ([], "", {"model": "m"}, False),
        ([], "", {"model": "m", "steps": 1}, True),
    ],
)
def test_a_prompt_goes_to_who_can_do_what_it_asks_for(
    abilities: list[Capability], chat: str, fields: dict[str, Any], pictures: bool
) -> None:
    async def whole() -> None:
        home = Home(tells(HELLO), abilities=abilities)
        house = House(a=home, listener=BOTH, config=Config(defaults=Defaults(chat=chat and "a")))
        asked = {"prompt": "x", **fields}
        if "model" in asked:
            asked["model"] = asked["model"].replace("m", "a", 1) if asked["model"] == "m" else "aa"
        call = await house.ask("POST", "/generate", asked)
        assert (b'"status":"failed"' in call.body) is pictures, "this gateway keeps no jobs"
        await house.close()

    run(whole())


def test_one_list_has_what_is_loaded_and_what_paints_and_who_stands_first_gets_its_own() -> None:
    async def whole() -> None:
        for names, keys in [
            (("openai", "hybrid", "images"), {"object", "data", "models"}),
            (("openai", "images"), {"object", "data", "models"}),
            (("images", "hybrid", "openai"), {"models"}),
            (("hybrid", "images"), None),
            (("anthropic", "images"), {"models"}),
        ]:
            house = House(a=Painter(), listener=Listener(port=1, dialects=names))
            listed = (await house.ask("GET", "/models")).json()
            assert listed == [] if keys is None else set(listed) == keys
            if keys is not None:
                (row,) = listed["models"]
                assert (row["id"], row["supported_loras"], row["loaded"]) == ("a", ["bright", "dark"], False)
                assert ("key" in row) is ("data" in keys)
            await house.close()

    run(whole())


def test_one_answer_about_health_has_what_all_look_for() -> None:
    async def whole() -> None:
        for names, keys in [
            (("hybrid", "images", "libretranslate"), {"status", "backends", "queue"}),
            (("libretranslate", "hybrid"), {"status", "backends"}),
            (("libretranslate",), {"status"}),
        ]:
            house = House(a=Home(tells(HELLO)), listener=Listener(port=1, dialects=names))
            told = (await house.ask("GET", "/health")).json()
            assert (set(told), told["status"]) == (keys, "ok")
            await house.close()

    run(whole())
