"""OpenAI's completions: prompts without a template."""

from __future__ import annotations

from typing import Any

from tests.matrix.checks import joined
from tests.matrix.questions import FIFTEEN, NEXT_SUM, RAW, SEVEN, SUM
from tests.matrix.rows import Body, Rows, Way, right
from tests.matrix.tokens import tokens

row = Rows("openai")

COMPLETION = "completions.create"


def complete(way: Way, prompt: Any, model: str = "pip", **more: Any) -> Body:
    return way.call(COMPLETION, model=way.model(model), prompt=prompt, **{"temperature": 0, "max_tokens": 30, **more})


@row("completion: raw prompt", "prompt", words=("prompt",))
def _(way: Way) -> Any:
    choice = complete(way, RAW)["choices"][0]
    right(choice["text"].strip(), way.says(FIFTEEN, RAW.strip()))
    right(choice["finish_reason"], "stop", "finish_reason")


@row("completion, streamed", "prompt", words=("prompt",))
def _(way: Way) -> Any:
    body = {"prompt": RAW, "temperature": 0, "max_tokens": 30}
    texts = [chunk["choices"][0]["text"] for chunk in way.stream(COMPLETION, model=way.model(), **body)]
    right(joined(texts).strip(), way.says(FIFTEEN, RAW.strip()))


@row("completion: token ids", "prompt", words=("prompt",))
def _(way: Way) -> Any:
    right(complete(way, tokens(RAW), "text")["choices"][0]["text"], FIFTEEN)


@row("completion: two prompts", "prompt", words=("prompt",))
def _(way: Way) -> Any:
    choices = complete(way, [RAW, RAW.replace(SUM, NEXT_SUM)])["choices"]
    right([choice["index"] for choice in choices], [0, 1], "index")
    wanted = [way.says(FIFTEEN, RAW.strip()), way.says(SEVEN, RAW.replace(SUM, NEXT_SUM).strip())]
    right([choice["text"].strip() for choice in choices], wanted)


@row("completion: echo", "prompt", words=("prompt",))
def _(way: Way) -> Any:
    right(complete(way, RAW, echo=True)["choices"][0]["text"].strip(), RAW + way.says(FIFTEEN, RAW.strip()))


@row("completion: suffix", "suffix", words=("prompt", "insert"))
def _(way: Way) -> Any:
    filled = [
        complete(way, "Once upon", "fill", suffix=suffix)["choices"][0]["text"] for suffix in (" the end.", " 7 + 8")
    ]
    assert filled[0], "no text"
    assert filled[0] != filled[1], f"with another suffix it is the same: {filled[0]!r}"
    return filled


@row("completion: logprobs", "logprobs", words=("prompt",))
def _(way: Way) -> Any:
    told = complete(way, RAW, logprobs=2)["choices"][0]["logprobs"]
    assert told, "none came"
    right("".join(told["tokens"]), FIFTEEN)
    assert all(len(top) == 2 for top in told["top_logprobs"]), "not two alternatives each"
    return told["tokens"]


@row("completion: stop", "stop", words=("prompt",))
def _(way: Way) -> Any:
    choice = complete(way, RAW, stop=[" ="])["choices"][0]
    right((choice["text"].strip(), choice["finish_reason"]), (way.says("7 + 8", RAW.strip()), "stop"))
