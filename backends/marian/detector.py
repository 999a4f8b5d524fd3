"""A worker process that tells which language a text is in: ``python -m backends.marian.detector``. py3langid takes 90 MB."""

from __future__ import annotations

import msgspec

from backends.workers import desk
from backends.workers.desk import Emit, Far, Serve
from backends.workers.worker import Worker
from canonical.languages import code_of
from canonical.models import LoadedModel, ModelInfo
from canonical.report import Honours
from canonical.translation import Guess

NAME = "py3langid"
LENGTH = 5_000
"""Characters of a text that are looked at."""
NO_LANGUAGE = "zxx"


class Detector:
    """A loaded one, seen from the gateway; see ``Detects``."""

    honours = Honours()
    slots = 4

    def __init__(self, info: ModelInfo, worker: Worker, *, memory: int) -> None:
        self.info = info
        self._worker = worker
        self._memory = memory

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info, size=self._memory, slots=self.slots)

    async def detect(self, text: str) -> list[Guess]:
        """All languages that it knows, the likeliest first. Raises BackendError: the worker died."""
        told = await self._worker.whole("detect", text[:LENGTH].encode("utf-8", "replace"))
        return msgspec.msgpack.decode(told, type=list[Guess])

    async def close(self) -> None:
        """End the process."""
        await self._worker.close()


def load(_start: bytes, _far: Far) -> Serve:
    """See ``desk.Load``."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def serve(_kind: str, body: bytes, emit: Emit) -> None:
        ranked = identifier.rank(body.decode())
        emit(
            msgspec.msgpack.encode([Guess(code_of(code) or code, part) for code, part in ranked if code != NO_LANGUAGE])
        )

    return serve


if __name__ == "__main__":
    desk.main(load)
