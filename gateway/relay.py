"""Between a client and a server of one dialect nothing needs translating: who may have the bytes as they are, and what is told of it."""

from __future__ import annotations

from msgspec import structs

from backends.base import Backend, Relays
from canonical.features import Feature
from canonical.report import HONOURED, Honours, Report, report
from canonical.requests import Embed, Generate
from gateway.router import Route

_ALL = dict.fromkeys(Feature, HONOURED)


def relayer(route: Route, backend: Backend, request: Generate | Embed, path: str) -> Relays | None:
    """The backend behind ``route`` as one that takes ``request`` in its own words; None: it must be translated.

    ``path`` is the one of the request's dialect that it came to, without its prefix.
    """
    if route.entry is None or not route.entry.relay or not isinstance(backend, Relays):
        return None
    return backend if backend.dialect == request.origin.dialect and path in backend.relayed else None


def passed_on(request: Generate | Embed) -> Report:
    """What becomes of the fields of a relayed request: nothing is lost on the way, and what its server does nobody knows."""
    origin = structs.replace(request.origin, verbatim=True)
    return report(structs.replace(request, origin=origin), Honours(_ALL, origin.dialect))
