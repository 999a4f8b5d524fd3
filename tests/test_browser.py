"""Pages in a real browser: who may call a gateway from where, and what they can read. B1, C1, C6; the rules of CORS.

A page's origin is a port or a host name of its own; both gateways listen on loopback, as a user's does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from tests.browser import Browser, browsing
from tests.serving import serving

MODELS = """
backends:
  local: {type: llama_cpp, models_dir: ./models, threads: 1}
  parrot: {type: echo}
models:
  - {id: pip, backend: local, file: pip.gguf, mmproj: pip-mmproj.gguf, temperature: 0}
defaults: {chat: pip}
"""
OPEN = (
    """
listeners:
  - {port: 0, dialects: [ollama, openai, anthropic, conversation]}
  - {port: 0, dialects: [brenda], cors: {origins: ["*"], credentials: true}}
  - {port: 0, dialects: [ollama, openai], cors: {origins: ["*"]}}
  - {port: 0, dialects: [ollama, openai], hosts: [gateway.test], cors: {origins: ["http://listed.test:*"]}}
"""
    + MODELS
)
KEY = "a-key-of-this-test"
LOCKED = (
    f"""
keys: ["{KEY}"]
listeners: [{{port: 0, dialects: [brenda], cors: {{origins: ["*"], credentials: true}}}}]
"""
    + MODELS
)
LOCAL = "http://localhost"
FOREIGN = "http://front.test"
REFUSED = {"refused": "TypeError"}
"""What a page sees of an answer that it may not read, and of a request that was not sent: nothing."""
FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


class Town(NamedTuple):
    browser: Browser
    plain: str
    """A gateway as it stands by default."""
    brenda: str
    """Configured as Brenda's document says."""
    anybody: str
    """Open to every origin, without credentials."""
    listed: str
    """Open to one more origin, and known by a name of its own."""
    locked: str
    """As Brenda's, and with keys."""


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with ExitStack() as stack:
        browser = stack.enter_context(browsing())
        gateway = stack.enter_context(serving(OPEN, listeners=4))
        locked = stack.enter_context(serving(LOCKED))
        yield Town(browser, *gateway.urls, locked.url)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "pip", "messages": [{"role": "user", "content": FRANCE}], **more}


def content(told: Any) -> str:
    text: str = json.loads(told["text"])["choices"][0]["message"]["content"]
    return text


# As it stands by default


@pytest.mark.parametrize("origin", [LOCAL, "http://127.0.0.1"])
def test_a_local_page_may_call_and_read_what_it_needs(town: Town, origin: str) -> None:
    told = town.browser.run(
        origin,
        "return call(given.url, post(given.body, {headers: {'content-type': 'application/json', 'x-stainless-lang': 'js'}}))",
        url=f"{town.plain}/v1/chat/completions",
        body=chat(),
    )
    assert told["status"] == 200
    assert content(told) == PARIS
    assert told["headers"]["x-request-id"]
    assert town.browser.call(origin, f"{town.plain}/api/tags")["status"] == 200
    missing = town.browser.call(origin, f"{town.plain}/v1/nothing")
    assert missing["status"] == 404
    assert missing["headers"]["x-request-id"]


def test_a_page_of_another_site_is_refused_and_learns_nothing(town: Town) -> None:
    call = town.browser.call
    assert call(FOREIGN, f"{town.plain}/api/tags") == REFUSED
    assert call(FOREIGN, f"{town.plain}/v1/models", credentials="include") == REFUSED
    # Simple requests, which browsers send without asking first: as a form, as an image, blindly.
    body = json.dumps(chat())
    assert call(FOREIGN, f"{town.plain}/v1/chat/completions", method="POST", body=body) == REFUSED
    blind = call(FOREIGN, f"{town.plain}/api/chat", method="POST", body=body, mode="no-cors")
    assert (blind["status"], blind["text"]) == (0, "")
    assert ("POST", f"{town.plain}/api/chat", 403) in town.browser.seen
    # With what makes a browser ask first, it is not even sent.
    assert call(FOREIGN, f"{town.plain}/api/delete", method="DELETE", body="{}") == REFUSED


def test_a_page_without_an_origin_of_its_own_is_refused(town: Town) -> None:
    """A frame in a sandbox, and a page that is data, send ``Origin: null``."""
    script = """
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    const told = new Promise((done) => addEventListener("message", (event) => done(event.data)));
    const code = `fetch("${given.url}", {method: "POST", body: "{}"})
      .then((answer) => answer.status, (error) => error.name).then((word) => parent.postMessage(word, "*"))`;
    frame.srcdoc = "<script>" + code + "</scr" + "ipt>";
    document.body.append(frame);
    return told;
    """
    assert town.browser.run(LOCAL, script, url=f"{town.plain}/api/show") == "TypeError"


@pytest.mark.parametrize(("origin", "status"), [(FOREIGN, 403), (LOCAL, 400)])
def test_a_form_of_another_site_is_refused(town: Town, origin: str, status: int) -> None:
    script = """
    const frame = document.createElement("iframe"), form = document.createElement("form");
    frame.name = "there";
    Object.assign(form, {method: "POST", action: given.url, target: "there", enctype: "text/plain"});
    document.body.append(frame, form);
    const loaded = new Promise((done) => frame.addEventListener("load", done));
    form.submit();
    await loaded;
    """
    url = f"{town.plain}/api/show"
    town.browser.run(origin, script, url=url)
    assert ("POST", url, status) in town.browser.seen


def test_a_name_that_leads_here_by_a_trick_is_not_served(town: Town) -> None:
    """DNS rebinding: the page's own name leads to the gateway, so that it is of one origin with it."""
    port = town.plain.rpartition(":")[2]
    browser = town.browser
    trick = f"http://rebound.test:{port}"
    told = browser.run(
        trick, "return {text: document.body.innerText, again: await fetch('/api/tags').then((a) => a.status)}"
    )
    assert "host name" in told["text"]
    assert told["again"] == 403
    named = f"http://gateway.test:{town.listed.rpartition(':')[2]}"
    assert browser.run(named, "return fetch('/api/tags').then((answer) => answer.status)") == 200


def test_a_listed_origin_may_call_and_no_other(town: Town) -> None:
    call = town.browser.call
    assert call("http://listed.test", f"{town.listed}/api/tags")["status"] == 200
    assert call("http://sub.listed.test", f"{town.listed}/api/tags") == REFUSED
    assert call("http://listed.test", f"{town.listed}/api/tags", credentials="include") == REFUSED


def test_every_origin_may_call_where_it_says_so_but_without_credentials(town: Town) -> None:
    call = town.browser.call
    assert call(FOREIGN, f"{town.anybody}/api/tags")["status"] == 200
    assert call(FOREIGN, f"{town.anybody}/api/tags", credentials="include") == REFUSED


# Brenda's, as its document has it: every origin, method and header, credentials, all headers exposed

SESSION = "a-session-of-this-page"
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
ROUTES = [
    ("GET", "/v1/models", None),
    ("POST", "/v1/models/pip/load", {}),
    ("POST", "/v1/chat/completions", chat(stream=False)),
    ("POST", "/v1/chat/completions", chat(stream=True, system="Be brief.")),
    ("GET", "/v1/session", None),
    ("POST", "/v1/stop", {}),
    ("POST", "/v1/images/analyze", {"image": IMAGE, "labels": ["chat", "chien"]}),
    ("POST", "/v1/images/ocr", {"image": IMAGE}),
    ("GET", "/v1/translation/languages", None),
    ("POST", "/v1/translation/translate", {"text": "hello", "from_lang": "en", "to_lang": "fr"}),
]


def test_b1_a_page_of_another_origin_can_call_every_route_with_credentials_and_reads_every_header(town: Town) -> None:
    """What a route answers is its own tests' business; that the page can read it, and all its headers, is this one's."""
    script = """
    document.cookie = "mine=1";
    const told = [];
    for (const [method, path, body] of given.routes) {
      const init = {method, credentials: "include", headers: {"X-Session-ID": given.session, "X-Of-Its-Own": "1"}};
      if (body) Object.assign(init, {body: JSON.stringify(body)}).headers["Content-Type"] = "application/json";
      told.push(await call(given.url + path, init));
    }
    return told;
    """
    told = town.browser.run(FOREIGN, script, url=town.brenda, routes=ROUTES, session=SESSION)
    for (method, path, _), answer in zip(ROUTES, told, strict=True):
        assert "refused" not in answer, (method, path)
        headers = answer["headers"]
        assert headers["x-session-id"] == SESSION, (method, path)
        assert headers["x-request-id"], (method, path)
        assert answer["status"] < 500 or answer["status"] == 501, (method, path, answer)
        assert json.loads(answer["text"]) if headers["content-type"] == "application/json" else answer["text"]
    assert "pip" in json.loads(told[0]["text"])["models"]
    assert content(told[2]) == PARIS
    assert json.loads(told[4]["text"]) == {"session_id": SESSION, "current_model": "pip", "has_model_loaded": True}
    assert json.loads(told[5]["text"]) == {"status": "stopped"}


def test_b1_every_method_and_header_may_be_asked_for(town: Town) -> None:
    call = town.browser.call
    for method in ("PUT", "PATCH", "DELETE"):
        told = call(FOREIGN, f"{town.brenda}/v1/models", method=method, credentials="include")
        assert told["status"] == 405
        assert told["headers"]["allow"]
    missing = call(FOREIGN, f"{town.brenda}/v1/nothing", headers={"X-Any": "1"}, credentials="include")
    assert (missing["status"], bool(missing["headers"]["x-session-id"])) == (404, True)


def test_b8_a_page_goes_on_in_the_session_that_it_was_given(town: Town) -> None:
    script = """
    const first = await call(given.url + "/v1/chat/completions", post(given.body, {credentials: "include"}));
    const id = first.headers["x-session-id"];
    const again = await call(given.url + "/v1/session", {credentials: "include", headers: {"X-Session-ID": id}});
    return [id, JSON.parse(again.text)];
    """
    id, told = town.browser.run(FOREIGN, script, url=town.brenda, body=chat())
    assert told == {"session_id": id, "current_model": "pip", "has_model_loaded": True}


def test_b6_a_page_reads_a_stream_of_plain_text_with_its_line_breaks(town: Town) -> None:
    said = "Un\n\n  Deux\ndata: [DONE]\n\n\n: trois\tfin\u2028event: error \u00e9t\u00e9\n"
    asked = {"model": "echo", "messages": [{"role": "user", "content": said}], "stream": True}
    script = "return events(given.url, post(given.body, {credentials: 'include'}))"
    told = town.browser.run(FOREIGN, script, url=f"{town.brenda}/v1/chat/completions", body=asked)
    assert (told["status"], told["rest"], told["events"][-1]) == (200, "", "[DONE]")
    assert len(told["events"]) > 5
    assert "".join(told["events"][:-1]) == said


def test_b11_b15_a_page_watches_a_picture_and_shows_it(town: Town) -> None:
    """As the document's readers do it: an event at a time, and what is completed goes into an image."""
    script = """
    async function painted(path, body, more) {
      const answer = await fetch(given.url + path, post(body, more));
      const shares = [], reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "";;) {
        const { value, done } = await reader.read();
        if (done) throw new Error("it ended without a picture: " + rest);
        const blocks = (rest + value).split("\\n\\n");
        rest = blocks.pop();
        for (const block of blocks.filter((one) => one.startsWith("data: "))) {
          const event = JSON.parse(block.slice(6));
          if (event.error) return { status: answer.status, error: event.error };
          if (event.status !== "completed") { shares.push(event.progress); continue; }
          const image = document.createElement("img");
          image.src = "data:image/png;base64," + event.image;
          document.body.append(image);
          await image.decode();
          return { shares, src: image.src, size: [image.naturalWidth, image.naturalHeight], session: answer.headers.get("X-Session-ID") };
        }
      }
    }
    const json = { credentials: "include", headers: { "Content-Type": "application/json" } };
    const first = await painted("/v1/images/generate", { prompt: "un coucher de soleil", width: 96, height: 40, steps: 4 }, json);
    const headers = { ...json.headers, "X-Session-ID": first.session };
    const anew = await painted("/v1/images/refine", { image: first.src, prompt: "en hiver", width: 96, height: 40 }, { ...json, headers });
    const refused = await painted("/v1/images/generate", { prompt: "x", width: 7 }, json);
    return [first, anew, refused];
    """
    first, anew, refused = town.browser.run(FOREIGN, script, url=town.brenda)
    assert (first["shares"][0], first["shares"][-1]) == (0, 1)
    assert first["size"] == anew["size"] == [96, 40]
    assert first["src"] != anew["src"]
    assert first["session"] == anew["session"]
    assert refused["status"] == 400
    assert "width" in refused["error"]


def posted(body: Any) -> dict[str, Any]:
    return {"method": "POST", "body": json.dumps(body)}


def test_b1_with_keys_a_page_needs_one_and_may_ask_without(town: Town) -> None:
    """A browser asks before it sends a header like these, and sends no key with that."""
    call = town.browser.call
    for path in ("/v1/models", "/v1/session", "/v1/nothing"):
        refused = call(FOREIGN, town.locked + path, credentials="include", headers={"X-Session-ID": SESSION})
        assert (refused["status"], refused["headers"]["www-authenticate"]) == (401, "Bearer"), path
        assert refused["headers"]["x-session-id"] == SESSION
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        told = call(FOREIGN, f"{town.locked}/v1/chat/completions", **posted(chat()), headers=headers)
        assert content(told) == PARIS
    wrong = call(FOREIGN, f"{town.locked}/v1/models", headers={"Authorization": f"Bearer {KEY}x"})
    assert wrong["status"] == 401


# A local front end of the conversation service


def test_c6_a_local_front_end_talks_in_a_conversation(town: Town) -> None:
    script = """
    const api = given.url + "/api/conversation/", id = "Première conversation";
    const named = "?conv_id=" + encodeURIComponent(id), place = api + encodeURIComponent(id);
    const json = {headers: {"Content-Type": "application/json"}};
    return [
      await call(given.url + "/api/models"),
      await call(api + "start" + named, {method: "POST"}),
      await call(api + "start" + named, {method: "POST"}),
      await call(place + "/message", post({prompt: "My name is Ada."}, json)),
      await call(place + "/message", post({prompt: "What is my name?", model: "pip"}, json)),
      await call(place),
    ].map(({status, text}) => [status, JSON.parse(text)]);
    """
    told = town.browser.run(LOCAL, script, url=town.plain)
    assert [status for status, _ in told] == [200, 200, 400, 200, 200, 200]
    assert {"model": "pip", "version": "latest"} in told[0][1]
    assert told[4][1]["content"] == "Your name is Ada."
    assert [message["content"] for message in told[5][1]["messages"]] == [
        *("My name is Ada.", "Nice to meet you, Ada!", "What is my name?", "Your name is Ada.")
    ]


def test_c1_c6_a_local_front_end_reads_ollamas_lines_as_events(town: Town) -> None:
    script = "return events(given.url, post({prompt: given.prompt}))"
    told = town.browser.run(LOCAL, script, url=f"{town.plain}/generate", prompt=FRANCE)
    assert told["headers"]["content-type"] == "text/event-stream; charset=utf-8"
    records = [json.loads(event) for event in told["events"]]
    assert "".join(record["response"] for record in records) == PARIS
    assert [record["done"] for record in records] == [False] * (len(records) - 1) + [True]


def test_c6_a_page_of_another_site_cannot_talk_there(town: Town) -> None:
    call = town.browser.call
    assert call(FOREIGN, f"{town.plain}/api/conversation/start?conv_id=theirs", method="POST") == REFUSED
    assert call(FOREIGN, f"{town.plain}/generate", **posted({"prompt": FRANCE})) == REFUSED
    assert call(LOCAL, f"{town.plain}/api/conversation/theirs")["status"] == 404
