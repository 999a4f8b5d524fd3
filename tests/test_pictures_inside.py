"""Pictures below the routes: decoding whatever bytes come, rows of text, and which folders are CLIP models."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from backends.clip import ClipBackend
from backends.clip.settings import ClipModelSettings, ClipSettings
from backends.ocr import OcrBackend
from backends.ocr.pieces import OVERLAP, SHORT, TALL, add, middle, pieces
from backends.ocr.rows import in_rows
from backends.ocr.settings import OcrModelSettings, OcrSettings
from backends.seeing import machine
from backends.seeing.asking import Answered, Asked, Refused, Text, encode, read_answered
from backends.seeing.decoding import BadPicture, at_least, decoded
from backends.seeing.process import Looker
from backends.seeing.serving import Wrong, serving
from backends.workers.failing import Failed, could_not
from canonical.errors import BackendError, BackendTimeout, ModelNotFound, OutOfMemory, Unsupported
from canonical.media import Blob
from canonical.seeing import Line, Read, Reading
from tests.drawing import encoded, page
from tests.serving import ROOT

EMPTY = b"\2\0\0\0\0\0\0\0{}"
"""The least that is a safetensors file."""
DEMO = ROOT / "models" / "clip" / "clip-shapes"

# Decoding

FILES = [
    encoded(page(["Déjà vu"]), "PNG"),
    encoded(page(["Déjà vu"]).quantize(8), "PNG"),
    encoded(page(["Déjà vu"]), "JPEG"),
    encoded(page(["Déjà vu"]), "JPEG", progressive=True),
    encoded(page(["Déjà vu"]).convert("CMYK"), "JPEG"),
    encoded(page(["Déjà vu"]), "WEBP"),
    encoded(page(["Déjà vu"]), "WEBP", save_all=True, append_images=[page(["Déjà lu"], width=page(["Déjà vu"]).width)]),
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    file=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_b16_whatever_happened_to_a_picture_it_is_decoded_or_refused(
    file: bytes, changes: list[tuple[float, int]], cut: float | None
) -> None:
    data = bytearray(file)
    for place, value in changes:
        data[int(place * len(data))] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    try:
        picture = decoded(bytes(data), width=200, height=200)
    except BadPicture as error:
        words = str(error)
    else:
        words = picture.image.mode
        assert picture.image.width <= picture.width
    assert words == "RGB" or "picture" in words
    assert "0x" not in words


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(2000, 1500), (1500, 2000), (100, 8000), (401, 399), (7, 5)])
def test_b16_a_large_picture_is_made_no_larger_than_is_looked_at(format: str, size: tuple[int, int]) -> None:
    picture = decoded(encoded(Image.new("RGB", size, "red"), format), width=200, height=200)
    assert (picture.width, picture.height) == size
    assert picture.image.width <= max(400, size[0])
    if min(size) > 800:
        assert max(picture.image.size) <= 1000
    assert picture.image.getpixel((0, 0))[0] > 250  # type: ignore[index]


def test_b16_a_picture_is_padded_to_what_models_need_and_no_further() -> None:
    assert at_least(Image.new("RGB", (1, 50)), 32).size == (32, 50)
    assert at_least(Image.new("RGB", (50, 32)), 32).size == (50, 32)


# Being asked


class Raised(Exception):
    """As libraries have their own."""


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (BadPicture("the picture is damaged"), Refused("the picture is damaged")),
        (Wrong("the label is too long", "labels"), Refused("the label is too long", "labels")),
        (MemoryError(), Refused("the picture takes more memory than there is for it")),
        (Raised("std::bad_alloc"), Refused("the picture takes more memory than there is for it")),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory"),
            Refused("the picture takes more memory than there is for it"),
        ),
    ],
    ids=repr,
)
def test_b16_a_worker_tells_faults_of_the_picture_from_its_own(error: Exception, answer: Refused) -> None:
    said: list[bytes] = []

    def look(question: Asked, step: Callable[[], None]) -> Answered:
        step()
        raise error

    serving(look)("look", encode(Text(b"")), lambda chunk: said.append(chunk) or False)  # type: ignore[func-returns-value]
    assert [read_answered(chunk) for chunk in said if chunk] == [answer]


def test_b16_a_workers_own_fault_is_told_without_the_words_of_its_libraries() -> None:
    def look(question: Asked, step: Callable[[], None]) -> Answered:
        raise Raised("Traceback: /secret/place.py")

    with pytest.raises(RuntimeError, match=r"^Raised while it looked at the picture$"):
        serving(look)("look", encode(Text(b"")), lambda _: False)


def test_b14_a_worker_stops_between_two_steps_when_nobody_waits_any_more() -> None:
    said: list[bytes] = []

    def look(question: Asked, step: Callable[[], None]) -> Answered:
        step()
        raise AssertionError("it went on")

    serving(look)("look", encode(Text(b"")), lambda chunk: said.append(chunk) or True)  # type: ignore[func-returns-value]
    assert said == [b""]


def test_b14_a_picture_that_takes_too_long_is_given_up() -> None:
    class Slow:
        async def whole(self, kind: str, body: bytes) -> bytes:
            await asyncio.get_running_loop().create_future()
            return b""

    with pytest.raises(BackendTimeout, match=r"longer than 0\.01 s") as caught:
        asyncio.run(Looker(Slow(), 0.01).ask(Text(b"")))  # type: ignore[arg-type]
    assert caught.value.status == 504


# Text


def line(text: str, left: float, top: float, *, width: float = 100, height: float = 30, slope: float = 0) -> Line:
    fall = width * slope
    return Line(
        text,
        0.9,
        ((left, top), (left + width, top + fall), (left + width, top + fall + height), (left, top + height)),
    )


@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    slope=st.floats(-0.05, 0.05),
    order=st.randoms(use_true_random=False),
)
def test_b14_rows_are_found_in_any_order_and_on_a_slope(rows: list[int], slope: float, order: random.Random) -> None:
    lines = [
        line(f"{row}.{place}", 120 * place, 100 + 60 * row + 120 * place * slope, slope=slope)
        for row, count in enumerate(rows)
        for place in range(count)
    ]
    shuffled = lines[:]
    order.shuffle(shuffled)
    told = Reading(lines=in_rows(shuffled)).text
    assert told.splitlines() == [" ".join(f"{row}.{place}" for place in range(count)) for row, count in enumerate(rows)]


def test_b14_text_of_unknown_rows_has_a_line_each() -> None:
    assert Reading(lines=(line("a", 0, 0), line("b", 200, 0))).text == "a\nb"
    assert Reading(lines=()).text == ""


@given(width=st.integers(1, 4000), height=st.integers(1, 60_000))
def test_b14_a_high_picture_is_cut_so_that_each_line_counts_once_and_is_whole_there(width: int, height: int) -> None:
    found = pieces(width, height)
    assert found[0].first == 0
    assert found[-1].last == height
    for one, other in pairwise(found):
        assert one.last > other.first
    room = max(int(TALL * width), SHORT) * OVERLAP / 4
    for one in found:
        assert 0 <= one.top < one.bottom <= height
        assert one.first <= one.last
        assert one.first == 0 or one.first - one.top >= room - 1
        assert one.last == height or one.bottom - one.last >= room - 1


@settings(max_examples=30, phases=[Phase.generate])
@given(
    height=st.integers(2000, 8000),
    size=st.integers(10, 60),
    off=st.lists(st.floats(-0.2, 0.2), min_size=7, max_size=7),
)
def test_b14_a_line_that_two_pieces_show_counts_once_wherever_each_sees_it(
    height: int, size: int, off: list[float]
) -> None:
    there = [line(str(top), 20, top, height=size) for top in range(10, height - size, int(size * 1.6))]
    found: list[Line] = []
    for number, piece in enumerate(pieces(600, height)):
        seen = [
            line(one.text, 20, one.box[0][1] + size * off[(number + place) % 7], height=size)
            for place, one in enumerate(there)
            if piece.top <= one.box[0][1] and one.box[3][1] <= piece.bottom
        ]
        add(found, [one for one in seen if piece.first <= middle(one) < piece.last])
    assert [one.text for one in in_rows(found)] == [one.text for one in there]


# Which models there are


def clip(root: Path, **more: Any) -> ClipBackend:
    return ClipBackend("clip", ClipSettings(models_dir=str(root), **more))


def found(backend: ClipBackend) -> list[str]:
    return [info.id for info in asyncio.run(backend.models())]


def folder(root: Path, name: str, *, config: Any = None, weights: str = "model.safetensors") -> Path:
    path = root / name
    path.mkdir()
    text = json.dumps({"model_type": "clip"} if config is None else config)
    (path / "config.json").write_text(text)
    if weights:
        (path / weights).write_bytes(EMPTY)
    return path


def test_b13_folders_with_weights_that_can_be_read_are_models(tmp_path: Path) -> None:
    folder(tmp_path, "good")
    (tmp_path / "shards").mkdir()
    folder(tmp_path, "split", weights="model.safetensors.index.json")
    (tmp_path / "split" / "model-00001-of-00001.safetensors").write_bytes(EMPTY)
    folder(tmp_path, "pickled", weights="pytorch_model.bin")
    folder(tmp_path, "empty", weights="")
    for name, head in (
        ("disguised", b"\x80\x04\x95\0\0\0\0\0."),
        ("cut", b"\x02\0\0"),
        ("long", b"\xff" * 7 + b"\0{}"),
    ):
        (folder(tmp_path, name) / "model.safetensors").write_bytes(head)
    folder(tmp_path, "bert", config={"model_type": "bert"})
    folder(tmp_path, "odd", config=[1])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "config.json").write_text('{"x":' * 5000 + "1" + "}" * 5000)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_bytes(b"\xff{")
    for name, file in (("waits", "config.json"), ("waits too", "model.safetensors")):
        (folder(tmp_path, name) / file).unlink()
        os.mkfifo(tmp_path / name / file)  # whoever opens it waits for somebody who writes
    folder(tmp_path, ".hidden")
    (tmp_path / "file").write_text("x")
    backend = clip(tmp_path)
    rows = {info.id: info.trouble for info in asyncio.run(backend.models())}
    no_weights = "it has no weights (model.safetensors) that can be read"
    assert rows == {
        "good": "",
        "split": "",
        "pickled": "its weights are pickled, and reading those runs whatever is in them: it is needed as safetensors",
        **dict.fromkeys(["cut", "disguised", "empty", "long", "waits too"], no_weights),
    }
    for name, trouble in rows.items():
        assert asyncio.run(backend.details(name)).info.trouble == trouble
        if trouble:
            with pytest.raises(Unsupported, match=re.escape(f"{name!r} cannot be loaded: {trouble}")):
                asyncio.run(backend.open(name))
    for name in ("nobody", "bert", "odd", "..", ".", "", "../good", "/etc", "good/../good", "shards", "file", "a\0b"):
        with pytest.raises(ModelNotFound):
            asyncio.run(backend.details(name))


def test_b13_a_model_has_another_digest_when_its_weights_are_replaced(tmp_path: Path) -> None:
    path = folder(tmp_path, "good")
    backend = clip(tmp_path)
    [before] = asyncio.run(backend.models())
    (path / "model.safetensors").write_bytes(EMPTY + b" ")
    [after] = asyncio.run(backend.models())
    assert (before.digest == after.digest, len(after.digest), after.size) == (False, 64, len(EMPTY) + 1)


def test_b13_no_models_folder_is_no_models(tmp_path: Path) -> None:
    assert found(clip(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "."])
def test_b13_a_configured_folder_is_inside_the_models_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a folder"):
        clip(tmp_path).configure("x", ClipModelSettings(folder=name))


@pytest.mark.parametrize("template", ["", "no place", "{} and {}"])
def test_b13_a_template_has_one_place_for_the_label(tmp_path: Path, template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        clip(tmp_path, template=template)
    with pytest.raises(ValueError, match="template"):
        clip(tmp_path).configure("x", ClipModelSettings(template=template))


def test_b13_a_configured_model_has_its_folder_under_its_own_name(tmp_path: Path) -> None:
    folder(tmp_path, "good")
    folder(tmp_path, "other")
    backend = clip(tmp_path)
    backend.configure("nice", ClipModelSettings(folder="good", template="{}"))
    assert found(backend) == ["nice", "other"]


def opened(backend: ClipBackend | OcrBackend, name: str) -> str:
    """Why a model cannot be opened."""

    async def work() -> str:
        try:
            model = await backend.open(name)
        except BackendError as error:
            return error.message
        await model.close()
        return ""

    return asyncio.run(work())


def test_b13_weights_that_are_missing_are_no_random_numbers(tmp_path: Path) -> None:
    """A folder whose description promises a layer more than its weights have."""
    path = tmp_path / "larger"
    path.mkdir()
    for file in DEMO.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 5
    (path / "config.json").write_text(json.dumps(config))
    assert "the weights of 16 parts are missing" in opened(clip(tmp_path), "larger")


def test_b14_files_of_other_scripts_are_inside_the_models_folder_and_there(tmp_path: Path) -> None:
    backend = OcrBackend("ocr", OcrSettings(models_dir=str(tmp_path)))
    for file in ("../x.onnx", "/x.onnx"):
        with pytest.raises(ValueError, match="no file inside models_dir"):
            backend.configure("x", OcrModelSettings(read=file))
    with pytest.raises(ValueError, match="characters"):
        backend.configure("x", OcrModelSettings(characters="x.txt"))
    backend.configure("arabic", OcrModelSettings(read="arabic.onnx", characters="arabic.txt"))
    assert [info.id for info in asyncio.run(backend.models())] == ["ocr", "arabic"]
    assert opened(backend, "arabic") == "the model 'arabic' lacks its file 'arabic.onnx'"
    for name in ("arabic.onnx", "arabic.txt"):
        (tmp_path / name).write_bytes(b"no model")
    words = opened(backend, "arabic")
    assert "could not be loaded" in words
    assert str(tmp_path) not in words


def test_b14_files_that_are_named_read_also_what_stands_on_its_head(tmp_path: Path) -> None:
    bundled = Path(str(find_spec("rapidocr").origin)).parent / "models"  # type: ignore[union-attr]
    for name, file in (("find.onnx", "PP-OCRv6_det_small.onnx"), ("read.onnx", "PP-OCRv6_rec_small.onnx")):
        (tmp_path / name).symlink_to(bundled / file)
    backend = OcrBackend("ocr", OcrSettings(models_dir=str(tmp_path), upside_down=True, threads=1))
    backend.configure("mine", OcrModelSettings(find="find.onnx", read="read.onnx"))

    async def work() -> str:
        model = await backend.open("mine")
        try:
            image = encoded(page(["Écrit à l'envers"]).rotate(180))
            return (await model.read(Read(image=Blob(image, "image/png")))).text
        finally:
            await model.close()

    assert asyncio.run(work()) == "Écrit à l'envers"


def test_b13_b14_why_a_load_failed_is_told_without_paths_and_memory_is_told_apart() -> None:
    told = could_not("m", Failed("OSError: no /secret/place/model.safetensors", "", starved=False))
    assert type(told) is BackendError
    assert "secret" not in told.message
    for failed in (
        Failed("its process ended by SIGKILL", "", starved=True),
        Failed("MemoryError: ", "", starved=False),
        Failed("RuntimeError: DefaultCPUAllocator: can't allocate memory", "", starved=False),
        Failed("its process ended with status 1", "x\nImportError: failed to map segment", starved=False),
    ):
        assert isinstance(could_not("m", failed), OutOfMemory)


def test_b13_threads_are_half_of_the_processors_unless_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for count in (1, 2, 4, 64, None):
        monkeypatch.setattr(machine.os, "cpu_count", lambda count=count: count)
        told.append(machine.threads_for(0))
    assert told == [1, 1, 2, 4, 1]
    assert machine.threads_for(7) == 7


def test_b13_what_torch_may_compute_on_is_seen_without_torch(tmp_path: Path) -> None:
    assert not machine.may_have_gpu(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert machine.may_have_gpu(tmp_path)
