"""Requests and answers of both dialects of translation, without a gateway."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.brenda import translation
from adapters.libretranslate import serve
from adapters.libretranslate.bodies import key_of, read_fields
from adapters.libretranslate.errors import error_body, error_status
from canonical.errors import InvalidRequest, ModelNotFound, Unauthorized
from canonical.translation import Guess, Translate, Translation

LIMIT = 1_000


def answer(*texts: str, via: tuple[str, ...] = (), others: tuple[tuple[str, ...], ...] = ()) -> Translation:
    return Translation(
        texts=texts, alternatives=others or ((),) * len(texts), source="fr", target="de", sure=0.876, via=via
    )


# Brenda


def test_brendas_documented_request_and_its_answer():
    question = translation.read_translate(b'{"text": "Bonjour", "from_lang": "fr", "to_lang": "de"}')
    assert question.request == Translate(texts=("Bonjour",), source="fr", target="de")
    told = json.loads(translation.translated_reply(question, answer("Hallo")))
    assert told == {"translated_text": "Hallo", "from": "fr", "to": "de"}


def test_brendas_additions():
    question = translation.read_translate(
        b'{"text": ["a", "b"], "from_lang": "AUTO", "to_lang": "de-DE", "model": "m", "new": 1}'
    )
    assert question.request == Translate(texts=("a", "b"), source="AUTO", target="de-DE", model="m")
    told = json.loads(translation.translated_reply(question, answer("x", "y", via=("en",))))
    assert told == {"translated_text": ["x", "y"], "from": "fr", "to": "de-DE", "via": "en"}


def test_brendas_list_of_languages():
    told = json.loads(translation.languages_reply({"fr": {"en": "", "de": "en"}, "en": {"fr": ""}}))
    assert told == {"languages": {"fr": ["de", "en"], "en": ["fr"]}, "via": {"fr": {"de": "en"}}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body"),
        (b"[]", "object"),
        (b"{}", "text is needed"),
        (b'{"text": "a", "from_lang": " ", "to_lang": "fr"}', "from_lang is empty"),
        (b'{"text": ["a", 1], "from_lang": "en", "to_lang": "fr"}', "text[1]"),
    ],
)
def test_brendas_refusals(body, words):
    with pytest.raises(InvalidRequest) as caught:
        translation.read_translate(body)
    assert words in caught.value.message


# LibreTranslate


def read(**fields: object) -> serve.Question:
    return serve.read_translate({"source": "fr", "target": "de", **fields}, LIMIT)


def test_libretranslates_request_and_its_answers():
    question = read(q="Bonjour")
    assert question.request == Translate(texts=("Bonjour",), source="fr", target="de")
    assert json.loads(serve.translated_reply(question, answer("Hallo"))) == {"translatedText": "Hallo"}
    question = read(q=["a", "b"], source="auto", alternatives="2", format=None)
    assert question.request.alternatives == 2
    told = json.loads(serve.translated_reply(question, answer("x", "y", via=("en",), others=(("z",), ()))))
    guess = {"confidence": 87.6, "language": "fr"}
    assert told == {
        "translatedText": ["x", "y"],
        "detectedLanguage": [guess, guess],
        "alternatives": [["z"], []],
        "via": "en",
    }
    question = read(q="a", source="auto", alternatives=1)
    told = json.loads(serve.translated_reply(question, answer("x", others=(("z",),))))
    assert told == {"translatedText": "x", "detectedLanguage": guess, "alternatives": ["z"]}


def test_html_is_sent_as_its_texts_and_comes_back_as_html():
    question = read(q=["<b>un</b>", "<hr>", "<i>deux</i> trois"], format="html", alternatives=3)
    assert question.request.texts == ("un", "deux", " trois")
    assert question.request.alternatives == 0
    told = json.loads(serve.translated_reply(question, answer("eins", "zwei", " <drei>")))
    assert told["translatedText"] == ["<b>eins</b>", "<hr>", "<i>zwei</i> &lt;drei&gt;"]
    assert told["alternatives"] == [[], [], []]


def test_lists_of_languages_and_guesses_and_settings():
    ends = {"de": [], "en": ["de"]}
    assert json.loads(serve.languages_reply(ends)) == [
        {"code": "de", "name": "German", "targets": ["de"]},
        {"code": "en", "name": "English", "targets": ["de", "en"]},
    ]
    guesses = [Guess("fr", 0.7), Guess("wa", 0.2), Guess("oc", 0.0004), Guess("en", 0.0001)]
    assert json.loads(serve.detected_reply(guesses)) == [
        {"confidence": 70.0, "language": "fr"},
        {"confidence": 20.0, "language": "wa"},
    ]
    assert json.loads(serve.detected_reply([])) == [{"confidence": 0.0, "language": "en"}]
    settings = json.loads(serve.settings_reply(ends, characters=5, keys=True))
    assert (settings["charLimit"], settings["keyRequired"]) == (5, True)
    assert settings["language"]["target"] == {"code": "de", "name": "German"}
    assert json.loads(serve.health_reply()) == {"status": "ok"}
    assert serve.read_detect({"q": ["a", "b"]}) == ("a", "b")


@pytest.mark.parametrize(
    "fields",
    [{"q": ""}, {"q": 5, "format": "pdf"}, {"q": "a", "alternatives": "x"}, {"q": "<" * 9_000, "format": "html"}],
)
def test_libretranslates_refusals(fields):
    with pytest.raises(InvalidRequest):
        read(**fields)


def test_missing_texts_cannot_be_detected():
    with pytest.raises(InvalidRequest, match="missing q"):
        serve.read_detect({})


@pytest.mark.parametrize(
    ("kind", "body", "query", "fields"),
    [
        (b"application/json; charset=utf-8", b'{"q": "a"}', b"", {"q": "a"}),
        (b"text/plain", b' {"q": "a"}', b"q=b&api_key=k", {"q": "a", "api_key": "k"}),
        (b"application/x-www-form-urlencoded", b"q=a+%C3%A9&q=b&q=c", b"", {"q": ["a é", "b", "c"]}),
        (b"", b"q=a%0D%0Ab", b"", {"q": "a\nb"}),
        (b"", b"", b"q=", {"q": ""}),
        (
            b'multipart/form-data; boundary="b"',
            b'--b\r\nContent-Disposition: form-data; name="q"\r\n\r\na\r\nb\r\n--b\r\nContent-Disposition: form-data\r\n\r\nz\r\n--b--',
            b"",
            {"q": "a\nb"},
        ),
    ],
)
def test_bodies(kind, body, query, fields):
    assert read_fields(kind, body, query) == fields


@pytest.mark.parametrize(
    ("kind", "body"), [(b"application/json", b"[]"), (b"", b"q=%ff"), (b"", b"\xff"), (b"multipart/form-data", b"x")]
)
def test_bodies_that_are_none_have_no_key(kind, body):
    with pytest.raises(InvalidRequest):
        read_fields(kind, body, b"")
    assert key_of(kind, body, b"") == ""


@given(
    st.binary(max_size=200),
    st.binary(max_size=40),
    st.sampled_from([b"", b"application/json", b"multipart/form-data; boundary=b"]),
)
def test_any_body_has_a_key_or_none(body, query, kind):
    assert isinstance(key_of(kind, body, query), str)


def test_errors_of_keys_are_403_as_clients_know_them():
    wrong = Unauthorized("a valid API key is needed")
    assert error_status(wrong) == 403
    assert json.loads(error_body(wrong)) == {"error": "a valid API key is needed, or api_key in the body"}
    assert error_status(ModelNotFound("no")) == 404
