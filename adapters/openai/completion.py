"""Us as server of ``/v1/completions``: text continued without a chat template.

    data: {"id":"cmpl-…","object":"text_completion",…,"choices":[{"text":"Hel","index":0,"logprobs":null,"finish_reason":null}]}

A list of P prompts with ``n`` gives P*n choices, and prompt p's choice k has index p*n + k.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from adapters.dialect import Ask, Stamp
from adapters.framing import encode_line
from adapters.openai import wire
from adapters.openai.effort import read_stay
from adapters.openai.fields import check_constraints, choices, read_known, sampling
from adapters.openai.reply import FINGERPRINT, REASONS, Stream, created, encode, text_logprobs, total_usage
from adapters.openai.vocabulary import COMPLETION
from adapters.reading import Reading
from canonical.errors import InvalidRequest, Unsupported
from canonical.events import Completion, Event, Finished, Started, TextDelta
from canonical.requests import Generate, Origin, Prompt

PROMPTS = 128
"""Choices that one request may ask for, its prompts times ``n``."""

_completion = Reading(wire.CompletionRequest, strict=False)


def read_completion(body: bytes) -> Ask:
    """A completion request and how to word its answer.

    Raises:
        InvalidRequest: the body breaks the format or a limit.
        Unsupported: it asks for what no backend can give, such as log probabilities of the prompt.
    """
    request, plain = read_known(_completion, body)
    check_constraints(request.grammar, request.json_schema)
    n = 1 if request.n is None else request.n
    prompts = _prompts(request)
    if len(prompts) * n > PROMPTS:
        raise InvalidRequest(f"at most {PROMPTS} choices are accepted, prompts times 'n'", param="prompt")
    if request.best_of is not None and request.best_of != n:
        raise Unsupported("'best_of' other than 'n' is not supported", param="best_of")
    if request.max_tokens == 0:
        raise Unsupported("'max_tokens' 0 is not supported: prompts cannot be scored", param="max_tokens")
    if request.echo:
        _check_echo(request, prompts)
    limit = request.max_tokens
    stream = bool(request.stream)
    drawn = sampling(request, limit if limit is not None and limit > 0 else None)
    requests: list[Generate] = []
    lost: list[str] = []
    stay = read_stay(request, lost)
    origin = Origin("openai", body, COMPLETION, tuple(lost), plain=plain)
    for prompt in prompts:
        generate = Generate(
            model=request.model or "",
            prompt=prompt,
            stream=stream,
            sampling=drawn,
            top_logprobs=request.logprobs,
            keep_alive=stay,
            origin=origin,
        )
        requests.extend(choices(generate, request.n))
    echo = tuple(prompt.text for prompt in prompts for _ in range(n)) if request.echo else ("",) * len(requests)
    usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    model = request.model or ""
    return Ask(
        requests=tuple(requests),
        stream=stream,
        encoder=partial(CompletionStream, model=model, top=request.logprobs, echo=echo, n=n, usage=usage),
        whole=partial(completion_reply, model=model, top=request.logprobs, echo=echo, n=n),
    )


class CompletionStream(Stream):
    """Canonical events -> ``text_completion`` frames.

    ``echo`` is what stands before each choice's text; ``top`` is as in ``ChatStream``.
    """

    __slots__ = ("_echo", "_offsets", "_text", "_text_end", "_top")

    def __init__(
        self,
        stamp: Stamp,
        *,
        model: str,
        top: int | None = None,
        echo: tuple[str, ...] = ("",),
        n: int = 1,
        usage: bool = False,
    ) -> None:
        super().__init__(
            stamp, prefix="cmpl-", object="text_completion", model=model, usage=usage, choices=len(echo), n=n
        )
        self._echo = echo
        self._top = top
        self._offsets = [0] * len(echo)
        self._text = [b""] * len(echo)
        self._text_end = [
            b',"index":%d,"logprobs":null,"finish_reason":null}' % i + self._end for i in range(len(echo))
        ]

    def feed(self, event: Event, choice: int = 0) -> bytes:
        """The frame of one event; a completion has no words for reasoning and tool calls."""
        match event:
            case TextDelta():
                if event.logprobs:
                    return self._with_logprobs(event, choice)
                return self._text[choice] + encode_line(event.text) + self._text_end[choice]
            case Started(model):
                self._name = self._name or model
                self._text[choice] = self._head() + b'{"text":'
                echo = self._echo[choice]
                return self._text[choice] + encode_line(echo) + self._text_end[choice] if echo else b""
            case Finished(reason, usage):
                self._usages[choice] = usage
                end = (choice, _reason(REASONS[reason]).encode())
                return self._text[choice] + b'"","index":%d,"logprobs":null,"finish_reason":"%b"}' % end + self._end
        return b""

    def _with_logprobs(self, event: TextDelta, choice: int) -> bytes:
        logprobs = encode_line(text_logprobs(event.logprobs, self._top, self._offsets[choice]))
        self._offsets[choice] += sum(len(token.token) for token in event.logprobs)
        end = b',"index":%d,"logprobs":%b,"finish_reason":null}' % (choice, logprobs)
        return self._text[choice] + encode_line(event.text) + end + self._end


def completion_reply(
    completions: Sequence[Completion],
    stamp: Stamp,
    *,
    model: str,
    top: int | None = None,
    echo: tuple[str, ...] = ("",),
    n: int = 1,
) -> bytes:
    """The whole answer, a choice per completion."""
    usage = total_usage([completion.usage for completion in completions], n)
    return encode(
        wire.Reply(
            id=f"cmpl-{stamp.id}",
            object="text_completion",
            created=created(stamp),
            model=model or completions[0].model,
            system_fingerprint=FINGERPRINT,
            choices=[
                wire.TextChoice(
                    text=echo[index] + completion.text,
                    index=index,
                    logprobs=text_logprobs(completion.logprobs, top),
                    finish_reason=_reason(REASONS[completion.reason]),
                )
                for index, completion in enumerate(completions)
            ],
            usage=msgspec.UNSET if usage is None else usage,
        )
    )


def _prompts(request: wire.CompletionRequest) -> list[Prompt]:
    given = request.prompt
    suffix = request.suffix or None  # clients with nothing behind the gap send an empty one, to any model
    if given is None or isinstance(given, str):
        return [Prompt(text=given or "", suffix=suffix)]
    if not given:
        raise InvalidRequest("'prompt' must not be an empty list", param="prompt")
    if all(isinstance(item, int) for item in given):
        return [Prompt(tokens=tuple(item for item in given if isinstance(item, int)), suffix=suffix)]
    prompts: list[Prompt] = []
    for item in given:
        if isinstance(item, str):
            prompts.append(Prompt(text=item, suffix=suffix))
        elif isinstance(item, list) and item:
            prompts.append(Prompt(tokens=tuple(item), suffix=suffix))
        else:
            raise InvalidRequest("'prompt' must be a text, texts, token ids, or lists of token ids", param="prompt")
    return prompts


def _check_echo(request: wire.CompletionRequest, prompts: list[Prompt]) -> None:
    if request.logprobs is not None:
        raise Unsupported("'echo' with 'logprobs' is not supported: prompts cannot be scored", param="echo")
    if any(prompt.tokens is not None for prompt in prompts):
        raise Unsupported("'echo' of token ids is not supported: send the prompt as text", param="echo")


def _reason(reason: str) -> str:
    return "stop" if reason == "tool_calls" else reason
