"""Texts in sentences: joined again they are the text, abbreviations end none, and no text takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pysbd")

from backends.marian.sentences import WINDOW, gap, split


def sentences(text: str, language: str = "en") -> list[str]:
    return [piece for piece, said in split(text, language) if said]


@given(
    st.text(st.sampled_from("aÉ1 .!?…\n\r\t\u2028。,;「」()\"'&Dr"), max_size=300),
    st.sampled_from(["en", "fr", "de", "ja", "fi"]),
)
def test_the_pieces_are_the_text(text, language):
    assert "".join(piece for piece, _ in split(text, language)) == text


@given(st.text(max_size=200))
def test_of_any_text(text):
    pieces = list(split(text, "en"))
    assert "".join(piece for piece, _ in pieces) == text
    assert all(piece.strip() == piece and any(map(str.isalpha, piece)) for piece, said in pieces if said)
    assert not any(any(map(str.isalpha, piece)) for piece, said in pieces if not said)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Hello Dr. Smith. It is 5 p.m. today. Good!", ["Hello Dr. Smith.", "It is 5 p.m. today.", "Good!"]),
        ("fr", "Il va à St. Étienne, p. ex. demain. Oui ?", ["Il va à St. Étienne, p. ex. demain.", "Oui ?"]),
        ("de", "Das ist z. B. gut. Am 3. Mai kommt er.", ["Das ist z. B. gut.", "Am 3. Mai kommt er."]),
        ("ja", "今日は良い天気です。明日は雨。", ["今日は良い天気です。", "明日は雨。"]),
        ("fi", "Tämä on 3. kerta. Kiitos, J. Virtanen!", ["Tämä on 3. kerta.", "Kiitos, J. Virtanen!"]),
        ("xx", "One. Two! three? Four", ["One.", "Two!", "three?", "Four"]),
        ("en", "  one\r\n\r\n- two \n3\n\t", ["one", "- two"]),
    ],
)
def test_where_sentences_end(language, text, expected):
    assert sentences(text, language) == expected


def test_what_has_no_end_is_cut_at_commas_and_blanks():
    text = "so it goes, on and on " * 200
    found = sentences(text)
    assert "".join(piece for piece, _ in split(text, "en")) == text
    assert max(map(len, found)) <= WINDOW
    assert all(piece.endswith(",") for piece in found[:-1])


def test_a_cut_is_never_far_in_front_of_the_limit():
    assert gap("x" * 100, 50) == 50
    assert gap("x " + "y" * 100, 50) == 50
    assert gap("x" * 40 + ", " + "y" * 100, 50) == 42


@pytest.mark.parametrize("language", ["en", "fr", "fi", "zh"])
@pytest.mark.parametrize("piece", ["a!", "x。", "1. ", "IV. ", ".", "a ", "a", '"a. ', "(", " ", "\t.", "e.g. "])
def test_hostile_texts_take_no_longer_than_they_are_long(language, piece):
    """The worst seen was 35 us a character; what grows with the square would take many times the limit."""
    text = piece * (8_000 // len(piece))
    began = time.process_time()
    assert "".join(found for found, _ in split(text, language)) == text
    assert time.process_time() - began < 4


def test_it_ends_when_told_to():
    assert len(list(split("One. Two. " * 10_000, "en", lambda: True))) <= 1
