"""Canonical requests -> the JSON bodies that the engines read: the OpenAI adapter's, made safe for a model inside.

A client's unknown fields reach an engine only by name from the tables here. Templates, slots, adapters, paths and
addresses never do.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
from msgspec import Raw, structs

from adapters.openai.call import write_chat, write_completion
from backends.llama_cpp.schema import check_held, with_patterns
from canonical.errors import InvalidRequest, Unsupported
from canonical.limits import check_grammar, check_schema
from canonical.messages import Audio, Image, Text, ToolResult
from canonical.requests import Generate, Origin, Prompt, Sampling, ToolChoice

_INTEGERS = frozenset({"mirostat", "min_keep", "dry_allowed_length", "dry_penalty_last_n"})
_NUMBERS = frozenset(
    {
        "mirostat_tau",
        "mirostat_eta",
        "dry_multiplier",
        "dry_base",
        "xtc_probability",
        "xtc_threshold",
        "top_n_sigma",
        "dynatemp_range",
        "dynatemp_exponent",
    }
)
_SWITCHES = frozenset({"cache_prompt", "ignore_eos"})
_BREAKERS = 32
_KWARGS = 32
_KWARG = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_SEEDS = 2**32
_BIASES = 1_024
"""Tokens whose chances a request may change: the engine compares each with each."""
TOKEN_LENGTH = 64
"""Characters that a token stands for at most, on the average of a whole text."""

_encode = msgspec.json.Encoder().encode
_json = msgspec.json.Decoder()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one model sets for all its requests."""

    context: int
    """Tokens per slot."""
    fill: tuple[int, int, int] | None = None
    """Token ids for filling a gap: before the prefix, before the suffix, before the middle."""
    temperature: float | None = None
    """For requests that say none."""
    engine: str = "xllamacpp"


def chat_body(
    request: Generate, limits: Limits, *, thinking: bool | None, vision: bool, budget: int | None = None
) -> bytes:
    """The body of a chat. ``thinking`` goes to the template; None: the model does not think.

    ``budget``: at most so many tokens of thoughts; None: as many as it likes.

    Raises:
        Unsupported: pictures or sounds that this model cannot take, or links to them.
        InvalidRequest: a client's extra field has a wrong value or breaks a limit.
    """
    _check_length(request, limits)
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Audio):
                raise Unsupported("this model does not take audio", param="messages")
            if isinstance(part, Image):
                if not vision:
                    raise Unsupported("this model does not support images", param="messages")
                if isinstance(part.source, str):
                    raise Unsupported("images must come as data: URLs; links are not followed", param="messages")
    extras = _extras(request, limits)
    kwargs = extras.pop("chat_template_kwargs", {})
    if thinking is not None:
        kwargs = {"enable_thinking": thinking, **kwargs}
        if request.think in {"minimal", "low", "medium", "high", "max"}:
            kwargs.setdefault("reasoning_effort", request.think)
        if budget is not None:
            extras["thinking_budget_tokens"] = budget
        if budget is not None or kwargs["enable_thinking"]:
            extras["timings_per_token"] = True  # says how many of the tokens were thoughts: see ``notes``
        held = request.output is not None or "json_schema" in extras
        if held and limits.engine == "xllamacpp" and budget is None and not kwargs["enable_thinking"]:
            extras["reasoning_format"] = "none"  # else the engine's grammar lets thoughts come first, wished for or not
    if request.tools and request.parallel_tool_calls is False:
        extras["timings_per_token"] = True  # a second call is cut off, and the last chunk would have had the counts
    if kwargs:
        extras["chat_template_kwargs"] = kwargs
    return _joined(request, write_chat(_settled(request, limits), "model"), extras)


def switched_on(request: Generate, limits: Limits) -> bool:
    """Whether the client tells the template itself to let the model think. Raises InvalidRequest as ``chat_body``."""
    if b"chat_template_kwargs" not in request.origin.body:
        return False
    return bool(_extras(request, limits).get("chat_template_kwargs", {}).get("enable_thinking"))


def completion_body(request: Generate, prompt: Prompt, limits: Limits) -> bytes:
    """The body of a raw completion. Raises as ``chat_body``."""
    if len(prompt.text) + len(prompt.suffix or "") > limits.context * TOKEN_LENGTH:
        raise _too_long(limits)
    extras = _extras(request, limits)
    extras.pop("chat_template_kwargs", None)
    pieces: list[int | str] | None = None
    if prompt.suffix is not None:
        if limits.fill is None:
            raise Unsupported("this model does not support insert", param="suffix")
        before, after, middle = limits.fill
        pieces = [before, prompt.text, after, prompt.suffix, middle]
        prompt = Prompt()
    if request.output is not None:
        if request.output.schema is not None:
            extras["json_schema"] = with_patterns(request.output.schema)
        else:
            extras["json_schema"] = {"type": "object"}
    body = write_completion(structs.replace(_settled(request, limits), prompt=prompt, output=None), "model")
    if pieces is not None:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        fields["prompt"] = Raw(_encode(pieces))
        body = _encode(fields)
    return _joined(request, body, extras)


def _check_length(request: Generate, limits: Limits) -> None:
    """Refuse a text that cannot fit before the engine cuts it into tokens: 10 MB take it 3 s and 700 MB."""
    size = sum(
        len(part.text) for message in request.messages for part in message.parts if isinstance(part, Text | ToolResult)
    )
    for tool in request.tools:
        size += len(tool.description or "") + len(bytes(tool.parameters or b""))
    if size > limits.context * TOKEN_LENGTH:
        raise _too_long(limits)


def _too_long(limits: Limits) -> InvalidRequest:
    return InvalidRequest(
        f"This model's maximum context length is {limits.context} tokens, and the request has more",
        code="context_length_exceeded",
        param="messages",
    )


def _settled(request: Generate, limits: Limits) -> Generate:
    """The request as an engine wants it: always a stream (that is how it is stopped), values within bounds."""
    given = request.sampling
    if len(given.logit_bias or ()) > _BIASES:
        raise InvalidRequest(f"'logit_bias' may name at most {_BIASES} tokens", param="logit_bias")
    sampling: Sampling = structs.replace(
        given,
        temperature=limits.temperature if given.temperature is None else given.temperature,
        repeat_last_n=None if given.repeat_last_n is None else _window(given.repeat_last_n, limits),
        seed=None if given.seed is None or given.seed < 0 else given.seed % _SEEDS,
        max_tokens=None if given.max_tokens is None or given.max_tokens < 0 else given.max_tokens,
        # A negative top_k means "all" to everybody; the engine takes 0 for that.
        top_k=None if given.top_k is None else max(given.top_k, 0),
    )
    settled = structs.replace(request, stream=True, think=None, think_budget=None, origin=Origin(), sampling=sampling)
    if settled.output is not None and settled.output.schema is not None:
        settled = structs.replace(
            settled, output=structs.replace(settled.output, schema=with_patterns(settled.output.schema))
        )
    if request.tool_choice is not None and request.tool_choice.mode == "none":
        # A model that is shown tools calls them nevertheless, and the engine then leaves the call in the text.
        settled = structs.replace(settled, tools=(), tool_choice=None)
    elif request.tools and request.output is not None and limits.engine == "xllamacpp":
        # The schema is that of a call, or allows one (see ``canonical.forced`` and ``either``); the engine takes none where
        # it looks for calls itself.
        settled = structs.replace(settled, tool_choice=ToolChoice("none"))
    return settled


def _window(tokens: int, limits: Limits) -> int:
    """A sampler's look back, clamped: a longer one than the context costs gigabytes and minutes."""
    return limits.context if tokens < 0 else min(tokens, limits.context)


def _joined(request: Generate, body: bytes, extras: dict[str, Any]) -> bytes:
    if request.sampling.stop:
        extras["verbose"] = True  # says which of them it was: see ``notes``
    if request.tenant:
        # Whose computed prefixes it may use; the core itself does not know the word.
        extras["dragoman_tenant"] = request.tenant
    # return_progress: a record per batch of the prompt, without which nothing could stop a long one.
    return body[:-1] + b"," + _encode({"return_progress": True, **extras})[1:]


def _extras(request: Generate, limits: Limits) -> dict[str, Any]:
    dialect = request.origin.dialect
    if dialect == "openai":
        given = request.origin.extras(frozenset())
    elif dialect == "ollama":
        given = request.origin.extras(frozenset(), inside="options")
    else:
        return {}
    found: dict[str, Any] = {}
    for name, raw in given.items():
        if name in _READERS:
            value = _json.decode(raw)
            if value is not None:
                found[name] = _READERS[name](name, value, raw, limits)
    return found


def _integer(name: str, value: Any, _raw: Raw, limits: Limits) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value < 2**31:
        raise InvalidRequest(f"{name!r} must be an integer from -1", param=name, code="invalid_type")
    return _window(value, limits) if name.endswith("last_n") else value


def _number(name: str, value: Any, _raw: Raw, _limits: Limits) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e9:
        raise InvalidRequest(f"{name!r} must be a number", param=name, code="invalid_type")
    return value


def _switch(name: str, value: Any, _raw: Raw, _limits: Limits) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name!r} must be true or false", param=name, code="invalid_type")
    return value


def _grammar(name: str, value: Any, _raw: Raw, _limits: Limits) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name!r} must be a string", param=name, code="invalid_type")
    check_grammar(value, param=name)
    return value


def _schema(name: str, value: Any, raw: Raw, limits: Limits) -> Raw:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name!r} must be an object", param=name, code="invalid_type")
    check_schema(raw, param=name)
    check_held(raw, limits.engine, param=name)
    return with_patterns(raw)


def _breakers(name: str, value: Any, _raw: Raw, _limits: Limits) -> list[str]:
    right = isinstance(value, list) and len(value) <= _BREAKERS
    if not right or not all(isinstance(text, str) and 0 < len(text) <= 64 for text in value):
        raise InvalidRequest(f"{name!r} must be a list of at most {_BREAKERS} short strings", param=name)
    return list(value)


def _kwargs(name: str, value: Any, _raw: Raw, _limits: Limits) -> dict[str, Any]:
    right = isinstance(value, dict) and len(value) <= _KWARGS
    if not right or not all(
        _KWARG.match(key) and isinstance(item, str | int | float | bool) and "template" not in key
        for key, item in value.items()
    ):
        raise InvalidRequest(f"{name!r} must be an object of plain values", param=name)
    return dict(value)


_READERS = {
    **dict.fromkeys(_INTEGERS, _integer),
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(_SWITCHES, _switch),
    "grammar": _grammar,
    "json_schema": _schema,
    "dry_sequence_breakers": _breakers,
    "chat_template_kwargs": _kwargs,
}

EXTRAS = frozenset(_READERS)
"""Names of the fields without a canonical form that the engines understand."""
