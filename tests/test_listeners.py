"""The process: signals, drain, listeners; a real gateway whose model does what the test says, when it says so."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.puppet import String, Strings
from tests.serving import Served, serving

CHAT = {"model": "puppet", "messages": [{"role": "user", "content": "hi"}]}


@contextlib.contextmanager
def puppet_house(
    more: str = "", listeners: str = "[{port: 0}]", **settings: object
) -> Iterator[tuple[Served, Strings]]:
    extra = "".join(f", {name}: {json.dumps(value)}" for name, value in settings.items())
    with Strings() as strings:
        config = f"listeners: {listeners}\n"
        config += f"backends: {{p: {{type: 'tests.puppet:PuppetBackend', port: {strings.port}{extra}}}}}\n{more}"
        with serving(config, listeners=listeners.count("port")) as served:
            yield served, strings


class Asked:
    """A request on a connection of its own, whose answer is read line by line."""

    def __init__(self, url: str, path: str, body: dict[str, object] | None = None) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
        method = "GET" if body is None else "POST"
        self._connection.request(method, path, None if body is None else json.dumps(body))

    def answer(self) -> http.client.HTTPResponse:
        return self._connection.getresponse()

    def leave(self) -> None:
        self._connection.close()


def status(url: str, path: str, body: dict[str, object] | None = None) -> tuple[int, bytes]:
    asked = Asked(url, path, body)
    answer = asked.answer()
    data = answer.read()
    asked.leave()
    return answer.status, data


def until_draining(url: str) -> None:
    """A signal is noticed when the process gets to it."""
    deadline = time.monotonic() + 10
    while status(url, "/health/ready")[0] != 503:
        assert time.monotonic() < deadline


def begun(served: Served, strings: Strings, path: str = "/api/chat") -> tuple[http.client.HTTPResponse, String]:
    """A stream of which the first word has been read."""
    asked = Asked(served.url, path, {**CHAT, "stream": True})
    call = strings.call()
    assert call.wants == "generate"
    call.tell("say one")
    answer = asked.answer()
    assert answer.status == 200
    while b"one" not in (line := answer.readline()):
        assert line
    return answer, call


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_answers_finish_and_refuses_new_ones(number):
    with puppet_house() as (served, strings):
        assert status(served.url, "/health/ready") == (200, b'{"status":"ready"}')
        answer, call = begun(served, strings)
        whole = Asked(served.url, "/v1/chat/completions", CHAT)
        other = strings.call()
        served.process.send_signal(number)
        until_draining(served.url)
        assert status(served.url, "/health/live")[0] == 200
        code, body = status(served.url, "/api/chat", CHAT)
        assert code == 503
        assert json.loads(body) == {"error": "the gateway is shutting down"}
        code, body = status(served.url, "/v1/chat/completions", CHAT)
        assert code == 503
        assert json.loads(body)["error"]["message"] == "the gateway is shutting down"
        call.tell("say two", "finish")
        call.cut()
        rest = answer.read()
        assert b"two" in rest
        assert json.loads(rest.splitlines()[-1])["done"] is True
        other.tell("say three", "finish")
        other.cut()
        assert json.loads(whole.answer().read())["choices"][0]["message"]["content"] == "three"
        assert served.process.wait(5) == 0
        assert "Traceback" not in served.log()


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(first, second):
    with puppet_house() as (served, strings):
        answer, _ = begun(served, strings)
        served.process.send_signal(first)
        until_draining(served.url)
        served.process.send_signal(second)
        assert served.process.wait(2) == 128 + second
        with pytest.raises((http.client.HTTPException, OSError)):
            answer.read()


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_after_the_grace_period_a_stream_gets_its_error_frame(path):
    with puppet_house("limits: {grace: 0.1}") as (served, strings):
        answer, call = begun(served, strings, path)
        served.process.send_signal(signal.SIGTERM)
        rest = answer.read().decode()  # the body ends well: no client is left in the dark
        assert "the gateway is shutting down" in rest
        assert '"done":true' not in rest
        assert call.stopped()
        assert served.process.wait(5) == 0


def test_after_the_grace_period_who_waits_for_a_whole_answer_gets_503():
    with puppet_house("limits: {grace: 0.1}", slots=1) as (served, strings):
        running = Asked(served.url, "/api/chat", {**CHAT, "stream": False})
        call = strings.call()
        queued = Asked(served.url, "/v1/chat/completions", CHAT)
        # Who is inside is told in the order of coming: when this later one is answered, those before it are known.
        assert status(served.url, "/api/version")[0] == 200
        served.process.send_signal(signal.SIGTERM)
        assert running.answer().status == 503
        assert queued.answer().status == 503
        assert call.stopped()
        assert served.process.wait(5) == 0


def test_a_client_that_stops_reading_does_not_keep_the_process():
    with puppet_house("limits: {grace: 0.1}") as (served, strings):
        _, call = begun(served, strings)
        with contextlib.suppress(OSError, TimeoutError):
            call._connection.settimeout(1)
            for _ in range(200):  # until the way to the client is full, or all is written
                call.tell("say " + "x" * 60_000)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(8) == 0


def test_an_idle_gateway_stops_within_3_seconds_though_connections_are_open():
    with puppet_house() as (served, _):
        kept = Asked(served.url, "/api/version")
        assert kept.answer().read()
        address = urlsplit(served.url)
        with socket.create_connection((address.hostname, address.port)) as silent:
            silent.sendall(b"POST /api/chat HTTP/1.1\r\nHo")
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(3) == 0


def test_a_model_that_cannot_be_closed_does_not_keep_the_process():
    with puppet_house("limits: {grace: 0}", slots=1, asks_to_close=True) as (served, strings):
        answer, call = begun(served, strings)
        call.tell("finish")
        call.cut()
        answer.read()
        served.process.send_signal(signal.SIGTERM)
        asked = strings.call()
        assert asked.wants == "close"  # and it gets no answer
        assert served.process.wait(5) == 0
        assert asked.stopped()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", [0, 1])
def test_a_client_that_leaves_stops_the_model(stream, words):
    with puppet_house() as (served, strings):
        asked = Asked(served.url, "/api/chat", {**CHAT, "stream": stream})
        call = strings.call()
        call.tell(*["say one"] * words)
        if stream:
            assert asked.answer().readline() if words else True
        asked.leave()
        if stream and words:
            served_again, second = Asked(served.url, "/api/chat", CHAT), strings.call()
            second.tell("say other", "finish")
            second.cut()
            assert b"other" in served_again.answer().read()
        assert call.stopped()


def test_listeners_speak_their_own_dialects_on_their_own_ports():
    listeners = "[{port: 0, dialects: [ollama]}, {port: 0, dialects: [openai]}]"
    with puppet_house(listeners=listeners) as (served, _):
        ollama, openai = served.urls
        assert status(ollama, "/api/version")[0] == 200
        assert status(openai, "/v1/models")[0] == 200
        code, body = status(ollama, "/v1/models")
        assert code == 404
        assert isinstance(json.loads(body)["error"], str)
        code, body = status(openai, "/api/version")
        assert code == 404
        assert json.loads(body)["error"]["message"]
        assert status(ollama, "/health/ready")[0] == status(openai, "/health/ready")[0] == 200


def test_one_port_on_two_addresses_is_two_listeners():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    listeners = f"[{{port: {port}, dialects: [ollama]}}, {{port: {port}, host: 127.0.0.2, dialects: [openai]}}]"
    with puppet_house(listeners=listeners) as (served, _):
        assert served.urls == [f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"]
        assert [status(url, "/api/version")[0] for url in served.urls] == [200, 404]
        assert [status(url, "/v1/models")[0] for url in served.urls] == [404, 200]


def test_a_taken_port_leaves_no_process_and_no_half_open_listener():
    with puppet_house() as (served, _):
        port = urlsplit(served.url).port
        config = f"listeners: [{{port: 0}}, {{port: {port}}}]\nbackends: {{d: {{type: echo}}}}"
        with (
            pytest.raises(AssertionError, match=f"dragoman: port {port} on 127.0.0.1 is already in use"),
            serving(config, listeners=2),
        ):
            pass
        assert status(served.url, "/health/ready")[0] == 200


def test_the_echo_backend_serves_and_the_log_tells_it():
    with serving("listeners: [{port: 0}]\nbackends: {demo: {type: echo}}") as served:
        code, body = status(served.url, "/api/chat", {"model": "echo", "stream": False, "messages": CHAT["messages"]})
        assert code == 200
        assert json.loads(body)["message"]["content"] == "hi"
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(3) == 0
        deadline = time.monotonic() + 5  # the log comes through a pipe
        while "POST /api/chat echo 200 1 tokens" not in served.log():
            assert time.monotonic() < deadline
        assert "Traceback" not in served.log()


def test_a_signal_is_heeded_from_the_first_word_on():
    with puppet_house() as (served, _):
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(3) == 0
