"""A loaded model, seen from the gateway: its worker process, asked."""

from __future__ import annotations

from backends.marian import asking
from backends.workers.failing import Failed, could_not, without_paths
from backends.workers.worker import Worker
from canonical.errors import GatewayError, InvalidRequest, ModelNotFound, StorageFailed
from canonical.models import LoadedModel, ModelInfo
from canonical.report import Honours
from canonical.translation import Translate


class MarianModel:
    """Translates; see ``Translates``."""

    honours = Honours()

    def __init__(self, info: ModelInfo, worker: Worker, *, slots: int, memory: int) -> None:
        self.info = info
        self.slots = slots
        self._worker = worker
        self._memory = memory

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._worker.pid

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info, size=self._memory, context_length=self.info.context_length, slots=self.slots)

    async def translate(self, request: Translate) -> asking.Said:
        """For each text the best way of saying it, and then others.

        Raises:
            InvalidRequest: it does not have these languages.
            BackendError: the worker died.
        """
        if (request.source, request.target) not in self.info.pairs:
            raise InvalidRequest(f"{self.info.id!r} does not translate {request.source} into {request.target}")
        work = asking.Work(
            texts=request.texts, source=request.source, target=request.target, others=request.alternatives
        )
        return asking.read_said(await self._worker.whole("translate", asking.write(work)))

    async def close(self) -> None:
        """End the process."""
        await self._worker.close()


def explain(name: str, failed: Failed) -> GatewayError:
    """Why a model could not be loaded; no reply tells where files are."""
    kind, _, words = failed.words.partition(": ")
    if kind == "Missing":
        return ModelNotFound(f"model '{name}' not found", param="model")
    if kind == "NotKept":
        return StorageFailed(f"the model {name!r} cannot be converted: {without_paths(words)}")
    return could_not(name, failed, words)
