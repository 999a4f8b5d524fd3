"""The models of one LM Studio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import msgspec
from msgspec import Raw, structs

from adapters.lmstudio import call
from adapters.openai.errors import read_error
from backends.abilities import known_models
from backends.base import Tell, tell_nobody
from backends.honours import TABLE
from backends.lmstudio.lists import Lists, find
from backends.lmstudio.loads import Loads, NoWay, RestLoads
from backends.lmstudio.model import STREAMS, LMStudioModel
from backends.lmstudio.package import PackageLoads, installed
from backends.lmstudio.residence import Residence
from backends.lmstudio.settings import EntrySettings, LMStudioSettings, Loading, settled
from backends.remote import RemoteBackend
from backends.telling import told
from backends.upstream import Upstream, read_url
from canonical.durations import seconds
from canonical.errors import BackendError, GatewayError, ModelNotFound, NotFound, NotImplementedHere
from canonical.models import LoadedModel, ModelDetails, ModelInfo
from canonical.progress import Progress
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions

TTL = 3600.0
"""Seconds; the gateway's own ``keep_alive`` comes first."""
LOOK = 0.5
"""Seconds between two looks at a download."""
PROBED = Honours(TABLE["lmstudio"], dialect="openai", extras={"openai": call.EXTRAS})
"""Its own fields apart, no words of OpenAI's clients travel as they are: its server passes over what it does not know."""


class LMStudioBackend(RemoteBackend):
    """What it has on its disk; models are loaded into its memory when they are opened."""

    Settings = LMStudioSettings
    ModelSettings = EntrySettings
    dialect = "openai"
    relayed = ("/chat/completions", "/completions", "/embeddings")
    streams = STREAMS

    def __init__(self, name: str, settings: LMStudioSettings, base: Path = Path()) -> None:
        """``base`` is the folder from which relative paths in settings count. Raises ValueError."""
        upstream = Upstream(name, settings, base, prefix=base_path, read_error=_read_error, called="LM Studio")
        probed = known_models(settings.abilities, base, PROBED)
        super().__init__(upstream, settings.models, listing="/v1/models", read_list=_unused, probed=probed)
        self._relayed = {path: upstream.head("POST", "/v1" + path) for path in self.relayed}
        self._settings = settings
        self._own: dict[str, Loading] = {}
        self._lists = Lists(upstream)
        ttl = TTL if settings.ttl is None else seconds(settings.ttl)
        ways: list[Loads] = [RestLoads(upstream, limit=settings.load_time)]
        self._package: PackageLoads | None = None
        address, path = read_url(settings.url)
        if installed() and not address.tls and not base_path(path):  # its protocol knows neither TLS nor a path
            host = address.authority if address.port != 80 else f"{address.authority}:80"
            self._package = PackageLoads(name, host, settings.api_key, silence=settings.load_time)
            ways.insert(0, self._package)
        self._residence = Residence(name, self._lists, ways, ttl=None if ttl < 0 else ttl)
        self._ttl = call.stay(ttl) if settings.jit and settings.ttl is not None else None
        self._chat = upstream.head("POST", "/v1/chat/completions")
        self._completion = upstream.head("POST", "/v1/completions")
        self._embeddings = upstream.head("POST", "/v1/embeddings")

    def configure(self, name: str, settings: EntrySettings) -> None:
        """Take what the entry of one model says."""
        self._own[name] = settings.load

    async def models(self) -> list[ModelInfo]:
        """The configured catalog, or what is on its disk, and instances that its user gave names. Raises BackendError."""
        if self._catalog.fixed:
            return self._catalog.fixed
        found: dict[str, ModelInfo] = {}
        for row in await self._lists.ask():
            found[row.info.id] = row.info
            for resident in row.residents or ():
                found.setdefault(resident.id, structs.replace(row.info, id=resident.id))
        return self._catalog.keep(list(found.values()))

    async def details(self, name: str) -> ModelDetails:
        """What it tells of the model. Raises ModelNotFound, BackendError."""
        found = find(await self._lists.ask(), name)
        if found is None:
            raise ModelNotFound(f"model '{name}' not found", param="model")
        info = structs.replace(found.listed.info, id=name, backend=self._upstream.name)
        told: dict[str, str | int] = {"general.architecture": info.family, "general.size_label": info.parameter_size}
        if info.family and info.context_length:
            told[f"{info.family}.context_length"] = info.context_length
        metadata = {key: Raw(msgspec.json.encode(value)) for key, value in told.items() if value}
        return ModelDetails(info=self._probed.info(info), metadata=metadata)

    async def others(self) -> list[LoadedModel]:
        """What is in its memory beside what our handles hold. Raises BackendError."""
        rows = await self._lists.ask()
        self._residence.look(rows)
        return [
            LoadedModel(
                info=structs.replace(self._probed.info(row.info), id=one.id, backend=self._upstream.name),
                size=row.info.size,
                context_length=one.context,
            )
            for row in rows
            for one in row.residents or ()
            if not self._residence.holds(one.id)
        ]

    async def free(self, name: str) -> bool:
        """Have it let go of what answers to this name, its user's own instances too. Raises BackendError."""
        return await self._residence.free(name)

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> LMStudioModel:
        """Load the model there, unless it is; with ``jit`` only a handle is made."""
        hold = None
        info = self._catalog.info(name)
        if not self._settings.jit:
            config = settled(self._settings.load, self._own.get(name, Loading()), options=options)
            hold = await self._residence.take(name, config, tell)
            info = structs.replace(self._probed.info(hold.listed.info), id=name, backend=self._upstream.name)
        return LMStudioModel(
            self._upstream,
            info,
            structs.replace(self._probed.honours(name), dialect=""),
            chat=self._chat,
            completion=self._completion,
            embeddings=self._embeddings,
            residence=self._residence,
            hold=hold,
            ttl=self._ttl,
        )

    async def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:  # noqa: ARG002
        """Have LM Studio download a model. Closing this stops the download, where the package is there to say so."""
        yield Progress(status="pulling manifest")
        source = call.read_source(name)
        if self._package is not None and find(await self._lists.ask(), source.model) is None:
            package = self._package
            try:
                async with aclosing(told(lambda tell: package.download(source, tell))) as steps:
                    async for step in steps:
                        yield step
            except (ModelNotFound, NoWay):
                pass  # its search does not know all that can be downloaded
            else:
                return
        async with aclosing(self._watched(source)) as steps:
            async for step in steps:
                yield step

    async def _watched(self, source: call.Source) -> AsyncGenerator[Progress, None]:
        """A download by REST, looked at until it ends; there is no word to stop it."""
        start = self._upstream.head("POST", "/api/v1/models/download")
        found = call.read_download(await self._upstream.control(start, call.write_download(source)))
        if found is None:
            raise NotImplementedHere("this LM Studio downloads nothing by its REST: version 0.4 or newer does")
        job, progress = found
        look = None
        last = None
        while progress is not None:
            if progress != last:
                last = progress
                yield progress
            if not job:
                raise BackendError("LM Studio does not tell how far the download is")
            await asyncio.sleep(LOOK)
            look = look or self._upstream.head("GET", f"/api/v1/models/download/status/{_segment(job)}")
            found = call.read_download(await self._upstream.control(look))
            if found is None:
                raise BackendError("LM Studio has forgotten the download")
            progress = found[1]


def base_path(path: str) -> str:
    """What stands before ``/v1`` and ``/api``."""
    for ending in ("/v1", "/api/v0", "/api/v1", "/api"):
        if path.endswith(ending):
            return path.removesuffix(ending)
    return path


def _read_error(status: int, body: bytes, retry_after: str | None) -> GatewayError:
    """As of any OpenAI-compatible server; and where another server has none of the routes, that is told apart."""
    error = read_error(status, body, retry_after)
    if status in {404, 405} and not isinstance(error, NotFound):
        return NotFound(error.message)
    return error


def _unused(_: bytes) -> list[ModelInfo]:
    return []


def _segment(job: str) -> str:
    """A job's id as it may stand in a path."""
    if not job.isascii() or not job.replace("_", "").replace("-", "").isalnum():
        raise BackendError("LM Studio gave the download a name that cannot be asked for")
    return job
