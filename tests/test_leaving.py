"""A client that leaves ends its work, through every backend: the slot is free again, and nothing is lost or leaked."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import ollama
import pytest

from tests.serving import Served
from tests.test_end_to_end import FRANCE, PARIS
from tests.ways import INSIDE, three_ways

ONE_SLOT = INSIDE.replace("slots: 16", "slots: 1")
LONG = {
    # Each reaches the model through backends of its own dialect, whose unknown fields travel.
    "/v1/chat/completions": {"stream": True, "temperature": 0, "ignore_eos": True, "max_tokens": 3900},
    "/api/chat": {"stream": True, "options": {"temperature": 0, "ignore_eos": True, "num_predict": 3900}},
}
OPENAI, OLLAMA = LONG
WAYS = [("pip", OPENAI), ("pip", OLLAMA), ("pip-openai", OPENAI), ("pip-ollama", OLLAMA)]


@pytest.fixture(scope="module")
def gateways() -> Iterator[tuple[Served, Served]]:
    with three_ways(ONE_SLOT) as both:
        yield both


def leave(gateway: Served, model: str, path: str, pieces: int) -> None:
    """Start a long stream, read some pieces of it (0: leave right after the request), and reset the connection."""
    address = urlsplit(gateway.url)
    body = json.dumps({"model": model, "messages": FRANCE, **LONG[path]}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        seen = b""
        while seen.count(b'"content"') < pieces:
            piece = connection.recv(65536)
            assert piece, seen
            seen += piece
        # Zero seconds to linger: the close is a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def eventually(holds: Callable[[], bool]) -> None:
    """Poll until something holds that another process does; the test's own time limit ends a wait in vain."""
    pause = 0.01
    while not holds():
        time.sleep(pause)


@pytest.mark.parametrize("pieces", [0, 5])
@pytest.mark.parametrize(("model", "path"), WAYS, ids=[f"{model}{path.replace('/', '-')}" for model, path in WAYS])
def test_m5_the_only_slot_is_free_again(gateways: tuple[Served, Served], model: str, path: str, pieces: int) -> None:
    a, b = gateways
    inside = a if model == "pip" else b
    left = inside.log().count(" 499 ")
    for _ in range(3):
        leave(a, model, path, pieces)
    client = ollama.Client(a.url)
    assert client.chat(model, FRANCE, options={"temperature": 0}).message.content == PARIS
    if pieces:
        # The gateway that holds the model saw each client go. (Who leaves at once may never have reached it.)
        eventually(lambda: inside.log().count(" 499 ") >= left + 3)
    assert " 3900 tokens" not in inside.log(), "somebody generated to the end for nobody"
