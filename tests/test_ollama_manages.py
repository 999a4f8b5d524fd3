"""Ollama's routes that change which models there are, in its words, over a store in memory."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from adapters.ollama.modelfile import Modelfile, read_modelfile
from canonical.digests import digest_of
from canonical.messages import Message, Text
from canonical.recipe import Recipe
from gateway.library import MAKING, RUNNING
from gateway.settings import Config, Key, ModelEntry
from tests.asgi import House
from tests.calling import until
from tests.houses import HELLO, Home, tells, waits
from tests.shelf import FAR, Shelf, at_a_shelf, house, ndjson
from tests.virtual_time import run

BLOB = b"a blob"
DIGEST = digest_of(BLOB)
CREATE = {
    "model": "mario",
    "from": "have",
    "system": "You are Mario.",
    "template": "{{ .Prompt }}",
    "license": ["MIT", "and more"],
    "parameters": {"temperature": 1, "stop": ["<end>"], "num_ctx": 4096.0, "odd": None},
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
    "quantization": "Q4_K_M",
    "requires": "0.14.0",
}


@at_a_shelf
async def test_a_model_is_made_of_another_and_shown(a, shelf):
    lines = ndjson(await a.ask("POST", "/api/create", CREATE))
    assert [line["status"] for line in lines] == ["parsing GGUF", "writing manifest", "success"]
    assert shelf.recipes["mario:latest"] == Recipe(
        source="have:latest",
        system="You are Mario.",
        template="{{ .Prompt }}",
        licenses=("MIT", "and more"),
        parameters={"temperature": 1.0, "stop": ["<end>"], "num_ctx": 4096},
        messages=(Message("user", (Text("hi"),)), Message("assistant", (Text("ho"),))),
        quantize="Q4_K_M",
        requires="0.14.0",
    )
    shown = (await a.ask("POST", "/api/show", {"model": "mario"})).json()
    assert shown["system"] == "You are Mario."
    assert shown["messages"] == CREATE["messages"]
    assert shown["details"]["parent_model"] == "have:latest"
    assert shown["requires"] == "0.14.0"
    assert read_modelfile(shown["modelfile"]) == Modelfile(
        sources=("mario:latest",),
        system="You are Mario.",
        template="{{ .Prompt }}",
        licenses=("MIT\nand more",),
        parameters={"temperature": 1.0, "stop": ["<end>"], "num_ctx": 4096},
        messages=shelf.recipes["mario:latest"].messages,
        requires="0.14.0",
    )
    assert shown["license"] == "MIT\nand more"
    call = await a.ask("POST", "/api/create", {"name": "two", "from": "mario", "stream": False})
    assert (call.status, call.json()) == (200, {"status": "success"})


@at_a_shelf
async def test_what_has_no_effect_is_told(a, shelf):
    lines = ndjson(
        await a.ask("POST", "/api/create", {"model": "x", "from": "have", "renderer": "qwen3", "parser": ""})
    )
    assert lines[-2:] == [
        {"status": "renderer qwen3 is not known here: the template does its work"},
        {"status": "success"},
    ]


@at_a_shelf
async def test_what_a_model_is_made_from_is_fetched_where_it_is_absent(a, shelf):
    lines = ndjson(await a.ask("POST", "/api/create", {"model": "new", "from": "far"}))
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1] == {"status": "success"}
    assert shelf.recipes["new:latest"].source == "far:latest"
    call = await a.ask("POST", "/api/create", {"model": "new", "from": "none", "stream": False})
    assert (call.status, call.json()["error"]) == (500, "pull model manifest: file does not exist")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"from": ""}, "neither 'from' or 'files' was specified"),
        ({"from": None, "files": {"../x.gguf": DIGEST}}, "file path must be relative"),
        ({"files": {"/x.gguf": DIGEST}}, "file path must be relative"),
        ({"files": {"C:\\x.gguf": DIGEST}}, "file path must be relative"),
        ({"files": {"a\\..\\..\\x.gguf": DIGEST}}, "file path must be relative"),
        ({"files": {"": DIGEST}}, "file path must be relative"),
        ({"files": {"x.gguf": ""}}, "invalid digest format"),
        ({"adapters": {"x.gguf": "sha256:abc"}}, "invalid digest format"),
        ({"draft_files": {"x.gguf": "md5:" + "0" * 64}}, "invalid digest format"),
        ({"files": {"x.gguf": DIGEST}}, f"blob {DIGEST} is not there"),
        ({"parameters": {"num_ctx": "many"}}, 'option "num_ctx" must be of type integer'),
        ({"license": 5}, "license must be a string or an array of strings"),
        ({"parameters": {"stop": ["x"] * 1001}}, "parameters.stop may have at most 1000 entries"),
        (
            {"remote_host": "https://example.org"},
            "a model of another server is a backend in config.yaml, not a creation",
        ),
        ({"messages": [{"role": "ai", "content": ""}]}, 'invalid role: "ai"'),
        ({"files": {f"{number}.gguf": DIGEST for number in range(1001)}}, "files may have at most 1000 entries"),
    ],
)
@at_a_shelf
async def test_what_cannot_be_made_is_refused_in_ollamas_words(a, shelf, change, words):
    call = await a.ask("POST", "/api/create", {"model": "x", "from": "have", **change})
    assert call.status == 400
    assert call.json()["error"].startswith(words)
    assert "x:latest" not in shelf.rows


@at_a_shelf
async def test_a_client_that_leaves_stops_the_making(a, shelf):
    shelf.gate.clear()
    call = a.call("POST", "/api/create", {"model": "x", "from": "have"})
    await call.until(2)
    call.leave()
    await call.end()
    shelf.gate.set()
    assert "x:latest" not in shelf.rows


@at_a_shelf
async def test_more_at_once_than_a_process_can_have_open_is_refused(a, shelf):
    shelf.far = {f"far{number}": FAR for number in range(RUNNING + 1)}
    shelf.gate.clear()
    calls = [a.call("POST", "/api/pull", {"model": f"far{number}"}) for number in range(RUNNING)]
    calls += [a.call("POST", "/api/create", {"model": f"x{number}", "from": "have"}) for number in range(MAKING)]
    for call in calls:
        await call.until(2)
    for path, body in (
        ("/api/pull", {"model": f"far{RUNNING}"}),
        ("/api/create", {"model": "y", "from": "have"}),
        ("/api/copy", {"source": "have", "destination": "y"}),
    ):
        refused = await a.ask("POST", path, body)
        assert refused.status == 503
        assert refused.headers[b"retry-after"] == b"30"
    shelf.gate.set()
    assert ndjson(await a.ask("POST", "/api/pull", {"model": "far0"}))[-1] == {"status": "success"}  # with the others
    for call in calls:
        await call.end()
    assert ndjson(await a.ask("POST", "/api/pull", {"model": f"far{RUNNING}"}))[-1] == {"status": "success"}
    assert ndjson(await a.ask("POST", "/api/create", {"model": "y", "from": "have"}))[-1] == {"status": "success"}


@at_a_shelf
async def test_push_tells_its_progress(a, shelf):
    lines = ndjson(await a.ask("POST", "/api/push", {"name": "have"}))
    assert [line["status"][:8] for line in lines] == ["retrievi", "pushing ", "pushing ", "success"]
    assert shelf.pushed == ["have"]


@at_a_shelf
async def test_copy_and_delete_answer_200_with_nothing(a, shelf):
    call = await a.ask("POST", "/api/copy", {"source": "have", "destination": "gpt-4"})
    assert (call.status, call.body) == (200, b"")
    assert "gpt-4:latest" in [row["model"] for row in (await a.ask("GET", "/api/tags")).json()["models"]]
    call = await a.ask("DELETE", "/api/delete", {"name": "gpt-4"})
    assert (call.status, call.body) == (200, b"")
    assert "gpt-4:latest" not in [row["model"] for row in (await a.ask("GET", "/api/tags")).json()["models"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/api/copy", {"source": "none", "destination": "b"}, 404, 'model "none" not found'),
        ("POST", "/api/copy", {"source": "", "destination": "b"}, 400, 'source "" is invalid'),
        ("POST", "/api/copy", {"source": "have", "destination": ""}, 400, 'destination "" is invalid'),
        ("POST", "/api/copy", {"source": "a b", "destination": "b"}, 400, 'source "a b" is invalid'),
        ("POST", "/api/copy", {"source": "have", "destination": "b c"}, 400, 'destination "b c" is invalid'),
        ("DELETE", "/api/delete", {"model": "none"}, 404, "model 'none' not found"),
        ("DELETE", "/api/delete", {}, 400, 'name "" is invalid'),
        ("DELETE", "/api/delete", {"model": "a b"}, 400, 'name "a b" is invalid'),
        ("DELETE", "/api/delete", {"model": "../x"}, 400, 'name "../x" is invalid'),
        ("DELETE", "/api/delete", {"model": "pip"}, 409, "model 'pip' comes from config.yaml: take it out there"),
        ("DELETE", "/api/delete", {"model": "own"}, 409, "model 'own' comes from config.yaml: take it out there"),
        ("DELETE", "/api/delete", {"model": "mine"}, 409, "model 'mine' comes from config.yaml: take it out there"),
        (
            "DELETE",
            "/api/delete",
            {"model": "file"},
            409,
            "model 'file' is a file of the models folder: remove it there",
        ),
        ("POST", "/api/copy", {"source": "pip", "destination": "b"}, 409, "model 'pip' belongs to backend 'home'"),
        (
            "POST",
            "/api/copy",
            {"source": "have", "destination": "pip"},
            409,
            "'pip' is the name of a model of config.yaml",
        ),
        ("POST", "/api/create", {"model": "POP", "from": "have"}, 409, "'POP' is the name of a model of config.yaml"),
    ],
)
@at_a_shelf
async def test_what_cannot_be_changed_is_said(a, shelf, *, method, path, body, status, words):
    call = await a.ask(method, path, body)
    assert (call.status, call.json()) == (status, {"error": words})
    assert list(shelf.rows) == ["have:latest", "file:latest", "own:latest"]


@at_a_shelf
async def test_an_answer_of_a_model_that_is_deleted_finishes(a, shelf):
    shelf.story = waits(HELLO[:1], HELLO[1:2])
    chat = a.call("POST", "/api/chat", {"model": "have", "messages": [{"role": "user", "content": "x"}]})
    await chat.until(2)
    model = shelf.open_models["have:latest"]
    assert (await a.ask("DELETE", "/api/delete", {"model": "have"})).status == 200
    assert not model.closed
    assert (await a.ask("POST", "/api/show", {"model": "have"})).status == 404
    assert not chat.task.done()
    chat.leave()
    await chat.end()
    await until(lambda: model.closed)


@at_a_shelf
async def test_a_model_that_is_replaced_is_loaded_anew(a, shelf):
    chat = {"model": "m1", "messages": [{"role": "user", "content": "x"}]}
    await a.ask("POST", "/api/create", {"model": "m1", "from": "have", "system": "a"})
    await a.ask("POST", "/api/chat", chat)
    first = shelf.open_models["m1:latest"]
    assert not first.closed
    await a.ask("POST", "/api/create", {"model": "m1", "from": "have", "system": "a"})
    assert not first.closed, "nothing has changed"
    await a.ask("POST", "/api/create", {"model": "m1", "from": "have", "system": "b"})
    await a.ask("POST", "/api/chat", chat)
    assert first.closed
    assert shelf.open_models["m1:latest"] is not first


@pytest.mark.parametrize("colon", [":", "-"])
@at_a_shelf
async def test_blobs_are_kept_and_found(a, shelf, colon):
    path = f"/api/blobs/{DIGEST.replace(':', colon)}"
    assert (await a.ask("HEAD", path)).status == 404
    call = await a.ask("POST", path, [BLOB[:2], b"", BLOB[2:]])
    assert (call.status, call.body) == (201, b"")
    assert (await a.ask("HEAD", path)).status == 200
    again = a.call("POST", path, [b"anything", b""])
    await again.end()
    assert (again.status, again.received) == (200, 0), "it is not read again"
    assert shelf.blobs == {DIGEST: BLOB}
    lines = ndjson(await a.ask("POST", "/api/create", {"model": "x", "files": {"x.gguf": DIGEST}}))
    assert lines[-1] == {"status": "success"}


@at_a_shelf
async def test_a_blob_with_another_digest_is_refused_with_both(a, shelf):
    call = await a.ask("POST", f"/api/blobs/{DIGEST}", b"another blob")
    got = digest_of(b"another blob")
    assert (call.status, call.json()) == (400, {"error": f'digest mismatch, expected "{DIGEST}", got "{got}"'})
    assert shelf.blobs == {}
    for digest in ("sha256:abc", "md5:5", "x"):
        assert (await a.ask("HEAD", f"/api/blobs/{digest}")).status == 400
        call = await a.ask("POST", f"/api/blobs/{digest}", b"x")
        assert (call.status, call.json()) == (400, {"error": "invalid digest format"})


@at_a_shelf
async def test_a_client_that_leaves_half_way_leaves_no_blob(a, shelf):
    call = a.call("POST", f"/api/blobs/{DIGEST}", [BLOB[:2], BLOB[2:]])
    call._arriving.pop()
    await until(lambda: shelf.received == 2)
    call.leave()
    await call.end()
    assert shelf.blobs == {}
    assert " 499 " in a.access()[-1]


MANAGING = [
    ("POST", "/api/pull", {"model": "far"}),
    ("POST", "/api/push", {"model": "have"}),
    ("POST", "/api/create", {"model": "x", "from": "have"}),
    ("POST", "/api/copy", {"source": "have", "destination": "b"}),
    ("DELETE", "/api/delete", {"model": "have"}),
    ("POST", f"/api/blobs/{DIGEST}", BLOB),
]


@pytest.mark.parametrize(("method", "path", "body"), MANAGING)
def test_a_key_may_be_for_use_alone(method, path, body):
    async def whole() -> None:
        shelf = Shelf()
        a = house(shelf, config=Config(keys=(Key(key="use-only", manage=False), "may-do-all")))
        use = [(b"authorization", b"Bearer use-only")]
        call = await a.ask(method, path, body, headers=use)
        assert (call.status, call.json()) == (403, {"error": "this key may not change which models there are"})
        assert (await a.ask("GET", "/api/tags", headers=use)).status == 200
        assert (await a.ask("HEAD", f"/api/blobs/{DIGEST}", headers=use)).status == 403
        assert list(shelf.rows) == ["have:latest", "file:latest", "own:latest"]
        assert shelf.blobs == {}
        call = await a.ask(method, path, body, headers=[(b"authorization", b"Bearer may-do-all")])
        assert call.status in {200, 201, 409}
        await a.close()

    run(whole())


@pytest.mark.parametrize(("method", "path", "body"), [*MANAGING, ("HEAD", f"/api/blobs/{DIGEST}", b"")])
@at_a_shelf
async def test_pages_of_others_change_nothing(a, shelf, method, path, body):
    for headers in ([(b"origin", b"https://evil.example")], [(b"sec-fetch-site", b"cross-site")]):
        if method == "HEAD" and headers[0][0] == b"sec-fetch-site":
            continue  # it changes nothing, and its answer cannot be read
        assert (await a.ask(method, path, body, headers=headers)).status == 403
    assert list(shelf.rows) == ["have:latest", "file:latest", "own:latest"]


@pytest.mark.parametrize(("method", "path", "body"), MANAGING)
def test_without_a_backend_that_manages_models_every_route_says_so(method, path, body):
    async def whole() -> None:
        a = House(home=Home(tells(HELLO)))
        call = await a.ask(method, path, body)
        assert call.status == 501
        assert "no backend of config.yaml can" in call.json()["error"]
        assert (await a.ask("HEAD", f"/api/blobs/{DIGEST}")).status == 404
        assert ndjson(await a.ask("POST", "/api/pull", {"model": "home"})) == [{"status": "success"}]
        await a.close()

    run(whole())


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("POST", "/api/me", 401, {"error": "unauthorized"}),
        ("POST", "/api/signout", 200, {}),
        ("DELETE", "/api/user/keys/c3NoLWVkMjU1MTk=", 200, {}),
        ("GET", "/api/status", 200, {"cloud": {"disabled": True, "source": "config"}}),
        ("GET", "/api/experimental/model-recommendations", 200, {"recommendations": []}),
    ],
)
@at_a_shelf
async def test_questions_about_an_account_are_answered_at_once(a, shelf, *, method, path, status, expected):
    call = await a.ask(method, path)
    assert (call.status, call.json()) == (status, expected)
    for search in ("web_search", "web_fetch"):
        call = await a.ask("POST", f"/api/experimental/{search}", {"query": "x"})
        assert call.status == 403
        assert call.json()["error"].startswith("ollama cloud is disabled")


@at_a_shelf
async def test_a_model_may_be_called_file(a, shelf):
    call = await a.ask("POST", "/api/copy", {"source": "file:latest", "destination": "file:two"})
    assert call.status == 200
    assert (await a.ask("DELETE", "/api/delete", {"model": "file:two"})).status == 200


def test_the_library_can_be_named():
    async def whole() -> None:
        one, two = Shelf(), Shelf()
        a = House(
            one=one,
            two=two,
            models=(ModelEntry(id="x", backend="one", name="have"),),
            config=Config(library="two"),
        )
        await a.ask("POST", "/api/pull", {"model": "far"})
        assert (one.pulls, two.pulls) == (0, 1)
        await a.close()

    run(whole())


@at_a_shelf
async def test_lines_of_progress_are_compact(a, shelf):
    call = await a.ask("POST", "/api/pull", {"model": "far"})
    for line in call.body.splitlines():
        assert line == json.dumps(json.loads(line), separators=(",", ":")).encode()


ODD: list[Any] = [
    *(None, True, 0, -1, 1e308, 2**63, "", "x", "have", "far", "a b", "\ud800", "\0", "../x", "sha256:x", "x" * 3000),
    *(
        [],
        {},
        ["x"],
        [None],
        {"a": 1},
        {"x.gguf": DIGEST},
        {"x": 5},
        {"stop": 5},
        {"num_ctx": 1e300},
        {"temperature": "hot"},
    ),
    *([{"role": "tool"}], [{"role": "user", "images": ["!!"]}]),
]
FIELDS = (
    *("model", "name", "Model", "from", "files", "adapters", "draft_files", "template", "system", "license"),
    *("parameters", "messages", "quantize", "remote_host", "renderer", "stream", "insecure", "source", "destination"),
)


@at_a_shelf
async def test_whatever_a_body_says_the_answer_is_in_ollamas_words(a, shelf):
    dice = random.Random(4)
    for _ in range(400):
        method, path, _ = dice.choice([*MANAGING[:-1], ("POST", "/api/show", {})])
        fields = {name: dice.choice(ODD) for name in dice.sample(FIELDS, dice.randint(0, 6))}
        data = json.dumps(fields).encode()
        call = await a.ask(method, path, data[: dice.randint(0, len(data))] if dice.random() < 0.1 else data)
        assert call.status in {200, 400, 404, 409, 500}
        assert b"internal error" not in call.body
        assert all(isinstance(json.loads(line), dict) for line in call.body.splitlines())
