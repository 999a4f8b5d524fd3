"""schemathesis drives a live gateway from its own OpenAPI document: every operation, with good requests and bad ones.

And whatever the document forbids, a field at a time, is refused.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import BaseSchema, Case, GenerationMode, Response

from tests.openapis import Document, Judge, closed, eased, example, told, wrong
from tests.serving import Served, serving

EXAMPLES = int(os.environ.get("DRIVEN", "2"))
"""Of each operation, good ones and as many bad ones."""
BACKENDS = frozenset({501, 502, 503, 504, 507})
"""What may come of a request that is no fault of the gateway's: a part that is not there, a server, no room."""

LISTENERS = (
    ("ollama", "openai", "anthropic", "lmstudio", "conversation", "libretranslate"),
    ("hybrid", "brenda", "automatic1111"),
    ("images",),
    ("openai", "anthropic", "brenda", "hybrid", "images", "conversation"),
)
"""The last has a path of two dialects for each way to decide; only those are driven there."""
CONFIG = f"""
listeners:
{"".join(f"  - {{port: 0, dialects: [{', '.join(names)}]}}" + chr(10) for names in LISTENERS)}
backends:
  echo: {{type: echo}}
  local: {{type: llama_cpp, models_dir: ./models, store: data/models, pull: {{hosts: ["127.0.0.1:1"]}}}}
  words: {{type: marian, models_dir: ./models/translation, cache: data/translation}}
data_dir: data
"""
ELSEWHERE = frozenset({"/api/pull", "/api/push"})
"""Whoever asks for a host that is not listed is refused, and there is no network here."""
MODELS = {"enum": ["echo", "nobody"]}
"""Generated names would all be those of models that there are not."""

_PIP = {"enum": ["pip"]}
_RED = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
_TEXT = {"type": "string", "minLength": 1, "maxLength": 40}
_TURN = {"role": {"enum": ["user", "assistant"]}, "content": _TEXT}
_TURNS = {"type": "array", "minItems": 1, "maxItems": 2, "items": {"$ref": "#/components/schemas/OllamaMessage"}}
_MADE = {"enum": ["made", "made:other"]}
_CODE = {"enum": ["en", "fr"]}
_RESPONSE = {
    "input": _TEXT,
    "model": MODELS,
    "temperature": None,
    "stream": None,
    "store": None,
    "max_output_tokens": None,
}
_PAINTED = {"prompt": _TEXT, "steps": {"enum": [1, 2]}, "batch_size": {"enum": [1, 2]}, "send_images": None}
GOOD: dict[str, dict[str, Any]] = {
    "AnthropicCountRequest": {"messages": None, "model": _PIP, "system": _TEXT},
    "AnthropicMessage": _TURN,
    "AnthropicMessagesRequest": {
        "messages": None,
        "model": MODELS,
        "stream": None,
        "max_tokens": None,
        "system": _TEXT,
    },
    "Automatic1111ImageToImage": {
        "init_images": {"type": "array", "items": {"enum": [_RED]}, "minItems": 1, "maxItems": 1},
        **_PAINTED,
    },
    "Automatic1111PictureAsked": {"image": {"enum": [_RED]}},
    "Automatic1111TextToImage": _PAINTED,
    "BrendaAnalyzeRequest": {"image": {"enum": [_RED]}, "labels": None},
    "BrendaOcrRequest": {"image": {"enum": [_RED]}},
    "BrendaChatRequest": {"messages": None, "model": MODELS, "stream": None, "system": _TEXT, "max_tokens": None},
    "BrendaGenerateRequest": {
        "prompt": _TEXT,
        "steps": {"enum": [1, 2]},
        "model_type": MODELS,
        "seed": {"enum": [-1, 7]},
    },
    "BrendaRefineRequest": {"prompt": _TEXT, "steps": {"enum": [5, 9]}, "image": {"enum": [_RED]}},
    "BrendaMessage": {"role": {"enum": ["user", "ai"]}, "content": _TEXT},
    "BrendaTranslateRequest": {"text": _TEXT, "from_lang": _CODE, "to_lang": _CODE},
    "ConversationQuery": {"prompt": _TEXT, "model": MODELS},
    "HybridMessage": _TURN,
    "HybridChatRequest": {"messages": None, "model_key": MODELS, "config": None},
    "ImagesGenerateRequest": {"prompt": _TEXT, "model": MODELS, "steps": {"enum": [1, 2]}, "n": {"enum": [1, 2]}},
    "LMStudioChatRequest": {"model": MODELS, "input": _TEXT, "stream": None, "store": None, "temperature": None},
    "LibreTranslateTranslateRequest": {"q": _TEXT, "source": _CODE, "target": _CODE},
    "OllamaCopyRequest": {"source": {"enum": ["pip", "made"]}, "destination": _MADE},
    "OllamaCreateRequest": {"model": _MADE, "from": {"enum": ["pip"]}, "system": None, "stream": None},
    "OllamaMessage": _TURN,
    "OllamaChatRequest": {"model": MODELS, "messages": _TURNS, "stream": None, "keep_alive": {"type": "number"}},
    "OllamaGenerateRequest": {"model": MODELS, "prompt": _TEXT, "stream": None, "system": _TEXT},
    "OllamaShowRequest": {"model": {"enum": ["echo", "pip", "made"]}, "verbose": None},
    "OllamaTransferRequest": {"model": _MADE, "stream": None},
    "OpenAIChatRequest": {
        "model": MODELS,
        "messages": None,
        "stream": None,
        "stream_options": None,
        "temperature": None,
        "n": {"enum": [1, 2]},
        "max_tokens": None,
    },
    "OpenAICompletionRequest": {"model": MODELS, "prompt": _TEXT, "stream": None, "n": {"enum": [1, 2]}, "echo": None},
    "OpenAIEdit": {"prompt": _TEXT, "image": {"enum": [_RED]}, "model": MODELS, "n": {"enum": [1, 2]}, "stream": None},
    "OpenAIGeneration": {"prompt": _TEXT, "model": MODELS, "n": {"enum": [1, 2]}, "stream": None, "quality": None},
    "OpenAIVariation": {"image": {"enum": [_RED]}, "model": MODELS, "response_format": None},
    "OpenAIEmbeddingsRequest": {"model": MODELS, "input": _TEXT, "encoding_format": None},
    "OpenAIMessage": _TURN,
    "OpenAIRerankRequest": {
        "model": MODELS,
        "query": _TEXT,
        "documents": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 3},
        "return_documents": None,
    },
    "ResponsesAsks": {"input": _TEXT, "model": _PIP},
    "ResponsesRequest": _RESPONSE,
}
"""What makes a request good is more than the types of its fields: the fields that a good one may have. None: as told."""
_KNOWN = {"conv_id": {"enum": ["one", "two", "start"]}, "model": {"enum": ["echo", "pip", "nobody"]}}
"""Names in paths and queries, so that what one request makes another one finds."""


@cache
def document(listener: int, mode: GenerationMode) -> Document:
    """A listener's, with names of models that there are; to make good requests of, or bad ones."""
    whole = (
        closed(told(*LISTENERS[listener]))
        if mode is GenerationMode.POSITIVE
        else copy.deepcopy(told(*LISTENERS[listener]))
    )
    schemas = whole["components"]["schemas"]
    for schema in schemas.values():
        if "string" in str(schema.get("properties", {}).get("model", "")):
            schema["properties"]["model"] = MODELS
    if mode is GenerationMode.NEGATIVE:
        return whole
    for name, fields in GOOD.items():
        if name in schemas:
            schemas[name]["properties"] = {
                field: schemas[name]["properties"][field] if schema is None else schema
                for field, schema in fields.items()
            }
            needed = schemas[name].get("required", ())
            schemas[name]["required"] = [field for field, schema in fields.items() if schema or field in needed]
    for methods in whole["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _KNOWN.get(parameter.get("name"), parameter.get("schema"))
    return whole


@cache
def loaded(listener: int, mode: GenerationMode) -> BaseSchema:
    return schemathesis.openapi.from_dict(document(listener, mode))


def operations() -> Iterator[tuple[int, str, str]]:
    for listener in range(len(LISTENERS)):
        for path, methods in told(*LISTENERS[listener])["paths"].items():
            for method, operation in methods.items():
                if listener < len(LISTENERS) - 1 or len(operation["tags"]) > 1:
                    yield listener, method, path


@cache
def judge(listener: int) -> Judge:
    return Judge(closed(told(*LISTENERS[listener])))


@cache
def lenient(listener: int) -> Judge:
    return Judge(eased(told(*LISTENERS[listener])))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(CONFIG, listeners=len(LISTENERS)) as served:
        yield served


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        one.trust_env = False  # it would look for proxies before each of 7,000 requests
        yield one


def check(listener: int, method: str, path: str, response: Response, asked: str) -> None:
    """The answer is one that the document tells of, and what it forbids is refused."""
    told_of = f"{asked}\n{response.status_code} {response.text[:1000]}"
    assert response.status_code < 500 or response.status_code in BACKENDS, told_of
    media_type = response.headers.get("content-type", [""])[0]
    faults = judge(listener).response(path, method, response.status_code, media_type, response.content)
    assert not faults, f"{faults}\n{told_of}"
    body = response.request.body
    body = body.encode() if isinstance(body, str) else body
    told_body = judge(listener).whole["paths"][path][method].get("requestBody", {}).get("content", {})
    if body and "application/json" in told_body and response.status_code < 400:
        assert not lenient(listener).request(path, method, body), f"accepted\n{told_of}"


@pytest.mark.parametrize(("listener", "method", "path"), list(operations()), ids=str)
def test_m6_the_gateway_does_as_its_document_says(
    gateway: Served, session: requests.Session, listener: int, method: str, path: str
) -> None:
    raw = told(*LISTENERS[listener])["paths"][path][method]
    modes = [GenerationMode.POSITIVE]
    if "application/json" in raw.get("requestBody", {}).get("content", {}) or any(
        parameter.get("in") == "query" for parameter in raw.get("parameters", ())
    ):
        modes.append(GenerationMode.NEGATIVE)
    for mode in modes:
        operation = loaded(listener, mode)[path][method]

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def drive(case: Case) -> None:
            response = case.call(gateway.urls[listener], session=session, timeout=30, allow_redirects=False)
            check(listener, method, path, response, case.as_curl_command())

        drive()


_BODIES = [
    (listener, method, path)
    for listener, method, path in operations()
    if "application/json" in told(*LISTENERS[listener])["paths"][path][method].get("requestBody", {}).get("content", {})
]


@pytest.mark.parametrize(("listener", "method", "path"), _BODIES, ids=str)
def test_m6_what_the_document_forbids_is_refused(
    gateway: Served, session: requests.Session, listener: int, method: str, path: str
) -> None:
    whole = document(listener, GenerationMode.POSITIVE)
    form = whole["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    good = example(whole, form)
    plain = told(*LISTENERS[listener])["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    url = gateway.urls[listener] + path.replace("{", "").replace("}", "")
    tried = 0
    response = session.request(method, url, json=good)
    assert response.status_code not in {400, 422} or path in ELSEWHERE, f"{good}: {response.text}"
    for body in wrong(lenient(listener), plain, good):
        if lenient(listener).faults(plain, body):
            response = session.request(method, url, json=body)
            assert 400 <= response.status_code < 500, (
                f"{method} {path} {body}: {response.status_code} {response.text[:500]}"
            )
            tried += 1
    assert tried > 3


def test_m6_what_one_request_makes_another_finds_as_the_document_says(
    gateway: Served, session: requests.Session
) -> None:
    def ask(method: str, path: str, status: int, body: Any = None, query: str = "", **named: str) -> requests.Response:
        at = gateway.url + path.format(**named) + query
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        response = session.request(method, at, **sent)
        assert response.status_code == status, response.text
        media_type = response.headers["content-type"]
        assert judge(0).response(path, method, status, media_type, response.content) == []
        return response

    kept = ask("POST", "/v1/responses", 200, {"model": "echo", "input": "hello", "store": True}).json()["id"]
    ask("GET", "/v1/responses/{id}", 200, id=kept)
    ask("GET", "/v1/responses/{id}", 200, query="?stream=true", id=kept)
    ask("GET", "/v1/responses/{id}/input_items", 200, query="?limit=1&order=asc", id=kept)
    ask("POST", "/v1/responses/{id}/cancel", 400, id=kept)
    ask("DELETE", "/v1/responses/{id}", 200, id=kept)
    later = {"model": "echo", "input": "hello", "background": True}
    ask("POST", "/v1/responses/{id}/cancel", 200, id=ask("POST", "/v1/responses", 200, later).json()["id"])
    ask("POST", "/v1/responses", 200, {**later, "stream": True})
    blob = "sha256:" + hashlib.sha256(b"a file").hexdigest()
    ask("POST", "/api/blobs/{digest}", 201, b"a file", digest=blob)
    ask("POST", "/api/blobs/{digest}", 200, b"a file", digest=blob)
    ask("HEAD", "/api/blobs/{digest}", 200, digest=blob)
    ask("POST", "/api/create", 200, {"model": "little", "from": "pip", "system": "Be brief."})
    ask("POST", "/api/show", 200, {"model": "little", "verbose": True})
    chat = {"model": "little", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    ask("POST", "/api/chat", 200, {**chat, "logprobs": True, "top_logprobs": 2})
    ask("GET", "/api/ps", 200)
    ask("GET", "/api/v1/models", 200)
    ask("GET", "/api/v0/models/{model}", 200, model="little")
    ask("DELETE", "/api/delete", 200, {"model": "little"})
    ask("GET", "/v1/models/{model}", 200, model="pip")
    job = ask("POST", "/api/v1/models/download", 400, {"model": "hf.co/nobody/nothing"})
    assert "pull.hosts" in job.text


@pytest.mark.parametrize("listener", range(len(LISTENERS)))
def test_m6_other_methods_are_refused_with_those_there_are(
    gateway: Served, session: requests.Session, listener: int
) -> None:
    paths = told(*LISTENERS[listener])["paths"]
    for path, methods in paths.items():
        url = gateway.urls[listener] + path.replace("{", "").replace("}", "")
        there = {method.upper() for method in methods}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - there:
            response = session.request(method, url)
            if any(_within(path, other) and method.lower() in paths[other] for other in paths) or (
                path.endswith("}") and f"{path}/load" in paths and method == "POST"
            ):  # names may have slashes, so that one route has all of them
                assert response.status_code in {404, 405, 501}
                continue
            assert response.status_code == 405, f"{method} {path}"
            allowed = {name.strip() for name in response.headers.get("allow", "").split(",")}
            assert method not in allowed
            assert there <= allowed, f"{method} {path}: {allowed}"


def _within(path: str, other: str) -> bool:
    return path != other and re.fullmatch(re.sub(r"\{\w+\}", ".+", other), path) is not None
