"""Where models may come from, and go to. Clients name the source of a pull, so what they name must be listed by the operator.

A listed host may stand anywhere, on a private address too: the operator said so. ``*`` lists every host with a public
address. Redirects lead to listed hosts or to public addresses, without our credentials.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from backends.base import Section
from backends.links import Entry, Link, entry_for, is_public, read_entry
from backends.transport import Resolve, look_up
from canonical.errors import BackendError, BackendUnavailable, InvalidRequest

OLLAMA, HUGGING_FACE = "registry.ollama.ai", ("hf.co", "huggingface.co")
ANY = "*"


class Source(Section, frozen=True):
    """A host of ``pull.hosts`` and what opens it."""

    host: str
    user: str = ""
    password: str = ""
    """With ``user``: for a registry that hands out tokens, or wants them with each request."""
    token: str = ""
    """Or a token as it is."""

    def __post_init__(self) -> None:
        """Messages never quote a secret."""
        if not all(text.isascii() and text.isprintable() for text in (self.user, self.password, self.token)):
            raise ValueError("user, password or token has a character that no header can carry")
        if self.host == ANY and (self.user or self.token):
            raise ValueError("credentials belong to one host")

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Source(host={self.host!r})"


class PullSettings(Section, frozen=True):
    """Where models may be fetched from, and how."""

    hosts: tuple[str | Source, ...] = (OLLAMA, *HUGGING_FACE)
    """Names, ``*.name``, either with ``:port``; ``*``: all with a public address."""
    connections: int = 4
    """To one file at a time."""

    def __post_init__(self) -> None:
        """Refuse what can never be fetched from."""
        Hosts(self.hosts)
        if not 1 <= self.connections <= 32:
            raise ValueError(f"connections must be 1 to 32, not {self.connections}")


class Hosts:
    """The list, and the addresses that it lets us connect to."""

    def __init__(
        self,
        listed: Iterable[str | Source],
        *,
        resolve: Resolve = look_up,
        public: Callable[[str], bool] = is_public,
    ) -> None:
        """Raises ValueError: an item is no host."""
        self._sources: dict[Entry, Source] = {}
        self._any = False
        self._resolve = resolve
        self._public = public
        for item in listed:
            source = Source(host=item) if isinstance(item, str) else item
            if source.host == ANY:
                self._any = True
            else:
                self._sources[read_entry(source.host)] = source

    def plus(self, link: Link) -> Hosts:
        """These, and a host that the operator's environment names."""
        more = Hosts((), resolve=self._resolve, public=self._public)
        more._any = self._any
        more._sources = {**self._sources, Entry(link.host, below=False, port=link.port): Source(host=link.host)}
        return more

    def check(self, link: Link) -> None:
        """Raises InvalidRequest where a client may not send us."""
        if not self._any and entry_for(link, self._sources) is None:
            raise InvalidRequest(
                f"models come from and go to only those hosts that the operator lists (pull.hosts in the configuration), and "
                f"{link.host[:100]!r} is not listed{_port(link)}",
                param="model",
            )

    def source(self, link: Link) -> Source | None:
        """What opens the host."""
        entry = entry_for(link, self._sources)
        return None if entry is None else self._sources[entry]

    def tells_secrets(self, link: Link) -> bool:
        """Whether credentials would go over a network to the host. To this machine itself they do not."""
        source = self.source(link)
        return source is not None and bool(source.user or source.token) and not _is_here(link.host)

    async def addresses(self, link: Link) -> Sequence[str]:
        """Where to connect to. Raises BackendError: nowhere, or to an address that only a listed host may have."""
        try:
            found = await self._resolve(link.host, link.port)
        except (OSError, UnicodeError):
            found = ()
        if entry_for(link, self._sources) is not None:
            if not found:
                raise BackendUnavailable(f"the host {link.host[:100]!r} is not known")
        elif not found or not all(map(self._public, found)):
            # Private and unknown names alike: which of the two would tell what names an inner network has.
            raise BackendError(f"the host {link.host[:100]!r} has no public address, and is not listed")
        return found


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(link: Link) -> str:
    return "" if link.port == (443 if link.tls else 80) else f" with port {link.port}"
