"""The routes of a listener: what nobody serves is refused in the words of the dialect that owns the path."""

from __future__ import annotations

import pytest

from tests.asgi import House, message_of
from tests.houses import HELLO, Home, tells
from tests.virtual_time import run


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/api/nothing", "/api"),
        ("/v1/nothing", "/v1"),
        ("/nothing", "/api"),
        ("/v1", "/api"),
        ("/models/a/b/c", "/v1"),
        ("/api/chat/x", "/api"),
        ("/%2e%2e/x", "/api"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_route_speaks_the_dialect_of_its_prefix(path, dialect, method):
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        call = await house.ask(method, path, b"{}")
        expected = {404} if path != "/models/a/b/c" else {404, 405, 501}
        assert call.status in expected
        assert message_of(dialect, call.json())
        assert len(house.access()) == 1
        await house.close()

    run(whole())


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/chat", b"POST"),
        ("PUT", "/v1/chat/completions", b"POST"),
        ("HEAD", "/api/ps", b"GET"),
        ("POST", "/api/tags", b"GET, HEAD"),
        ("POST", "/v1/models", b"GET, HEAD"),
        ("PATCH", "/v1/models/a", None),
        ("POST", "/health/live", b"GET, HEAD"),
        ("POST", "/", b"GET, HEAD"),
        ("BREW", "/api/chat", b"POST"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(method, path, allow):
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        call = await house.ask(method, path, b"{}")
        assert call.status == 405
        assert message_of("/v1" if path.startswith("/v1") else "/api", call.json())
        assert call.headers[b"allow"]
        if allow is not None:
            assert call.headers[b"allow"] == allow
        assert len(house.access()) == 1
        await house.close()

    run(whole())
