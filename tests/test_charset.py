"""Bodies as scripts of Windows send them: with a byte order mark, in UTF-16, in Latin-1 where somebody says so; and answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canonical.events import Event, Finished, Started, TextDelta, Usage
from canonical.messages import Text
from gateway.settings import Listener
from gateway.web.charset import in_utf8
from tests.asgi import House
from tests.houses import HELLO, Home, Talks, tells
from tests.virtual_time import run

SAID = "Où est passé le garçon ?"
SPOKEN = [
    ("hybrid", "/chat", {"model_key": "a", "messages": [{"role": "user", "content": SAID}]}),
    ("conversation", "/generate", {"model": "a", "prompt": SAID}),
    ("openai", "/v1/chat/completions", {"model": "a", "messages": [{"role": "user", "content": SAID}]}),
]
WINDOWS = "Mozilla/5.0 (Windows NT; Windows NT 10.0; fr-FR) WindowsPowerShell/5.1.26100.1591"
SEVEN = "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.26100; fr-FR) PowerShell/7.3.9"
SENT = [
    ("utf-8-sig", "application/json", ""),
    ("utf-16", "application/json", ""),
    ("utf-16-le", "application/json; charset=utf-16LE", ""),
    ("latin-1", "application/json; charset=ISO-8859-1", ""),
    ("cp1252", 'application/json;charset="windows-1252"', ""),
    ("latin-1", "application/json", WINDOWS),
    ("latin-1", "application/json", SEVEN),
    ("utf-8", "application/json", WINDOWS),
    ("utf-8", "application/json; charset=utf-8", WINDOWS),
    ("utf-8", "application/json; charset=ISO-8859-1", ""),  # libraries that say so whatever they send
    ("utf-8", "", ""),
]


def headers(kind: str, agent: str) -> list[tuple[bytes, bytes]]:
    told = [(b"content-type", kind), (b"user-agent", agent)]
    return [(name, value.encode()) for name, value in told if value]


@pytest.mark.parametrize(("dialect", "path", "asked"), SPOKEN, ids=[row[0] for row in SPOKEN])
@pytest.mark.parametrize("sent", SENT)
def test_accents_reach_the_model_however_a_script_writes_them(
    dialect: str, path: str, asked: object, sent: tuple[str, str, str]
) -> None:
    encoding, kind, agent = sent

    async def whole() -> None:
        home = Home(tells(HELLO))
        house = House(a=home, listener=Listener(port=1, dialects=(dialect,)))
        body = json.dumps(asked, ensure_ascii=False).encode(encoding)
        call = await house.ask("POST", path, body, headers(kind, agent))
        assert call.status == 200, call.body
        assert isinstance(home.model, Talks)
        assert home.model.requests[-1].messages[-1].parts == (Text(SAID),)
        await house.close()

    run(whole())


@pytest.mark.parametrize(
    ("body", "kind", "agent"),
    [
        (SAID.encode("latin-1"), "application/json", "curl/8.5.0"),  # whose, nobody knows
        (SAID.encode("latin-1"), "application/json; charset=utf-8", WINDOWS),
        (b"\xff\xfe\x00", "application/json", ""),
        (b"\xef\xbb\xbf", "application/json", ""),
        (b"\xe9", "application/json; charset=rot13", ""),
        (b"\xe9", "application/json; charset=idna", ""),
        (b"", "", ""),
    ],
)
def test_what_is_in_no_known_encoding_stays_as_it_is(body: bytes, kind: str, agent: str) -> None:
    assert in_utf8(body, headers(kind, agent)) == body


@given(st.text().filter(lambda text: not text.startswith("\ufeff")), st.sampled_from(["", WINDOWS]))
def test_utf_8_is_never_touched(text: str, agent: str) -> None:
    body = text.encode()
    assert in_utf8(body, headers("application/json", agent)) == body


ACCENTED: list[Event] = [Started("a"), TextDelta(SAID), Finished("stop", Usage(1, 1))]


@pytest.mark.parametrize(("dialect", "path", "asked"), SPOKEN, ids=[row[0] for row in SPOKEN])
@pytest.mark.parametrize("agent", [WINDOWS, SEVEN, ""])
def test_accents_reach_windows_powershell(dialect: str, path: str, asked: object, agent: str) -> None:
    async def whole() -> None:
        house = House(a=Home(tells(ACCENTED)), listener=Listener(port=1, dialects=(dialect,)))
        call = await house.ask("POST", path, asked, headers("application/json", agent))
        said, _, charset = call.headers[b"content-type"].decode().partition("; charset=")
        assert SAID.split()[-2] in call.body.decode(charset or ("latin-1" if agent == WINDOWS else "utf-8"))
        assert charset == "utf-8" or (said == "application/json" and agent != WINDOWS)
        await house.close()

    run(whole())
