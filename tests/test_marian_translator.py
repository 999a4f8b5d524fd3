"""One model at work: long sentences are cut, batches are bounded, languages are asked for by their word, who leaves is let go."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ctranslate2")

from backends.marian import translator
from backends.marian.asking import Work
from backends.marian.converting import convert
from backends.marian.folders import Folder, read_folder
from backends.marian.translator import BATCH, LONGEST, TOKENS, Stopped, Translator
from tests.marian_reference import DEMO


def never() -> bool:
    return False


def loaded(folder: Folder, out) -> Translator:
    out.mkdir()
    convert(folder, "int8", out)
    return Translator(folder, out, compute_type="int8", beam=2, threads=1)


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    return loaded(read_folder(DEMO.parent, DEMO.name), tmp_path_factory.mktemp("m") / "converted")


def said(model: Translator, *texts: str, **more) -> list[str]:
    work = Work(texts=texts, **{"source": "en", "target": "fr", **more})
    return [ways[0] for ways in model.translate(work, never)]


class Spy:
    """Notes what is computed instead of computing it."""

    def __init__(self) -> None:
        self.batches: list[list[list[str]]] = []

    def translate_batch(self, batch, **_):
        self.batches.append(batch)
        return [type("Said", (), {"hypotheses": [["▁oui"]]}) for _ in batch]


def test_sentences_beyond_what_the_model_takes_are_cut_between_words(english, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(english, "_model", spy)
    text = "abcdefghijklm " * 40 + "x" * 590 + " end"  # most letters are a piece each
    (answer,) = said(english, text)
    pieces = [sentence for batch in spy.batches for sentence in batch]
    assert max(map(len, pieces)) <= LONGEST + 1
    assert len(pieces) > 2
    assert answer.replace("oui", "").strip() == ""


def test_what_repeats_is_computed_once_and_batches_are_bounded(english, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(english, "_model", spy)
    said(english, *(f"hello {number % 50}" for number in range(1_000)))
    assert sum(map(len, spy.batches)) == 50
    assert max(map(len, spy.batches)) <= BATCH


@given(st.lists(st.integers(1, 400), max_size=80), st.integers(1, 16))
def test_batches_have_every_sentence_once(lengths, limit):
    batches = translator._batches(lengths, limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= limit
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= TOKENS


def test_a_model_of_several_languages_is_told_which(tmp_path, monkeypatch):
    folder = tmp_path / "opus-mt-en-ROMANCE"
    shutil.copytree(DEMO, folder)
    ids = json.loads((folder / "vocab.json").read_text())
    renamed = {"▁raining": ">>fr<<", "▁hungry": ">>ca<<"}
    (folder / "vocab.json").write_text(json.dumps({renamed.get(token, token): id for token, id in ids.items()}))
    model = loaded(read_folder(tmp_path, folder.name), tmp_path / "converted")
    spy = Spy()
    monkeypatch.setattr(model, "_model", spy)
    said(model, "hello", target="ca")
    said(model, "hello", target="fr")
    said(model, ">>ca<< hello", target="fr")  # what a client writes asks for nothing
    firsts = [batch[0][0] for batch in spy.batches]
    assert firsts == [">>ca<<", ">>fr<<", ">>fr<<"]
    assert ">>ca<<" not in spy.batches[-1][0]


def test_sentences_without_blanks_between_them_get_some_where_the_language_wants_them(english, monkeypatch):
    monkeypatch.setattr(english, "_model", Spy())
    assert said(english, "你好。再见。\n好。", source="zh") == ["oui oui\noui"]
    monkeypatch.setattr(english, "_folder", type("F", (), {"into": {"ja": ""}}))
    assert said(english, "你好。再见。", source="zh", target="ja") == ["ouioui"]


def test_other_ways_are_different_and_go_through_all_sentences(english):
    work = Work(texts=("Hello! Thank you.", "12", "yes"), source="en", target="fr", others=3)
    first, number, yes = english.translate(work, never)
    assert first[0] == "Bonjour ! Merci."
    assert number == ("12",)
    assert yes[0] == "oui"
    assert 1 < len(first) <= 4
    assert len(set(first)) == len(first)


def test_who_leaves_is_let_go_at_once_and_its_batches_are_dropped(english, monkeypatch):
    begun, end = threading.Event(), threading.Event()
    computed = []

    class Slow(Spy):
        def translate_batch(self, batch, **more):
            computed.append(batch)
            begun.set()
            end.wait(10)
            return super().translate_batch(batch, **more)

    monkeypatch.setattr(english, "_model", Slow())
    work = Work(texts=("hello",), source="en", target="fr")
    first = threading.Thread(target=lambda: english.translate(work, never))
    first.start()
    assert begun.wait(10)
    submitted = threading.Event()
    submit = english._turns.submit
    monkeypatch.setattr(english._turns, "submit", lambda *told, **more: (submitted.set(), submit(*told, **more))[1])
    with pytest.raises(Stopped):  # it waits behind the other
        english.translate(Work(texts=("hello", "yes"), source="en", target="fr"), submitted.is_set)
    end.set()
    first.join(10)
    assert len(computed) == 1


def test_tokens_that_a_client_writes_are_text(english):
    for text in ("</s>", "<pad> hello", "<unk>", "\u2581hello"):
        assert len(said(english, text)) == 1
