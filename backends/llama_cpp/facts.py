"""What a model's chat template does with what not every template knows: found out by asking the engine, not by reading it.

Templates drop without a word what they have no place for. A prompt that has no more tokens with a thing said than without
it does not hold that thing; counting costs nothing, as no token is computed for it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from backends.llama_cpp.engine import is_error, read_counted
from backends.llama_cpp.inprocess import Runner

Turn = dict[str, Any]

_TOLD = "Speak of mountains and rivers only."
_HELLO: Turn = {"role": "user", "content": "Hello there."}
_HI: Turn = {"role": "assistant", "content": "Good morning."}
_MORE: Turn = {"role": "user", "content": "Go on."}
_SYSTEM: Turn = {"role": "system", "content": _TOLD}
# What llama.cpp does by itself where a template has no place for instructions before the conversation.
_MERGED: Turn = {"role": "user", "content": f"{_TOLD}\n{_HELLO['content']}"}
_CALL: Turn = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_CALLING: Turn = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RESULT: Turn = {"role": "tool", "tool_call_id": "call_1", "name": "look", "content": "Snow."}


class Facts(Struct, frozen=True):
    """One model's; the defaults are for a model that cannot be asked."""

    system: bool = True
    """Instructions before the conversation have a place of their own."""
    system_later: bool = True
    """So have instructions amid it."""
    thoughts: bool = True
    """What the model thought in earlier turns is shown to it again."""
    thoughts_since: bool = True
    """At least what it thought since the user's last message, between calls of tools."""
    names: bool = False
    """Who of several speakers says a message is shown."""


async def find_facts(runner: Runner, *, tools: bool, thinks: bool) -> Facts:
    """Ask a loaded model's engine. ``tools``: its template knows calls; ``thinks``: and thoughts."""
    thought: Turn = {"reasoning_content": _TOLD}
    asked: dict[str, tuple[Turn, ...]] = {
        "plain": (_HELLO,),
        "told": (_SYSTEM, _HELLO),
        "merged": (_MERGED,),
        "named": ({**_HELLO, "name": "Bartholomew"},),
        "talk": (_HELLO, _HI, _MORE),
        "later": (_HELLO, _HI, _SYSTEM, _MORE),
    }
    thinking: dict[str, tuple[Turn, ...]] = {}
    if thinks:
        thinking |= {"before": asked["talk"], "thought": (_HELLO, {**_HI, **thought}, _MORE)}
    if thinks and tools:
        thinking |= {"called": (_HELLO, _CALLING, _RESULT), "since": (_HELLO, {**_CALLING, **thought}, _RESULT)}
    counts = await asyncio.gather(
        *(_count(runner, turns, thinking=False) for turns in asked.values()),
        *(_count(runner, turns, thinking=True) for turns in thinking.values()),
    )
    found = dict(zip((*asked, *thinking), counts, strict=True))
    if found["plain"] is None or found["talk"] is None:
        return Facts()
    return Facts(
        system=found["told"] not in {None, found["plain"], found["merged"]},
        system_later=found["later"] not in {None, found["talk"]},
        thoughts=found.get("thought") not in {None, found.get("before")},
        thoughts_since=found.get("since") not in {None, found.get("called")},
        names=found["named"] not in {None, found["plain"]},
    )


async def _count(runner: Runner, turns: tuple[Turn, ...], *, thinking: bool) -> int | None:
    """The tokens of a prompt; None where the template refuses it."""
    body: dict[str, Any] = {"messages": turns, "stream": True, "max_tokens": 1, "return_progress": True}
    body["chat_template_kwargs"] = {"enable_thinking": thinking}
    async with aclosing(runner.stream("count", msgspec.json.encode(body))) as chunks:
        async for batch in chunks:
            for chunk in filter(None, batch):
                return None if is_error(chunk) else read_counted(chunk).prompt_tokens
    return None
