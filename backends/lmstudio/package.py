"""LM Studio's official package: loads with progress and with every setting, and downloads; both can be stopped.

The package's client belongs to the task that opened it and does not survive a broken connection. So each load and each
unload opens one of its own, which takes some 20 ms of local handshakes, and nothing has to be mended after a restart.
Calls that the server does not understand are never answered: every one has a deadline. Of the package's private names
are used: the channels of loads and downloads (its public calls cannot be cancelled), its handshake (1.5 knows no token), and the two
places where it asks httpx for a connection (a proxy in the environment would get what is meant for this machine).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Any

from adapters.lmstudio.call import Listed, Source
from backends import threads
from backends.base import Tell
from backends.lmstudio.loads import NoWay, Owned, for_want_of_memory
from backends.lmstudio.settings import TOKEN, Loading, for_package
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable, GatewayError, ModelNotFound
from canonical.progress import Progress

CALL_TIME = 20.0
"""Seconds that anything but a load may take."""
STOP_TIME = 5.0
"""Seconds that the word on a cancelled load may take."""
FOUND = 25
"""Results of a search: LM Studio gives no more."""
STEPS = 1000
"""A load's progress comes as a share; it is told in so many steps."""


logger = logging.getLogger("dragoman.lmstudio")


def installed() -> bool:
    """Whether the package is there. It is imported when it is needed first: that takes half a second."""
    return importlib.util.find_spec("lmstudio") is not None


class PackageLoads:
    """By the package, at ``host:port``."""

    def __init__(self, name: str, host: str, token: str, *, silence: float) -> None:
        """``silence``: seconds that a load may go without progress."""
        self._name, self._host, self._silence = name, host, silence
        self._token = TOKEN.fullmatch(token)
        self._closing: set[asyncio.Future[None]] = set()

    async def load(self, listed: Listed, config: Loading, ttl: float | None, tell: Tell) -> Owned:
        """Load a new instance. Cancelling sends the server a cancel and waits for its word on it."""
        key, embeds = listed.info.id, listed.embeds
        async with self._client() as (sdk, client):
            session = client.embedding if embeds else client.llm
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(self._silence) as deadline:

                    def progress(share: float) -> None:
                        deadline.reschedule(loop.time() + self._silence)
                        tell(Progress(status="loading model", total=STEPS, completed=round(share * STEPS)))

                    types = session._API_TYPES  # noqa: SLF001  see the module
                    endpoint = sdk.json_api.LoadModelEndpoint(
                        key,
                        None,
                        None if ttl is None else int(ttl),
                        types.REQUEST_NEW_INSTANCE,
                        types.MODEL_LOAD_CONFIG,
                        for_package(config, embeds=embeds),
                        progress,
                    )
                    result = await _outcome(session, endpoint)
                    return Owned(result.identifier, embeds, result.instance_reference)
            except TimeoutError as error:
                raise BackendTimeout(f"LM Studio made no progress with {key!r} for {self._silence:g} s") from error

    async def unload(self, owned: Owned) -> None:
        """Unload it, unless another one bears its name now."""
        async with self._client() as (_, client), asyncio.timeout(CALL_TIME):
            session = client.embedding if owned.embeds else client.llm
            try:
                info = await session.get_model_info(owned.id)
                if owned.reference in {"", info.instance_reference}:
                    await session.unload(owned.id)
            except Exception as error:
                worded = self._worded(error)
                if not isinstance(worded, ModelNotFound):
                    raise worded from error

    async def download(self, source: Source, tell: Tell) -> None:
        """Have a model downloaded; cancelling stops that. Raises ModelNotFound where its search does not find it."""
        async with self._client() as (_, client), asyncio.timeout(CALL_TIME) as deadline:
            loop = asyncio.get_running_loop()

            def progress(update: Any) -> None:
                deadline.reschedule(loop.time() + self._silence)
                tell(Progress(status="downloading", total=update.total_bytes, completed=update.downloaded_bytes))

            def last() -> None:
                deadline.reschedule(loop.time() + self._silence)
                tell(Progress(status="verifying"))

            for found in await client.repository.search_models(source.model, limit=FOUND):
                if found.search_result.identifier.identifier.casefold() == source.model.casefold():
                    break
            else:
                raise ModelNotFound(f"LM Studio finds no model '{source.model}'", param="model")
            options = await found.get_download_options()
            wanted = [option for option in options if _wanted(option.info, source.quantization)]
            if not wanted:
                raise ModelNotFound(f"there is no {source.quantization} of '{source.model}'", param="model")
            endpoint = wanted[0]._get_download_endpoint(progress, last)  # noqa: SLF001
            deadline.reschedule(loop.time() + self._silence)
            await _outcome(client.repository, endpoint)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[tuple[Any, Any]]:
        """The package and a connected client of it, for this task alone. Its failures leave in our words."""
        try:
            sdk, client_class = await threads.call(_package, name="lmstudio")
        except ImportError as error:
            raise NoWay("to load with LM Studio's own protocol: pip install 'dragoman[lmstudio]'") from error
        client = client_class(self._host, self._token)
        try:
            with self._words():
                try:
                    async with asyncio.timeout(CALL_TIME):
                        await client.__aenter__()
                except (sdk.LMStudioClientError, OSError) as error:
                    # Whether the server is down, or speaks REST alone, is told by the other way.
                    raise NoWay("LM Studio's own protocol is not spoken there") from error
                yield sdk, client
        finally:
            await self._close(client)

    async def _close(self, client: Any) -> None:
        """Let go of a client. One whose server hangs has time of its own to end: it would not be cancelled."""
        closing = asyncio.ensure_future(client.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)
        await asyncio.wait((closing,), timeout=STOP_TIME)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and closing.exception() is not None:
            logger.debug("closing the client failed: %s", closing.exception())

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except GatewayError:
            raise
        except Exception as error:
            raise self._worded(error) from error

    def _worded(self, error: Exception) -> GatewayError:
        """What the package raised, as one of our errors. The server's texts may name its folders: they stay out."""
        sdk = importlib.import_module("lmstudio")
        httpx = importlib.import_module("httpx")
        if isinstance(error, GatewayError):
            return error
        if isinstance(error, sdk.LMStudioServerError):
            told = getattr(error, "server_error", None)
            data = getattr(told, "display_data", None) or {}
            code = data.get("code", "") if isinstance(data, dict) else ""
            if code in {"generic.noModelMatchingQuery", "generic.pathNotFound", "generic.identifierNotFound"}:
                return ModelNotFound("LM Studio has no such model", param="model")
            if "Authentication failed" in str(error):
                return self._refused()
            title = getattr(told, "title", None) or "the request failed"
            room = for_want_of_memory(f"{title} {getattr(told, 'cause', None)}")
            return room or BackendError(f"LM Studio: {str(title)[:200]}")
        if isinstance(error, TimeoutError):
            return BackendTimeout(f"backend {self._name!r}: LM Studio did not answer in time")
        if isinstance(error, sdk.LMStudioClientError | httpx.HTTPError | OSError):
            return BackendUnavailable(f"backend {self._name!r} cannot be reached by LM Studio's own protocol")
        if isinstance(error, ValueError) and not isinstance(error, sdk.LMStudioError):
            return self._refused()  # 1.5 trips over the text of a refusal
        return BackendError(f"LM Studio's protocol failed: {type(error).__name__}")

    def _refused(self) -> BackendError:
        return BackendError("the backend refused the gateway's credentials", code="backend_credentials")


async def _outcome(session: Any, endpoint: Any) -> Any:
    """What becomes of one load or download through the package's channel."""
    async with session._create_channel(endpoint) as channel:  # noqa: SLF001
        work = asyncio.ensure_future(channel.wait_for_result())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if not work.done():
                await _stop(session, channel, work)
            raise


def _wanted(option: Any, quantization: str) -> bool:
    """Whether this is the file to take."""
    if not quantization:
        return bool(option.recommended)
    return quantization.casefold() in {(option.quantization or "").casefold(), option.name.casefold()}


async def _stop(session: Any, channel: Any, work: asyncio.Future[Any]) -> None:
    """Cancel a load or a download; a load that was too far gone is unloaded. Raises nothing but a cancellation."""
    try:
        async with asyncio.timeout(STOP_TIME):
            await channel.cancel()
            result = await work
            if hasattr(session, "unload"):
                await session.unload(result.identifier)
    except Exception:  # noqa: BLE001  the word on a cancelled load is an error
        work.cancel()


@lru_cache(1)
def _package() -> tuple[Any, Any]:
    """The package, and its client as we need it."""
    import ssl

    import httpx
    import lmstudio
    import lmstudio.json_api

    inner: Any = importlib.import_module("lmstudio._ws_impl")
    connect = inner.aconnect_ws
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the system's certificates take 30 ms to read, and serve nothing

    def http_client() -> httpx.AsyncClient:
        return httpx.AsyncClient(trust_env=False, verify=nobody)

    @asynccontextmanager
    async def direct(url: str) -> AsyncIterator[Any]:
        async with http_client() as http, connect(url, http) as socket:
            yield socket

    inner.aconnect_ws = direct  # it asks for one by name, and lets nobody hand it in
    # What fails is raised, and told by us. Its loggers bear the names of its classes.
    for name in ("AsyncWebsocketHandler", "LoadModelEndpoint", "_AsyncLMStudioWebsocket", "ChannelHandler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    class Client(lmstudio.AsyncClient):
        def __init__(self, host: str, token: Any) -> None:
            self._token = token
            super().__init__(host)

        def _create_auth_message(self, *_: Any) -> Any:
            return self._format_auth_message(*(self._token.groups() if self._token else ()))

        @staticmethod
        async def _query_probe_url(url: str) -> httpx.Response:
            async with http_client() as http:
                return await http.get(url, timeout=5)

    return lmstudio, Client
