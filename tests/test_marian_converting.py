"""A Marian model becomes what CTranslate2's own converter makes of it, without PyTorch; odd ones say what transformers says."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from backends.marian.converting import convert
from backends.marian.folders import read_folder
from backends.marian.weights import BadWeights, read_head
from tests.marian_reference import DEMO, SOURCE, TARGET

pytest.importorskip("ctranslate2")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What transformers makes of odd models."""
    pytest.importorskip("transformers")
    out = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, "-W", "ignore", "-m", "tests.marian_reference", str(out)], check=True, timeout=100)
    return out


def converted(folder: Path, out: Path, kind: str = "int8") -> Path:
    """In a process of its own, as in life: the library remembers whether it has seen PyTorch."""
    out.mkdir()
    found = read_folder(folder.parent, folder.name, ("en",))
    assert found is not None
    convert(found, kind, out)
    return out


def test_the_files_are_those_of_the_librarys_own_converter(reference, tmp_path):
    ours, theirs = converted(DEMO, tmp_path / "ours"), reference / "demo.int8"
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    for path in theirs.iterdir():
        assert (ours / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["half", "brain", "biased", "padded", "separate"])
def test_an_odd_model_scores_as_in_transformers(reference, tmp_path, name):
    """16 bits; a bias; a row of <pad> that is not zero, where decoding starts; two vocabularies."""
    import ctranslate2

    expected = json.loads((reference / "scores.json").read_text())[name]
    model = ctranslate2.Translator(str(converted(reference / name, tmp_path / "out", "float32")))
    (scored,) = model.score_batch([SOURCE], [TARGET])
    assert scored.log_probs == pytest.approx(expected, abs=2e-2 if name in {"half", "brain"} else 1e-3)


def test_conversion_imports_no_pytorch(tmp_path):
    script = (
        "import sys; from pathlib import Path; from backends.marian.converting import convert;"
        "from backends.marian.folders import read_folder;"
        f"convert(read_folder(Path({str(DEMO.parent)!r}), {DEMO.name!r}), 'int8', Path({str(tmp_path)!r}));"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]


# What is no model


def copy(tmp_path: Path) -> Path:
    folder = tmp_path / DEMO.name
    shutil.copytree(DEMO, folder)
    return folder


def header(entries: dict[str, object], data: bytes = b"") -> bytes:
    head = json.dumps(entries).encode()
    return struct.pack("<Q", len(head)) + head + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        struct.pack("<Q", 1 << 62) + b"{}",
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 15),
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}, b"\0" * 16),
        header({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, b"\0" * 16),
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, b"\0" * 16),
        header({"a": {"dtype": "EVIL", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 16),
        header({"a": [1, 2]}),
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
)
def test_weights_that_are_none_are_known_by_their_head(tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadWeights):
        read_head(path)


def test_a_file_that_is_cut_off_is_trouble_and_told(tmp_path):
    folder = copy(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "is cut off" in read_folder(tmp_path, DEMO.name).trouble


def test_pickles_are_never_opened_and_the_trouble_says_what_to_do(tmp_path):
    folder = copy(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    trouble = read_folder(tmp_path, DEMO.name).trouble
    assert "pytorch_model.bin" in trouble
    assert "put model.safetensors beside it" in trouble


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation_function": "mish"}, "activation 'mish'"),
        ({"encoder_layers": 9}, "lack model.encoder.layers.2"),
        ({"share_encoder_decoder_embeddings": False}, "target_vocab"),
    ],
)
def test_what_is_not_as_marians_models_are_says_in_which_way(tmp_path, change, words):
    folder = copy(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises((ValueError, OSError), match=words):
        convert(read_folder(tmp_path, DEMO.name), "int8", out)


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    folder = copy(tmp_path)
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({token: id for token, id in ids.items() if id != 7}))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ValueError, match="one word for each"):
        convert(read_folder(tmp_path, DEMO.name), "int8", out)


# Which languages


@pytest.mark.parametrize(
    ("name", "words", "pairs"),
    [
        ("opus-mt-en-fr", [], {("en", "fr")}),
        ("opus-mt-tc-big-en-fr", [], {("en", "fr")}),
        ("opus-mt-tc-big-cat_oci_spa-en", [], {("ca", "en"), ("oc", "en"), ("es", "en")}),
        ("opus-mt-en-ROMANCE", [">>fr<<", ">>pt_BR<<", ">>ca<<"], {("en", "fr"), ("en", "pt-BR"), ("en", "ca")}),
        ("opus-mt-en-roa", [">>fra<<", ">>ita<<"], {("en", "fr"), ("en", "it")}),
        ("opus-mt-en-zh", [">>cmn_Hans<<", ">>cmn_Hant<<"], {("en", "zh"), ("en", "zh-Hans"), ("en", "zh-Hant")}),
        ("opus-mt-en-jap", [], {("en", "ja")}),
        ("opus-mt-mul-en", [], set()),
    ],
)
def test_the_languages_stand_in_the_name_and_in_the_vocabulary(tmp_path, name, words, pairs):
    folder = tmp_path / name
    shutil.copytree(DEMO, folder)
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(ids | {word: len(ids) + place for place, word in enumerate(words)}))
    found = read_folder(tmp_path, name)
    assert set(found.pairs) == pairs
    assert bool(found.trouble) == (not pairs)


def test_from_which_languages_stands_in_the_readme_or_is_said(tmp_path):
    folder = tmp_path / "opus-mt-mul-en"
    shutil.copytree(DEMO, folder)
    assert set(read_folder(tmp_path, folder.name, ("fra", "es_MX")).pairs) == {("fr", "en"), ("es-MX", "en")}
    (folder / "README.md").write_text("### mul-eng\n\n* source language(s): afr deu fra\n* target language(s): eng\n")
    assert set(read_folder(tmp_path, folder.name).pairs) == {("af", "en"), ("de", "en"), ("fr", "en")}


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../opus-mt-en-fr", "opus-mt-en-xx"])
def test_a_name_leads_nowhere_else(name):
    assert read_folder(DEMO.parent, name) is None
