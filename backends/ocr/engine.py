"""RapidOCR: finds lines of text in a picture and reads each. Runs in a worker process.

Measured on one core: lines read one by one take no longer than six at once, and 200 MB less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import rapidocr
from msgspec import structs
from PIL import Image
from rapidocr import RapidOCR
from rapidocr.utils.download_file import DownloadFile

from backends.ocr.pieces import add, middle, pieces
from backends.ocr.rows import in_rows
from backends.ocr.start import Start
from backends.seeing.decoding import Picture, at_least, decoded
from canonical.seeing import Line

WIDE = 2000
"""Pixels of a picture's sides that are looked at: letters of a scanned page are still 20 high then."""
LEAST = 32
"""Pixels that the models need of a side."""

_MODELS = Path(rapidocr.__file__).parent / "models"
_FIND, _READ, _TURN = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx", "ch_ppocr_mobile_v2.0_cls_mobile.onnx"


def _never(*_: object) -> NoReturn:
    raise RuntimeError("a file of the model is missing, and nothing is downloaded here")


DownloadFile.run = _never  # type: ignore[assignment,method-assign]


class Reader:
    """One loaded set of models."""

    def __init__(self, start: Start) -> None:
        parameters: dict[str, Any] = {
            "Global.log_level": "critical",
            "Global.text_score": start.score,
            "Global.use_cls": start.upside_down,
            "Global.use_preprocess_img": False,  # it shrinks what is tall until nobody can read it
            "EngineConfig.onnxruntime.intra_op_num_threads": start.threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_side_len": start.side,
            "Det.limit_type": "max",
            "Det.model_path": start.find or str(_MODELS / _FIND),
            "Cls.model_path": str(_MODELS / _TURN),
            "Rec.model_path": start.read or str(_MODELS / _READ),
            "Rec.rec_batch_num": 1,
        }
        if start.characters:
            parameters["Rec.rec_keys_path"] = start.characters
        self._engine = cast("Any", RapidOCR(params=parameters))
        self._step: Callable[[], None] = lambda: None
        parts = [self._engine._load_det_model(), self._engine._load_rec_model()]  # noqa: SLF001  now, not with the first picture
        if start.upside_down:
            parts.append(self._engine._load_cls_model())  # noqa: SLF001  likewise
        for part in parts:
            part.session = self._stoppable(part.session)
        list(self._found(np.full((64, 64, 3), 255, np.uint8)))  # what cannot run is found out now

    def lines(self, data: bytes, step: Callable[[], None]) -> tuple[Line, ...]:
        """What is written there, in reading order; boxes in the pixels of the picture as it is seen upright.

        Raises:
            BadPicture.
        """
        picture = decoded(data, width=WIDE, height=WIDE)
        image = _shrunk(picture.image)
        self._step = step
        found: list[Line] = []
        for piece in pieces(image.width, image.height):
            step()
            part = at_least(image.crop((0, piece.top, image.width, piece.bottom)), LEAST)
            here = self._found(np.ascontiguousarray(np.asarray(part)[:, :, ::-1]))  # these models know BGR
            whole = [line for line in here if piece.first <= piece.top + middle(line) < piece.last]
            add(found, [_placed(line, piece.top, image, picture) for line in whole])
        return in_rows(found)

    def _found(self, pixels: Any) -> Iterator[Line]:
        result: Any = self._engine(pixels)
        if getattr(result, "txts", None) is None or result.boxes is None:
            return
        for box, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
            yield Line(text, min(1.0, max(0.0, float(score))), tuple((float(x), float(y)) for x, y in box))

    def _stoppable(self, session: Any) -> Callable[[Any], Any]:
        """A model's session that looks before each of its runs whether anybody still waits."""

        def run(content: Any) -> Any:
            self._step()
            return session(content)

        return run


def _shrunk(image: Image.Image) -> Image.Image:
    """No wider than is looked at; nor higher, unless it is looked at in pieces."""
    most = image.width if len(pieces(image.width, image.height)) > 1 else max(image.size)
    if most <= WIDE:
        return image
    size = (max(1, image.width * WIDE // most), max(1, image.height * WIDE // most))
    return image.resize(size, Image.Resampling.LANCZOS)


def _placed(line: Line, top: int, image: Image.Image, picture: Picture) -> Line:
    """A line of a piece of ``image`` where it is in the picture that was sent."""
    across, down = picture.width / image.width, picture.height / image.height
    box = tuple(
        (round(min(x * across, picture.width), 1), round(min((y + top) * down, picture.height), 1)) for x, y in line.box
    )
    return structs.replace(line, box=box)
