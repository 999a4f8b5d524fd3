"""The body of a request -> what the loop computes: the prompt's tokens, the grammar, and how the answer is written."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
from msgspec import Raw, Struct

from backends.llama_cpp.batching import grammars
from backends.llama_cpp.batching.refusal import Refused
from backends.llama_cpp.batching.vocabulary import Vocabulary
from backends.llama_cpp.engine import Kind
from backends.llama_cpp.sampling import Draw
from backends.llama_cpp.templates import ChatTemplate
from canonical.think import OPEN


class _JsonSchema(Struct):
    schema: Any = msgspec.field(default_factory=dict)


class _Format(Struct):
    type: str = "text"
    json_schema: _JsonSchema = msgspec.field(default_factory=_JsonSchema)


class Body(Draw, kw_only=True):
    """An OpenAI request as far as this engine looks at it."""

    messages: list[dict[str, Any]] = msgspec.field(default_factory=list)
    prompt: str | list[int | str] = ""
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    response_format: _Format | None = None
    grammar: str = ""
    json_schema: Raw = Raw()
    chat_template_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    stop: list[str] = msgspec.field(default_factory=list)
    max_tokens: int | None = None
    ignore_eos: bool = False
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    thinking_budget_tokens: int | None = None
    parallel_tool_calls: bool | None = None
    cache_prompt: bool = True
    dragoman_tenant: str = ""

    @property
    def calls(self) -> bool:
        """Whether tool calls are looked for."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def alternatives(self) -> int | None:
        """Of how many tokens beside the chosen one the log probabilities are told; None: of none at all."""
        if self.logprobs is None or self.logprobs is False:
            return None
        return self.top_logprobs or 0 if self.logprobs is True else self.logprobs


read_body = msgspec.json.Decoder(Body).decode


class Asked(Struct, frozen=True):
    """A request made ready."""

    kind: Kind
    body: Body
    tokens: list[int]
    grammar: str
    thinks: bool | None
    """None where the model has no thoughts, else whether the prompt has opened one."""


class Reading:
    """How one model reads requests. Any thread may ask."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate | None, source: str, context: int) -> None:
        """``source``: the template's text; ``context``: the tokens of a request."""
        self._vocabulary = vocabulary
        self._template = template
        self._knows_thoughts = OPEN in source
        self._context = context

    def prompt(self, kind: Kind, body: Body) -> tuple[list[int], bool | None]:
        """The prompt's tokens, and whether they have opened a thought.

        Raises:
            Refused, TemplateError: there is no such prompt.
        """
        vocabulary, thinks = self._vocabulary, None
        if kind != "completion":
            text = self._rendered(body)
            tokens = vocabulary.tokens([text], special=not vocabulary.begins(text))
            if self._knows_thoughts:
                thinks = text.rstrip().endswith(OPEN)
        else:
            prompt = [body.prompt] if isinstance(body.prompt, str) else body.prompt
            tokens = vocabulary.tokens(prompt, special=all(isinstance(piece, str) for piece in prompt))
        return tokens or [vocabulary.bos], thinks

    def read(self, kind: Kind, body: Body) -> Asked:
        """What is to be computed for a request.

        Raises:
            Refused, InvalidRequest, TemplateError: nothing can be.
        """
        tokens, thinks = self.prompt(kind, body)
        limit = self._context
        if len(tokens) >= limit:
            words = f"request ({len(tokens)} tokens) exceeds the available context size ({limit} tokens)"
            raise Refused(400, words, context=limit)
        grammar = _grammar(body)
        if thinks and grammar:
            thinks = False  # what the grammar makes is the answer, though the prompt has opened a thought
        return Asked(kind, body, tokens, grammar, thinks)

    def _rendered(self, body: Body) -> str:
        if self._template is None:
            raise Refused(501, "this model has no chat template")
        kwargs = {"tools": body.tools or None, **body.chat_template_kwargs}
        if body.tool_choice == "none":
            kwargs["tools"] = None
        return self._template.render([_plain(message) for message in body.messages], **kwargs)


def _grammar(body: Body) -> str:
    form = body.response_format
    schema: Any = None
    if bytes(body.json_schema) not in {b"", b"null"}:
        schema = json.loads(bytes(body.json_schema))
    elif form is not None and form.type == "json_schema":
        schema = form.json_schema.schema
    elif form is not None and form.type == "json_object":
        schema = {"type": "object"}
    forced = body.calls and body.tool_choice != "auto"
    if sum((bool(body.grammar), schema is not None, forced)) > 1:
        raise Refused(400, "only one of a grammar, a schema and a forced tool can hold for an answer")
    if forced:
        return grammars.of_call(body.tools, body.tool_choice)
    return body.grammar if schema is None else grammars.of_schema(schema)


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: text for content, objects for arguments."""
    plain = dict(message)
    content = plain.get("content")
    if isinstance(content, list):
        if any(part.get("type") != "text" for part in content):
            raise Refused(501, "this engine takes text only")
        plain["content"] = "".join(part["text"] for part in content)
    elif content is None:
        plain["content"] = ""
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_called(call) for call in plain["tool_calls"]]
    return plain


def _called(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function", {}))
    with contextlib.suppress(ValueError):  # what an earlier model wrote wrong stays as it was written
        function["arguments"] = json.loads(function.get("arguments") or "{}")
    return {**call, "function": function}
