"""What a backend's ``pull`` and ``push`` do: find out where a name leads, and go there.

qwen3, acme/bot:8b, registry.example.org/acme/bot        a registry of Ollama's protocol
hf.co/org/repo, hf.co/org/repo:Q8_0, hf.co/org/repo/file.gguf
https://host/file.gguf#sha256=<64 hex>
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable

from adapters.ollama import names
from adapters.ollama.names import Name
from backends.base import Tell
from backends.fetching import huggingface, plain, pushing, registry
from backends.fetching.blobs import Blobs
from backends.fetching.hosts import HUGGING_FACE, OLLAMA, Hosts, PullSettings
from backends.fetching.patience import Pace
from backends.fetching.web import PATIENCE, Web
from backends.links import Link, read_link
from backends.store import Store
from backends.telling import told
from backends.transport import Limits, TlsFailed
from canonical.errors import BackendError, InvalidRequest
from canonical.progress import Progress

_HTTP, _HTTPS = "http://", "https://"


class Fetching:
    """Models into a store, and out of it."""

    def __init__(
        self,
        store: Store,
        settings: PullSettings | None = None,
        *,
        pace: Pace | None = None,
        hosts: Hosts | None = None,
        limits: Limits = PATIENCE,
    ) -> None:
        settings = settings or PullSettings()
        self._store = store
        self._pace = pace or Pace(connections=settings.connections)
        self._hosts = hosts or Hosts(settings.hosts)
        self._limits = limits

    def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Fetch a model, or what is new of it; closing the generator pauses.

        Raises:
            InvalidRequest: no name, or a host that is not listed. ModelNotFound, BackendError, StorageFailed, Unsupported.
        """
        return told(lambda tell: _worded(self._pull(name, tell, insecure=insecure)))

    def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Send a model to the registry that its name begins with. Raises as ``pull`` does."""
        return told(lambda tell: _worded(self._push(name, tell, insecure=insecure)))

    async def _pull(self, text: str, tell: Tell, *, insecure: bool) -> None:
        if plain.is_address(text) and not _at_hugging_face(text):
            address = plain.read_address(text)
            self._check(address.link, insecure=insecure)
            async with Web(self._hosts, limits=self._limits) as web:
                await plain.pull(address, Blobs(self._store, web, self._pace), tell)
            return
        name = _hub_name(text) or _parsed(text)
        if name.host.lower() in HUGGING_FACE:
            self._hosts.check(Link(tls=True, host=name.host.lower(), port=443, target="/"))
            async with Web(self._hosts.plus(huggingface.endpoint()), limits=self._limits) as web:
                await huggingface.pull(name, Blobs(self._store, web, self._pace), tell)
            return
        origin = self._origin(text, name, insecure=insecure)
        async with Web(self._hosts, limits=self._limits) as web:
            source = registry.Registry(origin, name, web=web, pace=self._pace)
            await registry.pull(source, name, Blobs(self._store, web, self._pace), tell)

    async def _push(self, text: str, tell: Tell, *, insecure: bool) -> None:
        name = _parsed(text)
        origin = self._origin(text, name, insecure=insecure)
        async with Web(self._hosts, limits=self._limits) as web:
            target = registry.Registry(origin, name, web=web, pace=self._pace)
            await pushing.push(target, name, self._store, tell, pace=self._pace)

    def _origin(self, text: str, name: Name, *, insecure: bool) -> Link:
        """The registry of a name. ``insecure`` without a scheme means none, as for Ollama, but never for its own."""
        plainly = insecure and not text.lower().startswith(_HTTPS) and name.host.lower() != OLLAMA
        scheme = _HTTP if plainly or text.lower().startswith(_HTTP) else _HTTPS
        try:
            link = read_link(f"{scheme}{name.host}/")
        except ValueError:
            raise InvalidRequest("invalid model name", param="model") from None
        self._check(link, insecure=insecure)
        return link

    def _check(self, link: Link, *, insecure: bool) -> None:
        if not link.tls and not insecure:
            raise InvalidRequest("insecure protocol http", param="insecure")
        self._hosts.check(link)
        if not link.tls and self._hosts.tells_secrets(link):
            raise InvalidRequest("the host's credentials go nowhere without TLS", param="insecure")


async def _worded(work: Awaitable[None]) -> None:
    """A failure of TLS tells what a caller who knows better can do."""
    try:
        await work
    except TlsFailed as error:
        hint = ": a source without TLS needs insecure" if error.message.endswith("TLS failed") else ""
        raise BackendError(f"{error.message}{hint}", code=error.code) from None


def _parsed(text: str) -> Name:
    scheme, found, _ = text.partition("://")
    name = names.parse(text)
    if name is None or (found and scheme.lower() not in {"http", "https"}):
        raise InvalidRequest("invalid model name", param="model")
    return name


def _at_hugging_face(text: str) -> bool:
    return text.partition("://")[2].partition("/")[0].lower() in HUGGING_FACE


def _hub_name(text: str) -> Name | None:
    """``hf.co/org/repo/file.gguf``, or the address that a browser shows for it, as ``hf.co/org/repo:file.gguf``."""
    rest = text[len(_HTTPS) :] if text.lower().startswith(_HTTPS) else text
    host, *path = rest.partition("#")[0].partition("?")[0].split("/")
    if host.lower() not in HUGGING_FACE or len(path) < 3:
        return None
    name = Name(host, path[0], path[1], path[-1])
    if not names.valid(name) or not name.tag.lower().endswith(".gguf"):
        raise InvalidRequest("invalid model name", param="model")
    return name
