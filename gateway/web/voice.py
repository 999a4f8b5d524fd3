"""How a dialect words what is not a stream, and the id that every answer bears."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from canonical.errors import GatewayError


class Voice(Struct, frozen=True):
    """How a dialect words what is not a stream."""

    name: str
    json_type: bytes
    error_status: Callable[[GatewayError], int]
    error_body: Callable[[GatewayError], bytes]
    id_header: bytes = b"x-request-id"
    id_prefix: bytes = b""
    """Before a request's id; where there is one, the body of an error has the id too, as ``request_id``."""
    stray: Callable[[str, str], str] | None = None
    """A method and a path that there is not -> the words for it; None: the gateway's own."""
    also: Callable[[Iterable[tuple[bytes, bytes]]], Sequence[tuple[bytes, bytes]]] | None = None
    """A request's headers -> those that every answer to it has besides, errors too; None: there are none."""

    def besides(self, headers: Iterable[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """The headers that every answer of the dialect has, by the request's."""
        return () if self.also is None else self.also(headers)

    def named(self, id: str) -> tuple[bytes, bytes]:
        """The header that tells a request's id, which people ask about it by."""
        return self.id_header, self.id_prefix + id.encode()

    def refusal(self, error: GatewayError, id: str) -> bytes:
        """The body of an error."""
        body = self.error_body(error)
        return body[:-1] + b',"request_id":"%b"}' % self.named(id)[1] if self.id_prefix else body


def new_id() -> str:
    """A name for a request, no secret: ``os.urandom`` is a system call."""
    return f"{random.getrandbits(96):024x}"
