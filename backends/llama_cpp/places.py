"""Which slot of the server core a request gets, where requests of several tenants share one.

The core gives a request the slot whose cache resembles its prompt most, whoever filled it; how long a prompt then takes,
and the count of cached tokens, would tell one client what another has asked. So each request is pinned to a slot here, and
one that another tenant has used is computed anew. The core tells no tokens, so likeness is that of the bodies, whose
conversations stand first. As long as there is only one tenant the core chooses, for it knows better.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from backends.llama_cpp.common import common

_STRANGE = "\0"
"""The tenant of a slot of which nothing is known; nobody's."""


class _Named(Struct):
    dragoman_tenant: str = ""


_named = msgspec.json.Decoder(_Named)


def tenant_of(body: bytes) -> str:
    """Whose request it is. Raises msgspec.MsgspecError: it is no request."""
    return _named.decode(body).dragoman_tenant


class Place:
    """One slot."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.tenant = _STRANGE
        self.body = b""
        self.taken = False
        self.used = 0


def choose(places: list[Place], body: bytes, tenant: str) -> Place | None:
    """A free place; the tenant's own where it has answered something alike, else the one used longest ago."""
    free = [place for place in places if not place.taken]
    alike = {place.number: common(place.body, body) for place in free if place.tenant == tenant}
    own = [place for place in free if place.number in alike and 2 * alike[place.number] >= len(place.body)]
    if own:
        return max(own, key=lambda place: (alike[place.number], place.used))
    return min(free, key=lambda place: place.used, default=None)


class Places:
    """One core's slots. Any thread may take one."""

    def __init__(self, slots: int) -> None:
        self._places = [Place(number) for number in range(slots)]
        self._changed = threading.Condition()
        self._several = False
        self._loose = 0
        """Requests that run wherever the core has put them."""
        self._uses = 0

    @contextmanager
    def taken(self, body: bytes) -> Iterator[bytes]:
        """The body as the core is to get it, while its place is taken. Waits where all are."""
        tenant = tenant_of(body)
        with self._changed:
            self._several = self._several or bool(tenant)
            place = None
            if self._several:
                self._changed.wait_for(lambda: not self._loose and choose(self._places, body, tenant))
                place = choose(self._places, body, tenant)
                assert place is not None
                self._uses += 1
                strange = place.tenant != tenant
                place.taken, place.tenant, place.body, place.used = True, tenant, body, self._uses
                body = b'%b,"id_slot":%d%b}' % (body[:-1], place.number, b',"cache_prompt":false' if strange else b"")
            else:
                self._loose += 1
        try:
            yield body
        finally:
            with self._changed:
                if place is None:
                    self._loose -= 1
                else:
                    place.taken = False
                self._changed.notify_all()
