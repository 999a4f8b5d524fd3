"""A stored response as a stream once more: the same events in the same order, each text in one piece.

What was streamed while it was made has other numbers: who wants to go on from one asks for an answer whose stream was kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from adapters.framing import encode_line

_LAST = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",
    "failed": "response.failed",
}
_UNDECIDED: dict[str, Any] = {
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
    "output": [],
    "usage": None,
}
_TOLD_BY = {
    "output_text": "response.output_text",
    "reasoning_text": "response.reasoning_text",
    "summary_text": "response.reasoning_summary_text",
}
_CALLS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}

_object = msgspec.json.Decoder(dict[str, Any])


def replay(response: bytes) -> Iterator[bytes]:
    """The frames of a response that has ended; a frame's place is its number. Three of them hold most of it again."""
    whole = _object.decode(response)
    del response  # who reads slowly need not hold it twice
    begun = {**whole, **_UNDECIDED, "status": "in_progress"}
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
    ]
    for index, item in enumerate(whole["output"]):
        told.extend(_item(index, item))
    told.append((_LAST[whole["status"]], {"response": whole}))
    for number, (event, fields) in enumerate(told):
        yield _frame(event, {"type": event, "sequence_number": number, **fields})


def _frame(event: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), encode_line(fields))


def frames_of(log: bytes) -> list[bytes]:
    """The frames of a stream that was kept."""
    return [frame + b"\n\n" for frame in log.split(b"\n\n")[:-1]]


def _item(index: int, item: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    empty = {"content": [], "summary": [], "arguments": "", "input": ""}
    sealed = {name: value for name, value in item.items() if name != "encrypted_content"}
    started = {**sealed, **{name: empty[name] for name in empty if name in item}, "status": "in_progress"}
    told: list[tuple[str, dict[str, Any]]] = [("response.output_item.added", {"output_index": index, "item": started})]
    where = {"item_id": item["id"], "output_index": index}
    for name, prefix, place in (
        ("summary", "response.reasoning_summary_part", "summary_index"),
        ("content", "response.content_part", "content_index"),
    ):
        for number, part in enumerate(item.get(name, ())):
            told.extend(_part({**where, place: number}, prefix, part))
    if item["type"] in _CALLS:
        event, name = _CALLS[item["type"]]
        if item[name]:
            told.append((f"{event}.delta", {**where, "delta": item[name]}))
        named = {"name": item["name"]} if name == "arguments" else {}
        told.append((f"{event}.done", {**where, **named, name: item[name]}))
    told.append(("response.output_item.done", {"output_index": index, "item": item}))
    return told


def _part(where: dict[str, Any], prefix: str, part: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    event = _TOLD_BY[part["type"]]
    tokens = [
        {**{name: token[name] for name in ("token", "logprob")}, "top_logprobs": _bare(token["top_logprobs"])}
        for token in part.get("logprobs", ())
    ]
    spoken = "logprobs" in part
    more = {"logprobs": tokens} if spoken else {}
    begun = {**part, "text": "", **({"logprobs": []} if spoken else {})}
    told: list[tuple[str, dict[str, Any]]] = [(f"{prefix}.added", {**where, "part": begun})]
    if part["text"]:
        told.append((f"{event}.delta", {**where, "delta": part["text"], **more}))
    told.append((f"{event}.done", {**where, "text": part["text"], **more}))
    told.append((f"{prefix}.done", {**where, "part": part}))
    return told


def _bare(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"token": token["token"], "logprob": token["logprob"]} for token in tokens]
