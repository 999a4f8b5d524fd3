"""What clients look at before they ask anything: routes, lists, descriptions, browsers' preflights; and what they may leave out.

On a live gateway with the demo models: M1, M2, M5. Numbers in the docstrings are those of the notes on clients.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import ollama
import openai
import pytest

from tests.serving import ROOT, Served
from tests.ways import three_ways

COLD: dict[str, Any] = {"temperature": 0}
HELLO = [{"role": "user", "content": "Hello!"}]
HOW = "Hello! How can I help you?"
JSON = "application/json; charset=utf-8"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with three_ways() as (a, _):
        yield a


@pytest.fixture(scope="module")
def http(gateway: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


def hello(http: httpx.Client, path: str, body: Any, **more: Any) -> httpx.Response:
    """A greeting that is answered, whatever is odd about it."""
    answer = http.post(path, json=body, **more)
    assert answer.status_code == 200, answer.text
    assert HOW in answer.text
    return answer


def talk(**fields: Any) -> dict[str, Any]:
    return {"model": "pip", "messages": HELLO, "stream": False, "options": COLD, **fields}


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "pip", "messages": HELLO, **COLD, **fields}


# Routes.


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_m2_head_routes(http: httpx.Client, path: str) -> None:
    """Ollama 1.1, 16: the CLI sends HEAD / before every command; HEAD tells what GET would, without a body."""
    head, get = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == str(len(get.content))


def test_m2_root_and_version(http: httpx.Client) -> None:
    """Ollama 3, 4.1, 17.4: the words of the root; dotted integers of at least 0.6.4."""
    assert (http.get("/").text, http.get("/").headers["content-type"]) == (
        "Ollama is running",
        "text/plain; charset=utf-8",
    )
    assert tuple(map(int, http.get("/api/version").json()["version"].split("."))) >= (0, 6, 4)


def test_m2_head_of_ps_is_no_route(http: httpx.Client) -> None:
    """Ollama 1.1: HEAD exists on three routes only."""
    assert http.head("/api/ps").status_code == 405


@pytest.mark.parametrize("path", ["/api/tags/", "/api/version/", "/v1/models/", "/v1//models", "/api//tags"])
def test_m1_m2_odd_slashes(http: httpx.Client, path: str) -> None:
    """Ollama 1.1, OpenAI 1: trailing and doubled slashes lead to the route; no client needs to follow a redirect."""
    assert http.get(path).status_code == 200


def test_m1_m2_odd_slashes_before_a_body(http: httpx.Client) -> None:
    """The same where a redirect would cost the body."""
    hello(http, "/api/chat/", talk())
    hello(http, "/v1/chat/completions/", ask())
    hello(http, "//v1/chat/completions", ask())
    hello(http, "/chat/completions", ask())


def test_m1_m2_unknown_routes_answer_json(http: httpx.Client) -> None:
    """Ollama 17.11, 17.28: never HTML, and the right base URL in the words."""
    for path in ("/api/nope", "/nope", "/api/v1/chat/completions"):
        answer = http.post(path, json={})
        assert (answer.status_code, answer.headers["content-type"]) == (404, JSON)
        assert "base URL" in answer.json()["error"]
    for path in ("/v1/nope", "/v1/api/chat", "/v1/files"):
        answer = http.post(path, json={})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("path", "status"), [("/api/me", 401), ("/api/signout", 200), ("/api/experimental/web_search", 403)]
)
def test_m2_account_routes_answer_at_once(http: httpx.Client, path: str, status: int) -> None:
    """Ollama 17.34: the CLI asks; JSON and no sign-in address."""
    answer = http.post(path, json={})
    assert answer.status_code == status
    assert "signin_url" not in answer.json()


# Lists and descriptions.


def test_m2_tags_have_what_strict_clients_want(http: httpx.Client) -> None:
    """Ollama 4.2, 17.8, 17.27: both names, bare hex of 64, six texts of details, RFC 3339; each name once."""
    rows = http.get("/api/tags").json()["models"]
    for row in rows:
        assert set(row) == {"name", "model", "modified_at", "size", "digest", "details", "capabilities"}
        assert row["name"] == row["model"]
        assert ":" in row["name"]
        assert len(row["digest"]) == 64
        assert int(row["digest"], 16)
        assert isinstance(row["size"], int)
        for name in ("parent_model", "format", "family", "parameter_size", "quantization_level"):
            assert isinstance(row["details"][name], str)
        assert datetime.fromisoformat(row["modified_at"]).tzinfo is not None
    names = [row["name"] for row in rows]
    assert sorted(names) == sorted(set(names))
    assert [row["modified_at"] for row in rows] == sorted((row["modified_at"] for row in rows), reverse=True)


def test_m2_every_listed_model_can_be_shown(http: httpx.Client) -> None:
    """Ollama 16 (Zed, VS Code): show is asked for each; capabilities, architecture and context length are read."""
    for row in http.get("/api/tags").json()["models"]:
        shown = http.post("/api/show", json={"name": row["name"]})
        assert shown.status_code == 200, row["name"]
        told = shown.json()
        assert isinstance(told["capabilities"], list)
        architecture = told["model_info"]["general.architecture"]
        assert told["model_info"][f"{architecture}.context_length"] > 0
        assert all(isinstance(told["details"][name], str) for name in ("format", "family", "parameter_size"))
        assert "error" not in told


def test_m2_copilot_is_shown_the_name_that_it_asked_for(http: httpx.Client) -> None:
    asked = {"model": "pip:latest"}
    shown = http.post("/api/show", json=asked, headers={"User-Agent": "GitHubCopilotChat/0.31"}).json()
    assert shown["model_info"]["general.basename"] == "pip:latest"
    assert http.post("/api/show", json=asked).json()["model_info"].get("general.basename") != "pip:latest"


def test_m2_show_by_name_model_and_verbose(http: httpx.Client) -> None:
    """Ollama 2, 4.4: Continue sends ``name``; arrays are null unless verbose."""
    plain = http.post("/api/show", json={"name": "PIP"}).json()
    assert plain["model_info"]["tokenizer.ggml.tokens"] is None
    assert plain == http.post("/api/show", json={"model": "pip:latest", "name": "none"}).json()
    assert http.post("/api/show", json={"model": "pip", "verbose": True}).status_code == 200


def test_m1_models_by_encoded_and_raw_slashes(http: httpx.Client, gateway: Served) -> None:
    """OpenAI 1, 14.18: the SDK encodes the slash, others do not; ``:latest`` and letter case lead to the same."""
    ids = {
        http.get(f"/v1/models/{path}").json()["id"]
        for path in ("b_openai/pip", "b_openai%2Fpip", "b_openai%2Fpip:latest", "B_OpenAI/PIP")
    }
    assert ids == {"pip-openai"}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as sdk:
        assert sdk.models.retrieve("b_openai/pip").id == "pip-openai"
        assert all(model.object == "model" and model.created and model.owned_by for model in sdk.models.list())
        for name in ("a/b:c d", "none", "a%b", "é"):
            with pytest.raises(openai.NotFoundError) as caught:
                sdk.models.retrieve(name)
            assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
            assert name in str(caught.value)


@pytest.mark.parametrize("name", ["pip", "PIP", "pip:latest", "Pip:Latest"])
def test_m1_m2_spellings_of_a_name_are_echoed(http: httpx.Client, name: str) -> None:
    """Ollama 2, 17.31: case and ``:latest`` lead to one model; answers repeat the request's own spelling."""
    assert hello(http, "/api/chat", talk(model=name)).json()["model"] == name
    assert hello(http, "/v1/chat/completions", ask(model=name)).json()["model"] == name
    assert http.post("/api/embed", json={"model": "EMBED:latest", "input": "a"}).json()["model"] == "EMBED:latest"


def test_m2_what_an_embedding_model_cannot_do_has_the_routes_name(http: httpx.Client) -> None:
    """Ollama 1.3: ``does not support chat`` or ``generate``, whichever was asked; also in a stream, before it begins."""
    for verb, fields in (("chat", {"messages": HELLO}), ("generate", {"prompt": "Hello!"})):
        for stream in (False, True):
            answer = http.post(f"/api/{verb}", json={"model": "embed", "stream": stream, **fields})
            assert (answer.status_code, answer.json()) == (400, {"error": f'"embed" does not support {verb}'})


# What bodies may look like.


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "application/json; x=y"])
def test_m1_m2_content_type_is_not_looked_at(http: httpx.Client, kind: str | None) -> None:
    """Ollama 1.1, OpenAI 1: curl sends the form type, some send none."""
    headers = {} if kind is None else {"content-type": kind}
    for path, body in (("/api/chat", talk()), ("/v1/chat/completions", ask())):
        answer = http.post(path, content=json.dumps(body), headers=headers)
        assert HOW in answer.text


def test_m2_keys_in_any_case(http: httpx.Client) -> None:
    """Ollama 1.1: keys of structs match in any case, those inside ``options`` do not."""
    body = {"Model": "pip", "MESSAGES": [{"Role": "user", "Content": "Hello!"}], "Stream": False}
    answer = hello(http, "/api/chat", {**body, "Options": {"temperature": 0, "NUM_PREDICT": 1}})
    assert answer.json()["done_reason"] == "stop"


def test_m1_unknown_fields_and_nulls(http: httpx.Client) -> None:
    """OpenAI 3: every optional field may be null; what is unknown is passed over."""
    names = (
        "temperature top_p seed stop n logprobs top_logprobs tools tool_choice response_format stream stream_options"
    )
    nulls = dict.fromkeys(f"{names} user logit_bias metadata reasoning_effort max_tokens functions".split())
    hello(http, "/v1/chat/completions", {"model": "pip", "messages": HELLO, **nulls, "top_k": 1})
    odd = {
        "store": True,
        "service_tier": "auto",
        "verbosity": "low",
        "modalities": ["text"],
        "of_next_year": {"a": [1]},
    }
    hello(http, "/v1/chat/completions", ask(**odd, keep_alive="5m", options={}, tools=[], prompt_cache_key="x"))


def test_m2_unknown_options_and_nulls(http: httpx.Client) -> None:
    """Ollama 7.1: gone and unknown options are passed over, null ones skipped, floats cut; ``tools: []`` means none."""
    gone = {
        "tfs_z": 1.0,
        "penalize_newline": False,
        "numa": True,
        "low_vram": True,
        "f16_kv": True,
        "rope_frequency_base": 1,
    }
    odd = {**COLD, **gone, "mirostat": 0, "of_next_year": "x", "num_ctx": 2048.0, "num_predict": -2, "seed": None}
    hello(http, "/api/chat", talk(options=odd, tools=[], format="", think=None, truncate=True, shift=True))
    empty: dict[str, Any] = {"suffix": "", "system": "", "template": "", "context": [], "images": [], "raw": False}
    body = {"model": "pip", "prompt": "Hello!", "stream": False, "options": COLD, "width": 0, "steps": 0, **empty}
    hello(http, "/api/generate", body)
    wrong = http.post("/api/chat", json=talk(options={"num_ctx": "x"}))
    assert (wrong.status_code, wrong.json()["error"]) == (400, 'option "num_ctx" must be of type integer')


def test_m1_m2_odd_messages(http: httpx.Client) -> None:
    """Ollama 17.35, OpenAI 3.1, 14.8: developer is system; content may be null, parts, or missing; ``tool_calls: []``."""
    developer = {"role": "developer", "content": "Be nice."}
    hello(http, "/api/chat", talk(messages=[developer, *HELLO]))
    hello(http, "/v1/chat/completions", ask(messages=[developer, *HELLO]))
    parts = {"role": "system", "content": [{"type": "text", "text": "Be nice."}]}
    hello(http, "/v1/chat/completions", ask(messages=[parts, *HELLO, {"role": "assistant", "content": None}, *HELLO]))
    none = {"role": "assistant", "content": "x", "tool_calls": []}
    hello(http, "/v1/chat/completions", ask(messages=[*HELLO, none, *HELLO]))
    hello(http, "/api/chat", talk(messages=[*HELLO, none, *HELLO]))
    hello(http, "/api/chat", talk(messages=[*HELLO, {"role": "assistant"}, {"role": "USER", "content": "Hello!"}]))


def test_m2_php_writes_no_properties_as_a_list(http: httpx.Client) -> None:
    """Ollama 6.1, 17.26: ``properties: []`` is an empty object; type arrays and missing types are schemas too."""
    empty = {"type": "object", "properties": []}
    loose = {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"description": "any"}}}
    for schema in (empty, loose, None):
        tool = {"type": "function", "function": {"name": "ping", "description": "", "parameters": schema}}
        hello(http, "/api/chat", talk(tools=[tool]))


def test_m2_system_messages_alone_are_a_chat(http: httpx.Client) -> None:
    """Ollama 17.21: only an empty list means to load."""
    answer = http.post("/api/chat", json=talk(messages=[{"role": "system", "content": "Be nice."}])).json()
    assert answer["done_reason"] != "load"
    assert answer["message"]["content"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_m2_a_load_is_one_json_object(http: httpx.Client, path: str) -> None:
    """Ollama 5, 6.2: also when streaming, which is the default."""
    for keep_alive, reason in ((None, "load"), ("5m", "load"), (0, "unload"), ("0", "unload"), ("0s", "unload")):
        answer = http.post(path, json={"model": "pip", "keep_alive": keep_alive})
        assert answer.headers["content-type"] == JSON
        assert (answer.json()["done"], answer.json()["done_reason"]) == (True, reason)


def test_m2_streams_unless_told_not_to(http: httpx.Client) -> None:
    """Ollama 1.2, 17.24: NDJSON natively, plain JSON on /v1; compact lines, no blank ones, ``message`` in each."""
    answer = http.post("/api/chat", json={"model": "pip", "messages": HELLO, "options": COLD})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = answer.text.split("\n")
    assert lines.pop() == ""
    told = [json.loads(line) for line in lines]
    assert [line["done"] for line in told] == [False] * (len(told) - 1) + [True]
    assert all(line["message"]["role"] == "assistant" and isinstance(line["message"]["content"], str) for line in told)
    assert all("error" not in line and "type" not in line for line in told)
    assert http.post("/v1/chat/completions", json=ask()).headers["content-type"] == "application/json"


def test_m1_usage_only_when_asked(http: httpx.Client) -> None:
    """OpenAI 5.1, 14.6: a usage frame has ``choices: []`` and stands last; unasked there is none, nor when refused."""
    for options, count in (({"include_usage": True}, 1), ({"include_usage": False}, 0), (None, 0), ({}, 0)):
        answer = http.post("/v1/chat/completions", json=ask(stream=True, stream_options=options))
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = answer.text.split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        told = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
        assert [bool(frame.get("usage")) for frame in told] == [False] * (len(told) - count) + [True] * count
        assert [frame["choices"] == [] for frame in told] == [False] * (len(told) - count) + [True] * count
        assert len({(frame["id"], frame["created"], frame["model"]) for frame in told}) == 1
        roles = [choice["delta"].get("role") for frame in told for choice in frame["choices"]]
        assert roles == ["assistant"] + [None] * (len(roles) - 1)


# How long models stay.


def test_m2_keep_alive_forms(http: httpx.Client) -> None:
    """Ollama 7.2, 17.5: numbers, Go's durations, and the unitless texts that many send; /api/ps tells the end."""

    def expires(keep_alive: Any) -> float:
        hello(http, "/api/chat", talk(keep_alive=keep_alive))
        (row,) = [row for row in http.get("/api/ps").json()["models"] if row["model"] == "pip:latest"]
        return datetime.fromisoformat(row["expires_at"]).timestamp()

    minute = expires("1m")
    for hour in (3600, 3600.5, "1h", "3600s", "60m", "3600", "1h0m0s"):
        assert 3500 < expires(hour) - minute < 3700
    for forever in (-1, "-1", "-1s", -0.5, "-1m"):
        assert expires(forever) - minute > 100 * 365 * 86400
    for wrong in ("x", "5 minutes", True, [], {}):
        assert http.post("/api/chat", json=talk(keep_alive=wrong)).status_code == 400
    hello(http, "/api/chat", talk(keep_alive=0))
    assert "pip:latest" not in {row["model"] for row in http.get("/api/ps").json()["models"]}


# Browsers.


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "app://obsidian.md", "tauri://x"])
def test_m1_m2_preflight_of_a_local_page(http: httpx.Client, origin: str) -> None:
    """Ollama 1.6, OpenAI 1: 204, the origin itself, and whatever headers the SDKs bring."""
    asked = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,anthropic-version"
    for path in ("/v1/chat/completions", "/api/chat", "/v1/models"):
        head = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": asked}
        answer = http.options(path, headers=head)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, origin)
        assert answer.headers["access-control-allow-headers"] == asked
        assert "POST" in answer.headers["access-control-allow-methods"]
    answer = http.post("/v1/chat/completions", json=ask(), headers={"origin": origin})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)


def test_m1_m2_preflight_of_a_strange_page(http: httpx.Client) -> None:
    """Ollama 1.6, 17.13: 403; the words say what to list."""
    answer = http.get("/api/tags", headers={"origin": "https://evil.example"})
    assert (answer.status_code, "cors.origins" in answer.json()["error"]) == (403, True)


def test_m2_clients_of_containers_find_the_host(http: httpx.Client) -> None:
    """Ollama 1.7, 17.14: in Docker the machine is called host.docker.internal; the cure is in the words."""
    assert "host.docker.internal" in (ROOT / "config.yaml").read_text()
    answer = http.get("/api/tags", headers={"host": "a.example"})
    assert (answer.status_code, "`hosts`" in answer.json()["error"]) == (403, True)


def test_m2_the_python_client_lists_and_deletes_honestly(gateway: Served) -> None:
    """Ollama 16: what is configured stays; copies come and go, each with a status of exactly 200."""
    client = ollama.Client(gateway.url)
    with pytest.raises(ollama.ResponseError, match="comes from config"):
        client.delete("pip")
    assert client.pull("pip").status == "success"
    assert client.copy("pip", "other").status == "success"
    assert client.delete("other").status == "success"


# JavaScript.


@pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript clients need Node")
def test_m1_m2_m5_what_javascript_clients_trip_over(gateway: Served) -> None:
    """OpenAI 14.2, 14.3, 9, 5.1; Ollama 17.9, 17.10, 17.25: helpers, tools, usage, leaving, base64, through every way."""
    ways = ["pip", "pip-openai", "pip-ollama"]
    script = ROOT / "tests" / "js" / "trips.mjs"
    run = subprocess.run(["node", script, gateway.url, *ways], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    anna = {"name": "Anna", "age": 30, "city": "Paris"}
    for way in ways:
        seen = told[way]
        assert seen["helper"] == ["tool_calls", "assistant", "get_weather", {"city": "Paris"}]
        assert seen["runTools"] == "The result is sunny."
        assert seen["parse"] == seen["format"] == anna
        assert (seen["usage"][-1], set(seen["usage"][:-1])) == (0, {None})
        assert seen["left"]
        assert seen["thoughts"] == ["I must add 7 and 8.", "7 + 8 = 15"]
        assert seen["ollamaCall"] == {"city": "Paris"}
        assert seen["embedding"] < 1e-6
        assert seen["rows"] == [[0, True], [1, True]]
    assert (told["retrieve"], told["show"], told["ps"]) == ("pip-openai", True, True)
    assert "comes from config.yaml" in told["delete"]
