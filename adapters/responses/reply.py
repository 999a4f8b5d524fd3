"""The response object: what a request said, repeated, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from adapters.framing import encode_line
from adapters.openai.wire import NO_RAW
from adapters.responses import wire
from canonical.events import TokenLogprob, Usage

_PLAIN = b'{"format":{"type":"text"}}'

_raw_object = msgspec.json.Decoder(dict[str, Raw])


class Frame(Struct, frozen=True, kw_only=True):
    """All of a response object that is known before its answer."""

    model: str
    instructions: Raw = NO_RAW
    max_output_tokens: int | None = None
    metadata: Raw = NO_RAW
    parallel: bool = True
    previous: str | None = None
    reasoning: wire.ReasoningEcho
    temperature: float | None = None
    text: Raw = NO_RAW
    tool_choice: Raw = NO_RAW
    tools: Raw = NO_RAW
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: str = "disabled"
    user: str | None = None
    background: bool = False

    def response(
        self, *, id: str, created: int, status: wire.Status, model: str, output: Sequence[wire.OutputItem], store: bool
    ) -> wire.Response:
        """The object, for its author to fill in how it ended."""
        return wire.Response(
            id=id,
            created_at=created,
            status=status,
            background=self.background,
            instructions=_or(self.instructions, b"null"),
            max_output_tokens=self.max_output_tokens,
            model=self.model or model,
            output=list(output),
            parallel_tool_calls=self.parallel,
            previous_response_id=self.previous,
            reasoning=self.reasoning,
            store=store,
            temperature=self.temperature,
            text=self.text,
            tool_choice=_or(self.tool_choice, b'"auto"'),
            tools=_or(self.tools, b"[]"),
            top_logprobs=self.top_logprobs,
            top_p=self.top_p,
            truncation=self.truncation,
            user=self.user,
            metadata=_or(self.metadata, b"{}"),
        )


def frame(request: wire.Request, echo: wire.Echo) -> Frame:
    """What the answer to ``request`` repeats of it."""
    reasoning = request.reasoning or wire.Reasoning()
    return Frame(
        model=request.model or "",
        instructions=_compact(echo.instructions),
        max_output_tokens=request.max_output_tokens,
        metadata=_compact(echo.metadata),
        parallel=request.parallel_tool_calls is not False,
        previous=request.previous_response_id,
        reasoning=wire.ReasoningEcho(reasoning.effort, reasoning.summary or reasoning.generate_summary),
        temperature=request.temperature,
        text=_text(_compact(echo.text)),
        tool_choice=_compact(echo.tool_choice),
        tools=_compact(echo.tools),
        top_logprobs=request.top_logprobs or 0,
        top_p=request.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
        background=bool(request.background),
    )


def usage(counted: Usage | None) -> wire.Usage | None:
    """Tokens, where somebody counted them."""
    if counted is None:
        return None
    return wire.Usage(
        input_tokens=counted.prompt,
        input_tokens_details=wire.InputDetails(counted.cached),
        output_tokens=counted.completion,
        output_tokens_details=wire.OutputDetails(counted.reasoning),
        total_tokens=counted.prompt + counted.completion,
    )


def logprobs(tokens: Sequence[TokenLogprob], top: int, *, whole: bool) -> list[wire.Logprob]:
    """Log probabilities with at most ``top`` alternatives each; only the ``whole`` text's have their bytes."""
    if not whole:
        return [
            wire.Logprob(token.token, token.logprob, [wire.Alternative(o.token, o.logprob) for o in token.top[:top]])
            for token in tokens
        ]
    return [
        wire.Logprob(
            token.token,
            token.logprob,
            [wire.Alternative(other.token, other.logprob, other.bytes or ()) for other in token.top[:top]],
            token.bytes or (),
        )
        for token in tokens
    ]


def _text(given: Raw) -> Raw:
    """``text`` with a format in any case."""
    if not bytes(given):
        return Raw(_PLAIN)
    fields = _raw_object.decode(given)
    if bytes(fields.get("format", b"null")) != b"null":
        return given
    return Raw(encode_line({**fields, "format": {"type": "text"}}))


def _or(given: Raw, default: bytes) -> Raw:
    return given if bytes(given) else Raw(default)


def _compact(given: Raw) -> Raw:
    """JSON without line breaks, for it goes into lines of a stream; empty for null."""
    text = bytes(given)
    if text in {b"", b"null"}:
        return NO_RAW
    return Raw(msgspec.json.format(text, indent=-1))
