"""What the stand-in says when no mind is behind it: the last text of the conversation decides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

from msgspec import Struct

from tests.lmstudio.studio import Studio, Told

WORDS = ("Hello", " from", " the", " stand", "-in")
THOUGHT = "hmm"
PAUSE = 0.005
"""Seconds between the pieces of an answer that never ends by itself."""


class Piece(Struct, frozen=True):
    """A bit of an answer."""

    text: str
    kind: Literal["text", "thought", "call"] = "text"
    name: str = ""
    """Of the tool that is called; ``text`` holds its arguments then."""


class Asked(Struct, frozen=True, kw_only=True):
    """What matters to the script of a request in any form."""

    text: str
    tools: tuple[str, ...] = ()
    answered: bool = False
    """The last message is a tool's."""
    schema: Any = None
    limit: int | None = None


async def say(studio: Studio, asked: Asked) -> AsyncIterator[Piece]:
    """The answer, piece by piece; closing it ends the generation. Raises Told."""
    studio.running += 1
    try:
        count = 0
        async for piece in _say(studio, asked):
            if asked.limit is not None and count >= asked.limit:
                return
            count += 1
            studio.pieces += 1
            yield piece
    finally:
        studio.running -= 1


async def _say(studio: Studio, asked: Asked) -> AsyncIterator[Piece]:
    if studio.fault == "empty":
        return
    if asked.tools and not asked.answered:
        yield Piece('{"a":1,"b":2}', "call", asked.tools[0])
        return
    if "slow" in asked.text:
        while True:
            yield Piece("x ")
            await asyncio.sleep(PAUSE)
    if "think" in asked.text:
        yield Piece(THOUGHT, "thought")
    if asked.schema is not None:
        yield Piece('{"ok"')
        yield Piece(": true}")
        return
    for number, word in enumerate(WORDS):
        if number == 1:
            if studio.fault == "partial":
                raise Told("The model has crashed", cause="the engine died")
            if studio.fault == "stall":
                await asyncio.sleep(3600)
        yield Piece(word)
        await asyncio.sleep(0)


def vector(text: str) -> list[float]:
    """Three numbers that depend on the text and are not of unit length: some of its models give such."""
    return [float(len(text)), 2.0, float(sum(text.encode()) % 7)]


def tokens(text: str) -> list[int]:
    """A token a word."""
    return [len(word) for word in text.split()]


def from_sdk(history: Any, config: dict[str, Any]) -> Asked:
    """A ``predict`` of the websocket protocol."""
    last = history["messages"][-1]
    tools = config.get("llm.prediction.tools") or {}
    structured = config.get("llm.prediction.structured") or {}
    limit = config.get("llm.prediction.maxPredictedTokens") or {}
    return Asked(
        text=" ".join(part.get("text", "") for part in last["content"]),
        tools=tuple(tool["function"]["name"] for tool in tools.get("tools", ())),
        answered=last["role"] == "tool",
        schema=structured.get("jsonSchema") if structured.get("type") == "json" else None,
        limit=limit.get("value") if limit.get("checked") else None,
    )


def from_rest(body: dict[str, Any]) -> Asked:
    """A body of ``/v1/chat/completions`` or ``/v1/completions``."""
    messages = body.get("messages") or [{"role": "user", "content": body.get("prompt", "")}]
    last = messages[-1]
    form = body.get("response_format") or {}
    choice = body.get("tool_choice")
    tools = () if choice == "none" else tuple(tool["function"]["name"] for tool in body.get("tools") or ())
    return Asked(
        text=last["content"] if isinstance(last["content"], str) else json.dumps(last["content"]),
        tools=tools,
        answered=last["role"] == "tool",
        schema=form.get("json_schema"),
        limit=limit if (limit := body.get("max_tokens")) and limit > 0 else None,
    )
