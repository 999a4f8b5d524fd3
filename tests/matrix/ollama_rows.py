"""Ollama's chat, generate, embed and models."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

from tests.matrix.checks import check_chance, check_object, check_unknown_model, differs, joined, tokens_of_france
from tests.matrix.questions import (
    ADA,
    ADD,
    ANNA,
    ANSWER,
    BLUE,
    COLOUR,
    FIFTEEN,
    FLAT,
    FRANCE,
    I_AM_ADA,
    ITALY,
    NEXT_SUM,
    NICE,
    PARIS,
    PARIS_CALL,
    PERSON,
    PIP,
    RAMBLE,
    RED,
    REPEAT,
    RESULT,
    ROME,
    SEVEN,
    STORY,
    SUM,
    SUNNY,
    THOUGHT,
    TOOLS,
    UNICODE,
    WEATHER,
    WHO,
)
from tests.matrix.rows import Body, Near, Rows, Way, right

row = Rows("ollama")


def user(content: str, **more: Any) -> Body:
    return {"role": "user", "content": content, **more}


def tool(name: str) -> Body:
    return {"type": "function", "function": {"name": name, "description": name, "parameters": TOOLS[name]}}


def _body(turns: tuple[Any, ...], options: Body | None, more: Body) -> Body:
    messages = [user(turn) if isinstance(turn, str) else turn for turn in turns]
    return {"messages": messages, "options": {"temperature": 0, "num_predict": 200, **(options or {})}, **more}


def ask(way: Way, *turns: Any, options: Body | None = None, **more: Any) -> Body:
    """The whole reply to a conversation, whose turns are a user's where they are mere texts."""
    return way.call("chat", model=way.model(), **_body(turns, options, more))


def said(way: Way, *turns: Any, options: Body | None = None, **more: Any) -> str:
    """The text of the answer."""
    text: str = ask(way, *turns, options=options, **more)["message"]["content"]
    return text


def streamed(way: Way, *turns: Any, options: Body | None = None, **more: Any) -> list[Body]:
    parts = way.stream("chat", model=way.model(), **_body(turns, options, more))
    right([part["done"] for part in parts], [False] * (len(parts) - 1) + [True], "done")
    return parts


def called(reply: Body) -> tuple[str, Body]:
    """The one call of an answer."""
    calls = reply["message"].get("tool_calls") or []
    assert len(calls) == 1, f"{len(calls)} calls, and the text {reply['message']['content']!r}"
    return calls[0]["function"]["name"], calls[0]["function"]["arguments"]


@row("chat")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE)
    right(reply["message"]["content"], way.says(PARIS, FRANCE))
    right((reply["done"], reply["done_reason"], reply["model"]), (True, "stop", way.answers_as))


@row("chat, streamed")
def _(way: Way) -> Any:
    parts = streamed(way, FRANCE)
    texts = [part["message"]["content"] for part in parts if part["message"]["content"]]
    right(joined(texts), way.says(PARIS, FRANCE))
    right(parts[-1]["done_reason"], "stop", "done_reason")


@row("system prompt", "messages[].role")
def _(way: Way) -> Any:
    right(said(way, WHO), way.says(PIP, WHO), "without it")
    right(said(way, {"role": "system", "content": I_AM_ADA}, WHO), ADA)


@row("instructions amid the conversation", "messages[].role")
def _(way: Way) -> Any:
    right(said(way, FRANCE, {"role": "assistant", "content": PARIS}, {"role": "system", "content": I_AM_ADA}, WHO), ADA)


@row("several turns")
def _(way: Way) -> Any:
    right(said(way, I_AM_ADA, {"role": "assistant", "content": NICE}, WHO), way.says(ADA, WHO))


@row("unicode")
def _(way: Way) -> Any:
    right(said(way, REPEAT), way.says(UNICODE, REPEAT))
    right("".join(part["message"]["content"] for part in streamed(way, REPEAT)), way.says(UNICODE, REPEAT), "streamed")


@row("tools", "tools")
def _(way: Way) -> Any:
    both = [tool("get_weather"), tool("add_numbers")]
    right(called(ask(way, WEATHER, tools=both)), PARIS_CALL)
    right(called(ask(way, ADD, tools=both)), ("add_numbers", {"a": 3, "b": 4}))
    right(said(way, FRANCE, tools=both[:1]), PARIS, "where no tool is needed")


@row("tools, streamed", "tools")
def _(way: Way) -> Any:
    parts = streamed(way, WEATHER, tools=[tool("get_weather"), tool("add_numbers")])
    calls = [call["function"] for part in parts for call in part["message"].get("tool_calls") or ()]
    right([(call["name"], call["arguments"]) for call in calls], [PARIS_CALL])


def call_made(count: int = 1) -> Body:
    calls = [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}] * count
    return {"role": "assistant", "content": "", "tool_calls": calls}


@row("tool's result", "tools")
def _(way: Way) -> Any:
    result = {"role": "tool", "tool_name": "get_weather", "content": SUNNY}
    reply = ask(way, WEATHER, call_made(), result, tools=[tool("get_weather")])
    right(reply["message"]["content"], RESULT)
    return reply["prompt_eval_count"]


@row("two tools' results", "tools")
def _(way: Way) -> Any:
    result = {"role": "tool", "tool_name": "get_weather", "content": SUNNY}
    one = ask(way, WEATHER, call_made(), result, tools=[tool("get_weather")])
    two = ask(way, WEATHER, call_made(2), result, result, tools=[tool("get_weather")])
    assert two["prompt_eval_count"] > one["prompt_eval_count"] + 10, "the second call is not in the prompt"
    return two["message"]["content"], two["prompt_eval_count"]


@row("image", "messages[].images", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user(COLOUR, images=[RED])), "The image is red.")
    right(said(way, user(COLOUR, images=[BLUE])), "The image is blue.")


@row("two images", "messages[].images", words=("image",))
def _(way: Way) -> Any:
    one = ask(way, user(COLOUR, images=[RED]))["prompt_eval_count"]
    reply = ask(way, user(COLOUR, images=[RED, RED]))
    right(reply["message"]["content"], "The image is red.")
    assert reply["prompt_eval_count"] > one + 3, "the second is not in the prompt"
    return reply["prompt_eval_count"]


@row("format json", "format", words=("form",))
def _(way: Way) -> Any:
    right(json.loads(said(way, PERSON, format="json")), ANNA)
    return check_object(said(way, ITALY, format="json"))


@row("format of a schema", "format", words=("form",))
def _(way: Way) -> Any:
    right(json.loads(said(way, ITALY, format=ANSWER)), {"answer": ROME})


@row("format of a schema, streamed", "format", words=("form",))
def _(way: Way) -> Any:
    texts = [part["message"]["content"] for part in streamed(way, ITALY, format=ANSWER)]
    right(json.loads(joined(texts)), {"answer": ROME})


def thoughts(way: Way, think: Any) -> tuple[str, str]:
    message = ask(way, SUM, think=think)["message"]
    return (message.get("thinking") or "").strip(), message["content"]


@row("think on", "think")
def _(way: Way) -> Any:
    right(thoughts(way, think=True), (THOUGHT, FIFTEEN))


@row("think off", "think")
def _(way: Way) -> Any:
    right(thoughts(way, think=False), ("", way.says(FIFTEEN, SUM)))


@row("think at a level", "think")
def _(way: Way) -> Any:
    for level in ("low", "high"):
        right(thoughts(way, think=level), (THOUGHT, FIFTEEN), level)


@row("thinking, streamed", "think")
def _(way: Way) -> Any:
    parts = streamed(way, SUM, think=True)
    right("".join(part["message"].get("thinking") or "" for part in parts).strip(), THOUGHT)
    right("".join(part["message"]["content"] for part in parts), FIFTEEN)


@row("thoughts of earlier turns", "messages[].thinking")
def _(way: Way) -> Any:
    earlier = {"role": "assistant", "content": FIFTEEN}
    without = ask(way, SUM, earlier, NEXT_SUM)["prompt_eval_count"]
    reply = ask(way, SUM, {**earlier, "thinking": THOUGHT}, NEXT_SUM)
    right(reply["message"]["content"], SEVEN)
    assert reply["prompt_eval_count"] > without + 5, "they are not in the prompt"
    return reply["prompt_eval_count"]


@row("logprobs", "logprobs", words=("log probabilities",))
def _(way: Way) -> Any:
    found = ask(way, FRANCE, logprobs=True).get("logprobs")
    assert found, "none came"
    right("".join(entry["token"] for entry in found), PARIS)
    assert all(entry["logprob"] <= 0 for entry in found), "some are positive"
    return [entry["token"] for entry in found]


@row("top_logprobs", "top_logprobs", "logprobs", words=("log probabilities",))
def _(way: Way) -> Any:
    found = ask(way, FRANCE, logprobs=True, top_logprobs=3).get("logprobs")
    assert found, "none came"
    right("".join(entry["token"] for entry in found), PARIS)
    right({len(entry["top_logprobs"]) for entry in found}, {3}, "alternatives")


@row("stop", "options.stop")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE, options={"stop": [" is"]})
    right(reply["message"]["content"], way.says(PARIS, FRANCE).partition(" is")[0])
    right(reply["done_reason"], "stop", "done_reason")


@row("num_predict", "options.num_predict")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE, options={"num_predict": 2})
    right((reply["done_reason"], reply["eval_count"]), ("length", 2))
    right(reply["message"]["content"], " ".join(way.says(PARIS, FRANCE).split()[:2]))


@row("temperature", "options.temperature", chance=True)
def _(way: Way) -> Any:
    return check_chance(
        said(way, FLAT, options={"num_predict": 30}),
        lambda: said(way, FLAT, options={"num_predict": 30, "temperature": 1}),
    )


@row("seed", "options.seed")
def _(way: Way) -> Any:
    drawn = [said(way, FLAT, options={"num_predict": 30, "temperature": 1, "seed": seed}) for seed in (5, 5, 7)]
    right(drawn[1], drawn[0], "the same seed")
    assert drawn[2] != drawn[0], f"another seed gives the same: {drawn[0]!r}"
    return drawn


def narrow(way: Way, **options: Any) -> None:
    """An option that leaves one token to choose from makes chance choose what is likeliest."""
    right(said(way, FLAT, options={"temperature": 1, "seed": 5, **options}), said(way, FLAT))


@row("top_p", "options.top_p")
def _(way: Way) -> Any:
    narrow(way, top_p=0.001)


@row("top_k", "options.top_k")
def _(way: Way) -> Any:
    narrow(way, top_k=1)


@row("min_p", "options.min_p")
def _(way: Way) -> Any:
    narrow(way, min_p=1)


def penalty(way: Way, **options: Any) -> Any:
    changed = said(way, RAMBLE, options={"num_predict": 40, **options})
    return differs(changed, said(way, RAMBLE, options={"num_predict": 40}))


@row("frequency_penalty", "options.frequency_penalty")
def _(way: Way) -> Any:
    return penalty(way, frequency_penalty=2)


@row("presence_penalty", "options.presence_penalty")
def _(way: Way) -> Any:
    return penalty(way, presence_penalty=2)


@row("repeat_penalty", "options.repeat_penalty")
def _(way: Way) -> Any:
    return penalty(way, repeat_penalty=2.0)


@row("repeat_last_n", "options.repeat_last_n")
def _(way: Way) -> Any:
    """No look back: the penalty finds nothing to punish."""
    changed = said(way, RAMBLE, options={"num_predict": 40, "repeat_penalty": 2.0, "repeat_last_n": 0})
    right(changed, said(way, RAMBLE, options={"num_predict": 40}))
    return changed


@row("num_ctx", "options.num_ctx")
def _(way: Way) -> Any:
    right(said(way, FRANCE, options={"num_ctx": 2048}), way.says(PARIS, FRANCE))


@row("keep_alive", "keep_alive")
def _(way: Way) -> Any:
    way.call("chat", model=way.model("text"), messages=[user(FRANCE)], keep_alive="20m")
    name = "text" if way.backend.remote and not way.backend.loads else way.model("text")
    rows = [model["expires_at"] for model in way.loaded() if model["model"].removesuffix(":latest") == name]
    assert rows, "it is not in memory"
    left = dt.datetime.fromisoformat(rows[0][:19] + "+00:00") - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=19) < left < dt.timedelta(minutes=21), f"it stays for {left}"


@row("counts")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE)
    counts = reply["prompt_eval_count"], reply["eval_count"]
    right(counts, tokens_of_france(way), "tokens in and out")
    last = streamed(way, FRANCE)[-1]
    right((last["prompt_eval_count"], last["eval_count"]), counts, "streamed")
    return counts


def check_timings(reply: Body, took: int) -> list[int]:
    total = reply["total_duration"]
    assert 0 < total < took, f"a total of {total} ns in {took} ns"
    parts = [reply.get(f"{name}_duration") or 0 for name in ("load", "prompt_eval", "eval")]
    assert all(0 <= part <= total for part in parts), f"parts {parts} of {total} ns"
    return parts


@row("timings in nanoseconds")
def _(way: Way) -> Any:
    began = time.monotonic_ns()
    *_, eval = check_timings(ask(way, FRANCE), time.monotonic_ns() - began)
    if not (eval or way.echoes):
        raise Near("the whole answer came at once: only total_duration is known")


@row("timings in nanoseconds, streamed")
def _(way: Way) -> Any:
    """A long answer, as one that arrives in a single read has no time that could be measured; on a busy machine, again."""
    for _ in range(3):
        began = time.monotonic_ns()
        *_, eval = check_timings(streamed(way, STORY)[-1], time.monotonic_ns() - began)
        if eval or way.echoes:
            return
    raise AssertionError("no eval_duration")


@row("a server's own option", "options.mirostat")
def _(way: Way) -> Any:
    """Mirostat draws by its own rule: with the same seed something else comes than without it."""
    drawn = {"num_predict": 30, "temperature": 1, "seed": 5}
    plain = said(way, FLAT, options=drawn)
    changed = said(way, FLAT, options={**drawn, "mirostat": 2, "mirostat_tau": 0.1})
    return differs(changed, plain)


@row("unknown option", "options.made_up")
def _(way: Way) -> Any:
    right(said(way, FRANCE, options={"made_up": 1}), way.says(PARIS, FRANCE))


@row("unknown model")
def _(way: Way) -> Any:
    check_unknown_model(way, lambda name: way.call("chat", model=name, messages=[user(FRANCE)]))


@row("models")
def _(way: Way) -> Any:
    listed = [model["model"] for model in way.call("list")["models"]]
    assert {f"{way.model()}:latest", f"{way.model('embed')}:latest"} <= set(listed), f"not among {listed}"


@row("show")
def _(way: Way) -> Any:
    shown = way.call("show", model=way.model())
    assert "completion" in shown["capabilities"], f"it can {shown['capabilities']}"
