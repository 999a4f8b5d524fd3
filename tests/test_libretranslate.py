"""The dialect ``libretranslate``: its own client and other people's requests, against a live gateway with the demo models."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

import pytest

from tests.serving import Served, serving

pytest.importorskip("ctranslate2")
pytest.importorskip("py3langid")

KEY = "a-key-that-opens"
CONFIG = """
listeners: [{port: 0, dialects: [libretranslate]}]
backends: {translation: {type: marian, models_dir: ./models/translation, threads: 1}}
"""


@pytest.fixture(scope="module")
def house():
    with serving(CONFIG) as served:
        yield served


@pytest.fixture(scope="module")
def locked():
    """The same behind a key, with Brenda's dialect beside it."""
    with serving(CONFIG.replace("[libretranslate]", "[libretranslate, brenda]") + f"keys: [{KEY}]") as served:
        yield served


def call(
    served: Served, path: str, body: bytes | None = None, kind: str = "application/json", **headers: str
) -> tuple[int, Any]:
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    with contextlib.closing(connection):
        more = {"content-type": kind, **headers}
        connection.request("GET" if body is None else "POST", path, body, more)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def translate(served: Served, **fields: object) -> tuple[int, Any]:
    body = {"source": "en", "target": "fr", **fields}
    return call(
        served, "/translate", json.dumps({name: value for name, value in body.items() if value is not None}).encode()
    )


# Its own client


def test_libretranslatepy_translates_detects_and_lists(house):
    client = pytest.importorskip("libretranslatepy").LibreTranslateAPI(house.url)
    assert client.translate("hello", "en", "fr") == "bonjour"
    assert client.translate("le chat est noir", "auto", "de") == "die Katze ist schwarz"
    assert client.detect("le chat est noir")[0]["language"] == "fr"
    assert client.languages() == [
        {"code": "de", "name": "German", "targets": ["de"]},
        {"code": "en", "name": "English", "targets": ["de", "en", "fr"]},
        {"code": "fr", "name": "French", "targets": ["de", "en", "fr"]},
    ]


def test_libretranslatepy_sends_its_key_in_the_body(locked):
    make = pytest.importorskip("libretranslatepy").LibreTranslateAPI
    client = make(locked.url, KEY)
    assert client.translate("hello", "en", "fr") == "bonjour"
    assert len(client.languages()) == 3
    assert client.detect("the cat is red")[0]["language"] == "en"
    for key in (None, "another-key"):
        with pytest.raises(HTTPError, match="403"):
            make(locked.url, key).translate("hello", "en", "fr")
        with pytest.raises(HTTPError, match="403"):
            make(locked.url, key).languages()


# Requests as others send them


def test_the_shapes_of_answers(house):
    assert translate(house, q="hello") == (200, {"translatedText": "bonjour"})
    assert translate(house, q=["hello", "thank you"]) == (200, {"translatedText": ["bonjour", "merci"]})
    status, told = translate(house, q="le chat est noir", source="auto", target="en")
    assert (status, told["translatedText"], told["detectedLanguage"]["language"]) == (200, "the cat is black", "fr")
    assert 50 < told["detectedLanguage"]["confidence"] <= 100
    _, told = translate(house, q=["bonjour", "merci"], source="auto", target="en")
    assert told["translatedText"] == ["hello", "thank you"]
    assert [one["language"] for one in told["detectedLanguage"]] == ["fr", "fr"]
    assert translate(house, q="le chat est noir", source="fr", target="de")[1] == {
        "translatedText": "die Katze ist schwarz",
        "via": "en",
    }


def test_alternatives_are_other_ways_and_so_many_at_most(house):
    _, told = translate(house, q="hello", alternatives=3)
    assert told["translatedText"] == "bonjour"
    assert 0 < len(told["alternatives"]) <= 3
    assert "bonjour" not in told["alternatives"]
    _, told = translate(house, q=["hello", "12"], alternatives="2")
    assert [len(ways) for ways in told["alternatives"]] == [2, 0]
    assert translate(house, q="hello", alternatives=0)[1] == {"translatedText": "bonjour"}
    assert translate(house, q="hello", alternatives=9)[0] == 400


def test_html_keeps_its_markup(house):
    page = '<p class="a">Hello!<br/> <b>The cat is red</b> &amp; <code>thank you</code></p><script>hello()</script>'
    said = (
        '<p class="a">Bonjour !<br/> <b>Le chat est rouge</b> &amp; <code>thank you</code></p><script>hello()</script>'
    )
    assert translate(house, q=page, format="html") == (200, {"translatedText": said})
    assert translate(house, q=[page, "<hr>"], format="html", alternatives=1)[1] == {
        "translatedText": [said, "<hr>"],
        "alternatives": [[], []],
    }
    assert "<p" not in translate(house, q="hello", format="text")[1]["translatedText"]


FIELDS = {"q": "Hello!\r\nGood morning.", "source": "en", "target": "fr"}
SAID = {"translatedText": "Bonjour !\nBonjour."}


def test_forms_are_read_and_their_line_ends_are_made_plain(house):
    kind = "application/x-www-form-urlencoded"
    assert call(house, "/translate", urlencode(FIELDS).encode(), kind) == (200, SAID)
    assert call(house, "/translate", urlencode({**FIELDS, "q": ["hello", "yes"]}, doseq=True).encode(), kind)[1] == {
        "translatedText": ["bonjour", "oui"]
    }
    parts = "".join(f'--x1\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in FIELDS.items())
    assert call(house, "/translate", f"{parts}--x1--\r\n".encode(), "multipart/form-data; boundary=x1") == (200, SAID)
    assert call(house, "/translate?" + urlencode({**FIELDS, "q": "yes"}), b"", kind)[1] == {"translatedText": "oui"}
    assert call(house, "/translate", json.dumps({**FIELDS, "q": "yes"}).encode(), kind)[1] == {"translatedText": "oui"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"q": ""}, "missing q parameter"),
        ({"q": []}, "missing q parameter"),
        ({"q": "x", "source": None}, "missing source parameter"),
        ({"q": "x", "target": ""}, "missing target parameter"),
        ({"q": "x", "target": "xx"}, "known are: de, en, fr"),
        ({"q": "x", "source": "de"}, "German (de) into French (fr)"),
        ({"q": "x", "format": "pdf"}, "format"),
        ({"q": "x", "alternatives": "many"}, "alternatives"),
        ({"q": {"a": 1}}, "q"),
        ({"q": "a" * 500_001}, "500000 characters"),
        ({"q": "<b>" * 1_400_000, "format": "html"}, "HTML document"),
    ],
)
def test_what_cannot_be_is_400_in_its_words(house, fields, words):
    status, told = translate(house, **fields)
    assert status == 400
    assert set(told) == {"error"}
    assert words in told["error"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'{"q": "a", "q": "b"}', "application/json"),
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"q=%ff&source=en&target=fr", "application/x-www-form-urlencoded"),
        (b"&".join([b"q=a"] * 2_001), "application/x-www-form-urlencoded"),
        (b"--x", "multipart/form-data"),
        (b"--x\r\n\r\n\xff", "multipart/form-data; boundary=x"),
        (b"", "text/plain"),
    ],
)
def test_a_body_that_is_none_is_400(house, body, kind):
    for path in ("/translate", "/detect"):
        status, told = call(house, path, body, kind)
        assert status == 400
        assert set(told) == {"error"}


def test_what_has_no_words_is_of_no_language(house):
    assert call(house, "/detect", b'{"q": "12, 34"}') == (200, [{"confidence": 0.0, "language": "en"}])
    assert translate(house, q="12, 34", source="auto")[1] == {
        "translatedText": "12, 34",
        "detectedLanguage": {"confidence": 0.0, "language": "en"},
    }


def test_a_language_that_nothing_here_translates_is_told_all_the_same(house):
    text = "El gato es negro y la casa es grande"
    assert call(house, "/detect", json.dumps({"q": text}).encode())[1][0]["language"] == "es"
    status, told = translate(house, q=text, source="auto")
    assert status == 400
    assert "Spanish" in told["error"]


def test_what_pages_ask_and_what_is_not_here(house, locked):
    status, told = call(house, "/frontend/settings")
    assert status == 200
    assert told["charLimit"] == 500_000
    assert (told["apiKeys"], told["keyRequired"], told["filesTranslation"]) == (False, False, False)
    assert call(locked, f"/frontend/settings?api_key={KEY}")[1]["keyRequired"] is True
    assert call(house, "/health") == (200, {"status": "ok"})
    assert call(house, "/suggest", b"{}")[0] == 403
    assert call(house, "/translate_file", b"")[0] == 403
    assert call(house, "/nothing")[0] == 404


# Keys


def test_a_key_opens_wherever_it_stands_and_only_this_dialect(locked):
    asked = {"q": "hello", "source": "en", "target": "fr"}
    plain = json.dumps(asked).encode()
    with_key = json.dumps({**asked, "api_key": KEY}).encode()
    assert call(locked, "/translate", with_key)[0] == 200
    assert call(locked, f"/translate?api_key={KEY}", plain)[0] == 200
    assert call(locked, "/translate", plain, **{"x-api-key": KEY})[0] == 200
    assert call(locked, "/translate", plain, authorization=f"Bearer {KEY}")[0] == 200
    # A wrong key in a header is not made good by one in the body: who sends both means the header.
    assert call(locked, "/translate", with_key, authorization="Bearer another-key")[0] == 403
    for path in ("/v1/translation/translate", "/v1/session", "/v1/models"):
        assert call(locked, f"{path}?api_key={KEY}", with_key if "translate" in path else None)[0] in {401, 403}


@pytest.mark.parametrize("key", ["", "another-key", KEY + "x", 5, None, [KEY], "é\u0000", "x\r\ny: z"])
def test_no_other_key_opens(locked, key):
    asked = {"q": "hello", "source": "en", "target": "fr", "api_key": key}
    status, told = call(locked, "/translate", json.dumps(asked).encode())
    assert status == 403
    assert KEY not in json.dumps(told)


def test_a_body_too_large_for_who_has_no_key_is_not_searched_for_one(locked):
    body = json.dumps({"api_key": KEY, "q": "a" * 3_000_000, "source": "en", "target": "fr"}).encode()
    assert call(locked, "/translate", body)[0] == 403


def test_keys_do_not_stand_in_the_log(locked):
    assert KEY not in locked.log()
