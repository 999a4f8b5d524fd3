"""The backend: models that paint, of one folder, each in a worker process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backends import threads
from backends.base import Need, Tell, tell_nobody
from backends.diffusers import presets, reference_files
from backends.diffusers.asking import Asked, Drawn, Refused, Stepped, encode, read_told
from backends.diffusers.catalog import Catalog, Known
from backends.diffusers.settings import PainterModelSettings, PainterSettings, check, check_model
from backends.diffusers.start import Laid, Start
from backends.extras import must_have
from backends.seeing.machine import may_have_gpu, threads_for
from backends.workers.memory import memory_bytes
from canonical.errors import BackendError, BackendTimeout, InvalidRequest, NotFound, OutOfMemory
from canonical.media import Blob
from canonical.models import LoadedModel, ModelDetails, ModelInfo
from canonical.painting import Offer, Paint, Painted, Step, alone
from canonical.progress import Progress
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions

if TYPE_CHECKING:
    from backends.workers.deaths import Deaths
    from backends.workers.worker import Worker

NEEDS = ("torch", "diffusers", "transformers", "accelerate", "PIL")
"""What the extra brings and each picture takes."""
MIB = 1024 * 1024
BASE = 600 * MIB
"""Of a worker with torch and diffusers in it, before any weights."""
PER_PIXEL = 1400
"""Bytes that painting and decoding take for each pixel of a picture, and each byte of its numbers: SDXL's autoencoder takes most."""
KEPT = 2 * 0.85
"""Bytes for each of a model's numbers while adapters lie over it: what these cover of SDXL, as it was, in 16 bits."""
SPARE = 2048 * MIB
"""What a worker may have beside its weights three times and its pictures: the largest that is accepted need 500 MiB to decode."""


class DiffusersBackend:
    """Models that paint. ``base``: what a relative folder counts from."""

    Settings = PainterSettings
    ModelSettings = PainterModelSettings

    def __init__(self, name: str, settings: PainterSettings, base: Path = Path()) -> None:
        """Take the settings; nothing is read or loaded.

        Raises:
            ValueError: a value that cannot be.
        """
        check(settings)
        self.name = name
        self._settings = settings
        self._catalog = Catalog(name, settings, base)
        self._deaths: dict[str, Deaths] = {}
        """Of each model that ever ran: a crash is not forgotten with the unloading."""

    def configure(self, id: str, settings: PainterModelSettings) -> None:
        """Name a model, and say how it paints. Raises ValueError."""
        check_model(settings)
        self._catalog.configure(id, settings)

    async def models(self) -> list[ModelInfo]:
        """Every model that paints, also one that cannot be loaded as it is."""
        return [known.info for known in await threads.call(lambda: list(self._catalog.all()), name="painting")]

    async def details(self, name: str) -> ModelDetails:
        """The row again. Raises ModelNotFound."""
        return ModelDetails(info=(await threads.call(lambda: self._catalog.find(name), name="painting")).info)

    async def offer(self, name: str) -> Offer:
        """What the model lets one choose. Raises ModelNotFound."""
        known = await threads.call(lambda: self._catalog.find(name), name="painting")
        return presets.offer(known, self._settings)

    async def prepared(self, name: str, request: Paint) -> Paint:
        """See ``Prepares``."""
        known = await self._usable(name)
        return presets.prepared(known, self._settings, request)

    def check_equipped(self) -> None:
        """Raises NotImplementedHere: the extra is not installed here."""
        must_have("images", *NEEDS)

    async def need(self, name: str, options: LoadOptions) -> Need:  # noqa: ARG002  nothing of a load can be chosen
        """What ``open`` would take. Where only torch knows whether there is a GPU, all counts as RAM. Raises as ``open``."""
        known = await self._usable(name)
        preset = presets.offer(known, self._settings).preset
        work = (preset.width or 0) * (preset.height or 0) * PER_PIXEL * self._width()
        weights = self._weights(await self._numbers(known))
        kept = int(known.of.numbers * KEPT) if known.loras else 0
        if self._settings.device != "cuda":
            return Need(ram=BASE + work + weights + kept)
        if self._settings.offload == "none":
            return Need(ram=2 * BASE + kept, vram=BASE + work + weights)
        share = 0.75 if self._settings.offload == "model" else 0.05  # of SDXL's weights three quarters are the UNet's
        return Need(ram=2 * BASE + weights + kept, vram=BASE + work + int(weights * share))

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> PaintingModel:
        """Load a model.

        Raises:
            ModelNotFound: there is no such folder or file.
            Unsupported: it cannot be loaded as it lies there.
            NotImplementedHere: the extra is not installed.
            OutOfMemory, BackendError: it cannot be loaded.
        """
        known = await self._usable(name)
        self.check_equipped()
        # With all that watches over processes: most gateways never need it.
        from backends.workers.deaths import Deaths
        from backends.workers.worker import Job, Worker

        start = msgspec.msgpack.encode(self._start(known))
        limit = self._limit(known, await self._numbers(known))
        job = Job(name=name, module="backends.diffusers.worker", start=start, memory=limit)
        worker = Worker(job, self._deaths.setdefault(name, Deaths()))
        try:
            await worker.start(far=lambda part: tell(_far(known, part)))
        except BaseException:
            await threads.settled(asyncio.ensure_future(worker.close()))
            raise
        need = await self.need(name, options)
        return PaintingModel(known.info, worker, need, self._catalog, self._settings.time_limit)

    async def close(self) -> None:
        """Nothing stays open beside the models."""

    async def _usable(self, name: str) -> Known:
        return await threads.call(lambda: self._catalog.usable(name), name="painting")

    def _start(self, known: Known) -> Start:
        settings, model = self._settings, known.settings
        return Start(
            path=str(known.path),
            variant=known.of.variant,
            config=str(known.config or ""),
            vae=str(self._catalog.place(model.vae) or ""),
            ip_adapter=str(self._catalog.place(model.ip_adapter) or ""),
            device=settings.device,
            dtype=settings.dtype,
            threads=threads_for(settings.threads),
            nice=settings.nice,
            offload=settings.offload,
            vae_tiling=settings.vae_tiling,
            vae_slicing=settings.vae_slicing,
            attention_slicing=settings.attention_slicing,
            channels_last=settings.channels_last,
            compile=settings.compile,
            previews=settings.previews,
        )

    async def _numbers(self, known: Known) -> int:
        """Of its weights, and of what lets it take after pictures; a VAE of its own is in place of another."""
        place = self._catalog.place(known.settings.ip_adapter)
        beside = await threads.call(lambda: reference_files.numbers(place), name="painting") if place is not None else 0
        return known.of.numbers + beside

    def _weights(self, numbers: int) -> int:
        """Bytes that so many take once they are loaded, in whatever form they lie there."""
        return numbers * self._width()

    def _width(self) -> int:
        """Bytes of a number."""
        wide = self._settings.dtype == "float32" or (self._settings.dtype == "auto" and self._computes_here())
        return 4 if wide else 2

    def _computes_here(self) -> bool:
        """Whether it is on the processor, as far as can be known without torch."""
        return self._settings.device == "cpu" or (self._settings.device == "auto" and not may_have_gpu())

    def _limit(self, known: Known, numbers: int) -> int:
        settings = self._settings
        if settings.memory_limit is not None:
            return memory_bytes(settings.memory_limit)
        # Drivers of GPUs reserve more than there is.
        if not self._computes_here():
            return 0
        pixels = presets.offer(known, settings).max_pixels
        return SPARE + 3 * self._weights(numbers) + pixels * PER_PIXEL * self._width()


def _far(known: Known, part: float) -> Progress:
    return Progress(status="loading model", total=known.info.size, completed=int(known.info.size * part))


class PaintingModel:
    """A loaded model. ``time``: seconds that one picture may take; 0: as many as it takes."""

    honours = Honours()
    slots = 1
    """One request after the other: each has the whole device."""

    def __init__(self, info: ModelInfo, worker: Worker, need: Need, catalog: Catalog, time: float) -> None:
        self.info = info
        self.worker = worker
        self._need = need
        self._catalog = catalog
        self._time = time

    async def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        """Yield each step as it is done, and each picture when it is. Closing the generator stops the work within one step.

        Raises:
            InvalidRequest: an image of the request cannot be decoded, or an adapter does not fit.
            NotFound: an adapter is gone.
            OutOfMemory: the picture needs more than there is; the model goes on.
            BackendTimeout, BackendError: it took too long, or failed.
        """
        asked = encode(Asked(request, await threads.call(lambda: self._laid(request), name="painting")))
        clock = asyncio.get_running_loop().time
        async with aclosing(self.worker.stream("paint", asked)) as told:
            until = clock() + self._time
            while True:
                try:
                    async with asyncio.timeout_at(until if self._time else None):
                        chunks = await anext(told, None)
                except TimeoutError as error:
                    raise BackendTimeout(f"the picture took longer than {self._time:g} s") from error
                if chunks is None:
                    return
                for chunk in chunks:
                    match read_told(chunk):
                        case Stepped(done, total, index, preview):
                            seen = Blob(preview, "image/png") if preview else None
                            yield Step(done=done, total=total, index=index, preview=seen)
                        case Drawn(index, image, warnings):
                            made = alone(request, index)
                            yield Painted(image=Blob(image, "image/png"), made=made, index=index, warnings=warnings)
                            until = clock() + self._time
                        case Refused() as refused:
                            raise _error(refused)

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info, size=self._need.ram + self._need.vram, size_vram=self._need.vram)

    async def close(self) -> None:
        """End its process; done when its memory is free. No lease is open."""
        await self.worker.close()

    def _laid(self, request: Paint) -> tuple[Laid, ...]:
        if not request.loras:
            return ()
        there = self._catalog.find(self.info.id).loras
        for lora in request.loras:
            if lora.name not in there:
                raise NotFound(f"the LoRA {lora.name!r} is gone", param="loras")
        return tuple(
            Laid(
                name=lora.name,
                path=str(there[lora.name].path),
                weight=there[lora.name].info.default_weight if lora.weight is None else lora.weight,
            )
            for lora in request.loras
        )


def _error(refused: Refused) -> OutOfMemory | InvalidRequest | BackendError:
    if refused.starved:
        return OutOfMemory(refused.words)
    return InvalidRequest(refused.words, param=refused.param) if refused.param else BackendError(refused.words)
