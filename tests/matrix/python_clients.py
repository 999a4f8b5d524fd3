"""The official Python SDKs, each behind one ``call``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import anthropic
import ollama
import openai

from tests.matrix.rows import Answer, Body, Refused

ASK = {"Dragoman-Report": "header"}
STRICT = {"Dragoman-Strict": "true"}


class _Headers:
    """Keeps the report of the last answer, which SDKs hide from their users."""

    def __init__(self) -> None:
        self.report: Body | None = None

    def __call__(self, response: Any) -> None:
        told = response.headers.get("dragoman-report")
        self.report = None if told is None else json.loads(told)


class OpenAI:
    """``openai``."""

    errors: Any = openai

    def __init__(self, url: str) -> None:
        self.headers = _Headers()
        self.sdk: Any = self.make(url)

    def make(self, url: str) -> Any:
        """The SDK's client."""
        http = openai.DefaultHttpxClient(event_hooks={"response": [self.headers]})
        return openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, default_headers=ASK, http_client=http, timeout=60
        )

    def call(self, method: str, body: Body, *, stream: bool, strict: bool) -> Answer:
        """See ``Client``."""
        if method == "rerank":  # no SDK knows the route, but each has a way to ask for any
            options = {"headers": STRICT} if strict else {}
            return self._told(
                lambda: self.sdk.post("/rerank", body=body, cast_to=object, options=options), stream=False
            )
        found = self.sdk
        for name in method.split("."):
            found = getattr(found, name)
        known = _parameters(type(self), method, found)
        said = {name: value for name, value in body.items() if name in known}
        more = {name: value for name, value in body.items() if name not in known}
        if more:
            said["extra_body"] = more
        if stream:
            said["stream"] = True
        if strict:
            said["extra_headers"] = STRICT
        return self._told(lambda: found(**said), stream=stream)

    def _told(self, ask: Callable[[], Any], *, stream: bool) -> Answer:
        self.headers.report = None
        try:
            told = ask()
            if stream:
                items = [piece.to_dict(warnings=False) for piece in told]
            elif told is None or isinstance(told, dict):
                items = [told or {}]
            elif hasattr(told, "iter_pages"):
                items = [{"data": [row.to_dict(warnings=False) for row in told]}]
            else:
                items = [told.to_dict(warnings=False)]
        except self.errors.APIStatusError as error:
            raise Refused(error.status_code, _worded(error), type(error).__name__) from error
        return Answer(items, self.headers.report)

    def close(self) -> None:
        """Let go of its connections."""
        self.sdk.close()


class Anthropic(OpenAI):
    """``anthropic``."""

    errors = anthropic

    def make(self, url: str) -> Any:
        """The SDK's client."""
        http = anthropic.DefaultHttpxClient(event_hooks={"response": [self.headers]})
        return anthropic.Anthropic(
            base_url=url, api_key="none", max_retries=0, default_headers=ASK, http_client=http, timeout=60
        )


class Ollama:
    """``ollama``."""

    def __init__(self, url: str) -> None:
        self.headers = _Headers()
        hooks = {"response": [self.headers]}
        self.sdk = ollama.Client(url, headers=ASK, event_hooks=hooks, timeout=60)
        self.strict_sdk = ollama.Client(url, headers={**ASK, **STRICT}, event_hooks=hooks, timeout=60)

    def call(self, method: str, body: Body, *, stream: bool, strict: bool) -> Answer:
        """See ``Client``."""
        self.headers.report = None
        try:
            ask = getattr(self.strict_sdk if strict else self.sdk, method)
            told = ask(**body, **({"stream": True} if stream else {}))
            items = [piece.model_dump(mode="json") for piece in told] if stream else [told.model_dump(mode="json")]
        except ollama.ResponseError as error:
            raise Refused(error.status_code, error.error, type(error).__name__) from error
        return Answer(items, self.headers.report)

    def close(self) -> None:
        """Let go of its connections."""
        self.sdk._client.close()
        self.strict_sdk._client.close()


CLIENTS: dict[str, Any] = {"openai": OpenAI, "responses": OpenAI, "ollama": Ollama, "anthropic": Anthropic}


def _worded(error: Any) -> str:
    """The server's words, and the field that it names beside them."""
    body = error.body if isinstance(error.body, dict) else {}
    message = str((body.get("error") or body).get("message") or error.message)
    param = getattr(error, "param", None)
    return f"{message} [{param}]" if param else message


_seen: dict[tuple[type, str], frozenset[str]] = {}


def _parameters(kind: type, method: str, found: Any) -> frozenset[str]:
    """What the SDK's method takes by name; the rest goes by ``extra_body``, as its users do."""
    if (kind, method) not in _seen:
        _seen[kind, method] = frozenset(inspect.signature(found).parameters)
    return _seen[kind, method]
