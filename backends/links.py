"""Links in requests, before anything is connected: what a link says, whether its host is listed, which addresses are safe.

Strict on purpose: two readers of one odd URL see two hosts, and what the one allows the other connects to. What is not
plainly ``http(s)://host[:port]/path?query`` is no link here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import quote, urljoin

from msgspec import Struct

LINK_LIMIT = 8192
"""Characters of a link."""

_LINK = re.compile(r"(https?)://([^\s/?#\\@:\[\]]+)(?::([0-9]{1,5}))?(/[^#]*|\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_ENTRY = re.compile(r"(\*\.)?([^\s/?#\\@:*\[\]]+)(?::([0-9]{1,5}))?")
_AMBIGUOUS = frozenset("ßς\u200c\u200d")
"""Characters that the two standards of international names turn into different names."""
_PRINTABLE = "!$%&'()*+,-./:;=?@[]_~"

_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_UNSAFE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata server is among them
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.175.48.0/24",  # AS112
        "168.63.129.16/32",  # a cloud's own server on every machine of its customers
        "224.0.0.0/4",  # multicast
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
"""What ``ipaddress`` takes for global, in some release of Python at least."""
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})


class Link(Struct, frozen=True):
    """Where a link leads. ``host`` is ASCII, in lower case, without a dot at its end."""

    tls: bool
    host: str
    port: int
    target: str
    """Path and query, percent-encoded."""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class Entry(Struct, frozen=True):
    """A host that links may lead to. ``port`` 0: the scheme's own."""

    name: str
    below: bool
    """Every name below it, and not it."""
    port: int

    def allows(self, link: Link) -> bool:
        """Whether ``link`` leads there."""
        if link.port != (self.port or (443 if link.tls else 80)):
            return False
        return link.host.endswith(f".{self.name}") if self.below else link.host == self.name


def read_entry(text: str) -> Entry:
    """An item of ``images.hosts``: a name, ``*.name``, either with ``:port``. Raises ValueError."""
    found = _ENTRY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no host: images.example.org or *.example.org, with :port where it is unusual")
    return Entry(_host(found[2]), found[1] is not None, _port(found[3]))


def check_entry(text: str) -> None:
    """Raises ValueError for an item of ``images.hosts`` to which no link can ever lead."""
    entry = read_entry(text)
    try:
        ipaddress.ip_address(entry.name)
    except ValueError:
        return
    if not is_public(entry.name):
        raise ValueError(f"{text!r} is no public address: links never lead to others")


def read_link(text: str) -> Link:
    """What ``text`` says, exactly.

    Raises:
        ValueError: it is no plain http or https link; the message says why, in words for the caller.
    """
    if len(text) > LINK_LIMIT:
        raise ValueError(f"it has more than {LINK_LIMIT} characters")
    found = _LINK.fullmatch(text) if text.isprintable() else None
    if found is None:
        raise ValueError("it is no plain http(s) link (credentials, blanks and addresses in brackets are not accepted)")
    tls = found[1].lower() == "https"
    target = found[4] or "/"
    return Link(
        tls,
        _host(found[2]),
        _port(found[3]) or (443 if tls else 80),
        quote(target if target[0] == "/" else f"/{target}", safe=_PRINTABLE),
    )


def read_redirect(link: Link, location: bytes) -> Link:
    """Where a server sends us on to. Raises ValueError as ``read_link``, and where TLS would be lost."""
    try:
        text = location.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("it is no plain http(s) link") from error
    there = read_link(urljoin(link.origin + link.target, text))
    if link.tls and not there.tls:
        raise ValueError("it leads from https to http")
    return there


def entry_for(link: Link, entries: Iterable[Entry]) -> Entry | None:
    """The first of ``entries`` that allows ``link``."""
    return next((entry for entry in entries if entry.allows(link)), None)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public network, and to no machine or net of our own by any way to write it.

    IPv6 addresses that hold an IPv4 one (mapped, 6to4, NAT64, Teredo, ISATAP) are refused, whatever they hold.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6 and (ip not in _GLOBAL_V6 or int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP):
        return False
    return ip.is_global and not any(ip in network for network in _UNSAFE if network.version == ip.version)


def _host(text: str) -> str:
    name = text
    if not name.isascii():
        if not _AMBIGUOUS.isdisjoint(name):
            raise ValueError("its host must be written in ASCII (xn--...)")
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise ValueError("its host is no host name") from None
    name = name.lower().removesuffix(".")
    if not _HOST.fullmatch(name):
        raise ValueError("its host is no host name")
    return name


def _port(digits: str | None) -> int:
    if digits is None:
        return 0
    port = int(digits)
    if not 0 < port < 65536:
        raise ValueError("its port is none")
    return port
