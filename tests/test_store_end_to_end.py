"""Two gateways on one store, one of which is killed while both are written to; over HTTP, on both databases."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

from tests.serving import Served, serving
from tests.stored import Place

CONFIG = """
listeners: [{{port: 0, dialects: [conversation]}}]
backends: {{demo: {{type: echo}}}}
defaults: {{chat: echo}}
database: {database}
data_dir: {folder}
"""


def ask(served: Served, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{served.url}{path}", data, method=method), timeout=30) as got:
        return json.loads(got.read())


def test_a_gateway_that_is_killed_takes_nothing_along_that_it_had_answered(place: Place) -> None:
    config = CONFIG.format(database=json.dumps(place.url), folder=json.dumps(str(place.folder)))
    answered: dict[str, list[str]] = {"a": [], "b": []}
    some = threading.Barrier(3)

    def talk(served: Served, name: str) -> None:
        for number in range(10):
            try:
                message = {"prompt": f"{name}{number}", "model": "echo"}
                told = ask(served, "POST", "/api/conversation/both/message", message)
            except OSError:
                assert name == "a", "only the other one is killed"
                return
            assert f"{name}{number}" in json.dumps(told)
            answered[name].append(f"{name}{number}")
            if number == 4:
                some.wait()

    with serving(config) as a, serving(config) as b:
        ask(a, "POST", "/api/conversation/start?conv_id=both")
        try:
            ask(b, "POST", "/api/conversation/start?conv_id=both")
        except urllib.error.HTTPError as error:
            assert error.code == 400  # noqa: PT017
            error.close()
        else:
            raise AssertionError("started twice")
        talkers = [threading.Thread(target=talk, args=(served, name)) for served, name in ((a, "a"), (b, "b"))]
        for talker in talkers:
            talker.start()
        some.wait()
        a.process.kill()
        for talker in talkers:
            talker.join()
        with serving(config) as again:
            for served in (b, again):
                messages = ask(served, "GET", "/api/conversation/both")["messages"]
                said = [message["content"] for message in messages if message["role"] == "user"]
                assert len(set(said)) == len(said)
                assert [text for text in said if text[0] == "b"] == answered["b"]
                own = [text for text in said if text[0] == "a"]
                assert own[: len(answered["a"])] == answered["a"]
                assert len(own) <= len(answered["a"]) + 1  # what was on its way when it died
    assert len(answered["b"]) == 10
    assert len(answered["a"]) >= 5
