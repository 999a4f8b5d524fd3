"""Who may call: hosts, origins, sites, keys; and what a browser is told."""

from __future__ import annotations

import hmac

import pytest

from gateway.settings import Config, Cors, Listener
from gateway.web import anthropic, guard, health, ollama, openai
from tests.asgi import Call, House
from tests.houses import HELLO, Home, tells
from tests.virtual_time import run

KEYS = ("first-key-123", "second-key-456")
EVIL = b"https://evil.example"


def ask(method: str, path: str, *headers: tuple[bytes, bytes], keys=(), body=b"", **listener) -> Call:
    """One request to a fresh gateway whose listener is as given."""

    async def whole() -> Call:
        config = Config(keys=tuple(keys))
        house = House(listener=Listener(port=11434, **listener), config=config, a=Home(tells(HELLO)))
        call = await house.ask(method, path, body, headers)
        await house.close()
        return call

    return run(whole())


def cors_of(call: Call) -> dict[bytes, bytes]:
    return {name: value for name, value in call.headers.items() if name.startswith(b"access-control")}


# Hosts


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"127.0.0.1:11434", True),
        (b"127.0.0.1", True),
        (b"127.5.6.7:1", True),
        (b"localhost", True),
        (b"localhost:11434", True),
        (b"localhost:", True),
        (b"LOCALHOST:1", True),
        (b"app.localhost:1", True),
        (b"[::1]:11434", True),
        (b"[::1]", True),
        (b"my-machine.lan:11434", True),
        (b"My-Machine.LAN", True),
        (b"", True),
        (b"evil.example", False),
        (b"evil.example:11434", False),
        (b"127.0.0.1.evil.example", False),
        (b"localhost.evil.example", False),
        (b"evillocalhost", False),
        (b"my-machine.lan.evil.example", False),
        (b"192.168.1.5:11434", False),
        (b"0.0.0.0:11434", False),
        (b"[fe80::1]", False),
        (b"2130706433", False),
        (b"0x7f.1", False),
        (b"127.0.0.1@evil.example", False),
        (b":1", False),
        (b"[]", False),
        (b"\xff\xfe", False),
        (b"a" * 5000 + b".localhost", False),
    ],
)
@pytest.mark.parametrize("path", ["/api/version", "/health/live", "/nothing"])
def test_on_loopback_only_our_names_are_served(host, allowed, path):
    call = ask("GET", path, (b"host", host), hosts=("my-machine.lan",))
    assert (call.status == 403) is not allowed
    if not allowed:
        assert "host name" in call.json()["error"]


def test_beyond_loopback_the_host_is_not_looked_at():
    assert ask("GET", "/api/version", (b"host", b"models.example.org"), host="0.0.0.0").status == 200


def test_a_foreign_host_gets_no_cors_headers():
    call = ask("GET", "/api/version", (b"host", b"evil.example"), (b"origin", b"http://evil.example"))
    assert call.status == 403
    assert cors_of(call) == {}


# Origins

LISTED = ("https://chat.example.org", "https://*.wild.example", "chrome-extension://*")
ORIGINS = [
    (b"http://localhost", True),
    (b"http://localhost:3000", True),
    (b"https://127.0.0.1:8443", True),
    (b"http://0.0.0.0:1", True),
    (b"http://[::1]:5173", True),
    (b"app://obsidian.md", True),
    (b"file://", True),
    (b"tauri://localhost", True),
    (b"vscode-webview://abc", True),
    (b"vscode-file://vscode-app", True),
    (b"https://chat.example.org", True),
    (b"https://a.wild.example", True),
    (b"chrome-extension://abcdef", True),
    (b"https://chat.example.org.evil.example", False),
    (b"https://chat.example.org:444", False),
    (b"http://chat.example.org", False),
    (b"https://chatxexample.org", False),
    (b"https://wild.example", False),
    (b"moz-extension://abcdef", False),
    (b"http://localhost.evil.example", False),
    (b"http://localhost:3000.evil.example", False),
    (b"http://127.0.0.1.evil.example", False),
    (b"http://evil.example/http://localhost", False),
    (b"null", False),
    (EVIL, False),
    (b"https://" + b"a" * 5000 + b".wild.example", False),
]


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS, ids=[origin[:40] for origin, _ in ORIGINS])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_origins(origin, allowed, method):
    call = ask(method, "/api/tags" if method == "GET" else "/api/chat", (b"origin", origin), cors=Cors(origins=LISTED))
    if allowed:
        assert call.status == {"GET": 200, "POST": 400, "OPTIONS": 204}[method]
        assert cors_of(call)[b"access-control-allow-origin"] == origin
        assert b"access-control-allow-credentials" not in call.headers
        assert (b"vary", b"Origin") in call.sent[0]["headers"]
    else:
        assert call.status == 403
        assert cors_of(call) == {}
        assert "origin" in call.json()["error"]


def test_our_own_pages_may_call_under_any_of_our_names():
    for scheme_host in (b"http://127.0.0.1:11434", b"http://my-machine.lan:11434"):
        host = scheme_host.removeprefix(b"http://")
        call = ask("POST", "/api/chat", (b"host", host), (b"origin", scheme_host), hosts=("my-machine.lan",))
        assert call.status == 400
    foreign = ask("POST", "/api/chat", (b"host", b"my-machine.lan"), (b"origin", b"https://my-machine.lan"))
    assert foreign.status == 403  # another scheme, and not listed here


@pytest.mark.parametrize("origin", [EVIL, b"null", b"http://localhost:3000"])
def test_a_star_answers_a_star_without_credentials(origin):
    call = ask("GET", "/api/tags", (b"origin", origin), cors=Cors(origins=("*",)))
    assert call.status == 200
    assert call.headers[b"access-control-allow-origin"] == b"*"
    assert b"access-control-allow-credentials" not in call.headers
    assert b"vary" not in call.headers


def test_a_star_with_credentials_echoes_because_the_configuration_says_so_in_words():
    call = ask("GET", "/api/tags", (b"origin", EVIL), cors=Cors(origins=("*",), credentials=True))
    assert call.headers[b"access-control-allow-origin"] == EVIL
    assert call.headers[b"access-control-allow-credentials"] == b"true"
    assert (b"vary", b"Origin") in call.sent[0]["headers"]


def test_without_an_origin_there_are_no_cors_headers():
    assert cors_of(ask("GET", "/api/tags", cors=Cors(origins=("*",)))) == {}


def test_preflight():
    call = ask(
        "OPTIONS",
        "/v1/chat/completions",
        (b"origin", b"http://localhost:3000"),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization, x-stainless-os, x-api-key"),
        keys=KEYS,  # a browser sends none with it
    )
    assert (call.status, call.body) == (204, b"")
    assert b"POST" in call.headers[b"access-control-allow-methods"]
    assert call.headers[b"access-control-allow-headers"] == b"authorization, x-stainless-os, x-api-key"
    assert call.headers[b"access-control-max-age"] == b"43200"


@pytest.mark.parametrize("cors", [Cors(), Cors(origins=("*",)), Cors(origins=("*",), credentials=True)])
@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/api/tags", 200), ("PUT", "/api/tags", 405), ("GET", "/x", 404)]
)
def test_b1_every_header_of_an_answer_is_exposed_by_its_name(cors, method, path, status):
    """Beside credentials a star is a name like any other."""
    call = ask(method, path, (b"origin", b"http://localhost:3000"), (b"dragoman-report", b"header"), cors=cors)
    assert call.status == status
    readable = {b"content-type", b"content-length", b"cache-control", b"vary"}
    exposed = set(call.headers[b"access-control-expose-headers"].split(b", "))
    assert exposed == {name for name in call.headers if not name.startswith(b"access-control-")} - readable
    assert b"x-request-id" in exposed
    assert (b"allow" in exposed) is (status == 405)


def test_a_preflight_exposes_nothing():
    asked = (b"access-control-request-method", b"POST")
    call = ask("OPTIONS", "/api/chat", (b"origin", EVIL), asked, cors=Cors(origins=("*",), credentials=True))
    assert call.status == 204
    assert b"access-control-expose-headers" not in call.headers


def test_a_preflight_of_a_stranger_is_refused():
    call = ask("OPTIONS", "/api/chat", (b"origin", EVIL), (b"access-control-request-method", b"POST"))
    assert call.status == 403
    assert cors_of(call) == {}


def test_errors_bear_cors_headers_too_or_the_page_could_not_read_them():
    call = ask("POST", "/api/chat", (b"origin", b"http://localhost:3000"), keys=KEYS)
    assert call.status == 401
    assert call.headers[b"access-control-allow-origin"] == b"http://localhost:3000"


@pytest.mark.parametrize(
    ("site", "method", "origin", "status"),
    [
        (b"cross-site", "POST", None, 403),
        (b"cross-site", "DELETE", None, 403),
        (b"cross-site", "GET", None, 200),
        (b"cross-site", "POST", b"http://localhost:3000", 400),
        (b"cross-site", "POST", EVIL, 403),
        (b"same-origin", "POST", None, 400),
        (b"same-site", "POST", None, 400),
        (b"none", "POST", None, 400),
    ],
)
def test_sites_of_browsers_that_send_no_origin(site, method, origin, status):
    headers = [(b"sec-fetch-site", site), *([(b"origin", origin)] if origin else [])]
    path = {"GET": "/api/tags", "DELETE": "/api/delete"}.get(method, "/api/chat")
    assert ask(method, path, *headers).status == status


def test_the_content_type_is_never_looked_at():
    body = b'{"model": "a", "messages": [{"role": "user", "content": "hi"}]}'
    for kind in (b"application/x-www-form-urlencoded", b"text/plain", b"multipart/form-data", b"nonsense"):
        assert ask("POST", "/api/chat", (b"content-type", kind), body=body).status == 200


# Keys


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([], False),
        ([(b"authorization", b"Bearer first-key-123")], True),
        ([(b"authorization", b"bearer second-key-456")], True),
        ([(b"authorization", b"Bearer   second-key-456 ")], True),
        ([(b"x-api-key", b"first-key-123")], True),
        ([(b"x-api-key", b"first-key-123"), (b"authorization", b"Bearer dummy-of-an-sdk")], True),
        ([(b"x-api-key", b"dummy"), (b"authorization", b"Bearer first-key-123")], True),
        ([(b"authorization", b"first-key-123")], False),
        ([(b"authorization", b"Basic first-key-123")], False),
        ([(b"authorization", b"Bearer")], False),
        ([(b"authorization", b"Bearer ")], False),
        ([(b"authorization", b"Bearer first-key-12")], False),
        ([(b"authorization", b"Bearer first-key-1234")], False),
        ([(b"authorization", b"Bearer FIRST-KEY-123")], False),
        ([(b"authorization", b"Bearer first-key-123,second-key-456")], False),
        ([(b"x-api-key", b"")], False),
        ([(b"x-api-key", b"\xff\x00")], False),
        ([(b"cookie", b"authorization=first-key-123")], False),
    ],
)
def test_keys(headers, allowed):
    call = ask("GET", "/api/version", *headers, keys=KEYS)
    assert call.status == (200 if allowed else 401)
    if not allowed:
        assert call.headers[b"www-authenticate"] == b"Bearer"
        assert b"key-123" not in call.body


def test_every_key_is_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(guard, "hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))
    assert ask("GET", "/api/version", (b"x-api-key", b"first-key-123"), keys=KEYS).status == 200
    assert compared == [(key.encode(), b"first-key-123") for key in KEYS]


ALL_ROUTES = {**anthropic.ROUTES, **ollama.ROUTES, **openai.ROUTES, **health.ROUTES}


def test_with_keys_everything_but_health_needs_one():
    async def whole() -> None:
        house = House(config=Config(keys=KEYS), a=Home(tells(HELLO)))
        for path in (*ALL_ROUTES, "/nothing", "/metrics", "/docs", "/schema", "/openapi.json", "/health"):
            place = path.replace("{model:path}", "a/b").replace("{digest:str}", "sha256:00")
            for method in (*ALL_ROUTES.get(path, {}), "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"):
                for spelled in (place, place + "/", "/" + place, place.replace("/", "//")):
                    call = await house.ask(method, spelled)
                    open_to_all = spelled in {"/health/live", "/health/ready"}
                    assert (call.status == 401) is not open_to_all, (method, spelled)
            if path not in {"/schema", "/openapi.json"}:  # made in a thread, of which this clock knows nothing
                call = await house.ask("GET", place, b"", [(b"x-api-key", KEYS[0].encode())])
                assert call.status != 401
        await house.close()

    run(whole())


def test_without_keys_no_key_is_asked_for_and_any_is_ignored():
    assert ask("GET", "/api/version", (b"authorization", b"Bearer whatever")).status == 200


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/api/chat", str), ("/v1/chat/completions", dict), ("/chat/completions", dict), ("/nothing", str)],
)
def test_refusals_speak_the_dialect_of_the_path(path, shape):
    for call in (
        ask("POST", path, keys=KEYS),
        ask("POST", path, (b"origin", EVIL)),
        ask("POST", path, (b"host", b"evil.example")),
    ):
        assert call.status in {401, 403}
        assert isinstance(call.json()["error"], shape)
        assert int(call.headers[b"content-length"]) == len(call.body)


def test_a_listener_answers_only_its_own_dialects():
    assert ask("GET", "/api/tags", dialects=("openai",)).status == 404
    assert isinstance(ask("GET", "/api/tags", dialects=("openai",)).json()["error"], dict)
    assert ask("GET", "/v1/models", dialects=("ollama",)).status == 404
    assert isinstance(ask("GET", "/v1/models", dialects=("ollama",)).json()["error"], str)
    assert ask("GET", "/health/live", dialects=("openai",)).status == 200
