"""One model at work: texts in sentences, sentences in pieces of words, these in batches through CTranslate2, and back again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from backends.marian.asking import Said, Work
from backends.marian.folders import Folder
from backends.marian.sentences import UNSPACED, gap, split

if TYPE_CHECKING:
    import ctranslate2

EOS = "</s>"
LONGEST = 300
"""Pieces of words in what is translated at once; beyond that Marian's models, trained on sentences, leave things out."""
AT_ONCE = 32
"""Ways of saying something that are computed at once: sixteen sentences and two ways of each. More gain little."""
BATCH = 16
HANGS = 600.0
"""Seconds that a batch may take, and those before it."""
GLANCE = 0.05
"""Seconds between two looks whether somebody still waits for one."""
TOKENS = 1024
"""Pieces of words that are computed at once, the gaps behind shorter sentences included."""

Stop = Callable[[], bool]


class Stopped(Exception):
    """Nobody wants it any more."""


class Translator:
    """A loaded model. May be asked by several threads at once: their batches take turns."""

    def __init__(self, folder: Folder, converted: Path, *, compute_type: str, beam: int, threads: int) -> None:
        """Load it. Raises RuntimeError, ValueError: what is there is no model."""
        import ctranslate2
        import sentencepiece

        self._folder = folder
        self._beam = beam
        self._longest = min(LONGEST, folder.config.max_position_embeddings - 3)
        self._limit = folder.config.max_position_embeddings - 1
        self._turns = ThreadPoolExecutor(1)
        """Where batches are computed, in the order of their coming, whoever's they are."""
        self._source = sentencepiece.SentencePieceProcessor(model_file=str(folder.path / "source.spm"))
        self._target = sentencepiece.SentencePieceProcessor(model_file=str(folder.path / "target.spm"))
        self._model: ctranslate2.Translator = ctranslate2.Translator(
            str(converted), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
        )

    def translate(self, work: Work, stop: Stop) -> Said:
        """See ``Work``. ``stop`` is asked all the time. Raises Stopped."""
        parts = [self._parts(text, work.source, stop) for text in work.texts]
        wanted = dict.fromkeys(piece for text in parts for piece, said in text if said)  # what repeats is said once
        found = self._said(list(wanted), work, stop)
        spaced = work.source.partition("-")[0] in UNSPACED and work.target.partition("-")[0] not in UNSPACED
        return tuple(
            tuple(_joined(text, found, way, spaced=spaced) for way in range(_ways(text, found))) for text in parts
        )

    def _parts(self, text: str, language: str, stop: Stop) -> list[tuple[str, bool]]:
        parts: list[tuple[str, bool]] = []
        for piece, said in split(text, language, stop):
            parts.extend(self._cut(piece) if said else ((piece, False),) if piece else ())
        if stop():
            raise Stopped
        return parts

    def _cut(self, sentence: str) -> Iterable[tuple[str, bool]]:
        """A sentence in parts that the model can take."""
        if len(sentence) < 2 or len(self._source.encode(sentence)) <= self._longest:
            yield sentence, True
            return
        end = gap(sentence, max(1, len(sentence) * 2 // 3))
        for half in (sentence[:end], sentence[end:]):
            bare = half.strip()
            start = half.find(bare) if bare else len(half)
            yield half[:start], False
            if bare:
                yield from self._cut(bare)
            yield half[start + len(bare) :], False

    def _said(self, sentences: Sequence[str], work: Work, stop: Stop) -> dict[str, list[str]]:
        token = self._folder.into[work.target]
        head = [token] if token else []
        pieces = [[*head, *found, EOS] for found in self._source.encode(list(sentences), out_type=str)]
        ways = work.others + 1
        found: dict[str, list[str]] = {}
        for batch in _batches([len(one) for one in pieces], min(BATCH, AT_ONCE // max(self._beam, ways))):
            if stop():
                raise Stopped
            results = self._computed([pieces[index] for index in batch], ways, stop)
            for index, result in zip(batch, results, strict=True):
                said = [self._target.decode(way).replace("\u2581", " ").strip() for way in result.hypotheses]
                found[sentences[index]] = list(dict.fromkeys(said))
        return found

    def _computed(self, batch: Sequence[Sequence[str]], ways: int, stop: Stop) -> Sequence[Any]:
        """One batch, in its turn. Who leaves does not wait for it: what has begun is computed to its end, and nobody looks.

        Raises:
            Stopped: nobody wants it any more.
        """
        running = self._turns.submit(
            self._model.translate_batch,
            batch,
            beam_size=max(self._beam, ways),
            num_hypotheses=ways,
            max_input_length=0,
            max_decoding_length=min(self._limit, 3 * max(map(len, batch)) + 32),
            disable_unk=True,
        )
        deadline = time.monotonic() + HANGS
        while True:
            try:
                return cast("Sequence[Any]", running.result(GLANCE))
            except TimeoutError:
                if stop():
                    running.cancel()
                    raise Stopped from None
                if time.monotonic() > deadline:
                    os._exit(os.EX_SOFTWARE)  # the gateway starts another process


def _batches(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Indexes of those that are computed together: such as are of one length, the longest first."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        last = batches[-1] if batches else []
        if last and len(last) < limit and lengths[last[0]] * (len(last) + 1) <= TOKENS:
            last.append(index)
        else:
            batches.append([index])
    return batches


def _ways(text: Sequence[tuple[str, bool]], found: dict[str, list[str]]) -> int:
    return max((len(found[piece]) for piece, said in text if said), default=1)


def _joined(text: Sequence[tuple[str, bool]], found: dict[str, list[str]], way: int, *, spaced: bool) -> str:
    """The text again. ``spaced``: its sentences had no blanks between them, and now they want some."""
    pieces: list[str] = []
    for piece, said in text:
        if said:
            ways = found[piece]
            pieces.extend(
                (" " if spaced and pieces and not pieces[-1][-1:].isspace() else "", ways[min(way, len(ways) - 1)])
            )
        elif piece:
            pieces.append(piece)
    return "".join(pieces)
