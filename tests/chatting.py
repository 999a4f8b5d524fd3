"""LM Studio's REST in memory, and the events of its ``/api/v1/chat``, held to the order and the fields of its documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.settings import Listener
from tests.asgi import Call, House
from tests.houses import Home
from tests.responding import lived

SPEAKS = Listener(port=1234, dialects=("lmstudio", "openai"))

Story = Callable[[House], Awaitable[None]]


def live(data: Path | None, story: Story, home: Home | None = None, **more: Any) -> None:
    lived(data, story, home, listener=SPEAKS, **more)


def error_of(call: Call) -> Any:
    return call.json()["error"]


FIELDS: dict[str, set[str]] = {
    "chat.start": {"model_instance_id"},
    "model_load.start": {"model_instance_id"},
    "model_load.progress": {"model_instance_id", "progress"},
    "model_load.end": {"model_instance_id", "load_time_seconds"},
    "prompt_processing.start": set(),
    "prompt_processing.progress": {"progress"},
    "prompt_processing.end": set(),
    "reasoning.start": set(),
    "reasoning.delta": {"content"},
    "reasoning.end": set(),
    "message.start": set(),
    "message.delta": {"content"},
    "message.end": set(),
    "tool_call.failure": {"reason", "metadata"},
    "error": {"error"},
    "chat.end": {"result"},
}
"""Event -> the fields that it always has, beside its type."""

_LOAD = r"(model_load\.start (model_load\.progress )*model_load\.end )?"
_PROMPT = r"prompt_processing\.start (prompt_processing\.progress )*prompt_processing\.end "
_ITEMS = "(" + "|".join(rf"{kind}\.start ({kind}\.delta )+{kind}\.end " for kind in ("reasoning", "message"))
_ITEMS += r"|tool_call\.failure )*"
_WHOLE = re.compile(rf"chat\.start {_LOAD}{_PROMPT}{_ITEMS}chat\.end ")
_BEGINNING = rf"chat\.start (model_load\.start (model_load\.progress )*(model_load\.end )?)?((prompt_processing\.start )?|{_PROMPT}{_ITEMS})"
_BROKEN = re.compile(rf"{_BEGINNING}error chat\.end ")

Record = dict[str, Any]


def records(stream: bytes) -> list[Record]:
    """The data of each event, whose name is the same in both of its places."""
    found: list[Record] = []
    assert stream.endswith(b"\n\n")
    for frame in stream.decode().removesuffix("\n\n").split("\n\n"):
        if frame.startswith(":"):
            continue
        event, data = frame.split("\n")
        record = json.loads(data.removeprefix("data: "))
        assert event == f"event: {record['type']}"
        assert record.keys() == FIELDS[record["type"]] | {"type"}
        found.append(record)
    return found


def told(stream: bytes, *, broken: bool = False) -> tuple[list[Record], Any]:
    """The events of a stream that obeys the grammar, and its result, which is what they add up to."""
    found = records(stream)
    names = "".join(f"{record['type']} " for record in found)
    assert (_BROKEN if broken else _WHOLE).fullmatch(names), names
    result = found[-1]["result"]
    output: list[Record] = []
    for record in found:
        kind, _, step = record["type"].partition(".")
        if step == "start" and kind in {"message", "reasoning"}:
            output.append({"type": kind, "content": ""})
        elif step == "delta":
            output[-1]["content"] += record["content"]
        elif step == "failure":
            output.append({"type": "invalid_tool_call", "reason": record["reason"], "metadata": record["metadata"]})
    assert result["output"] == output
    return found, result


def types(found: list[Record]) -> list[str]:
    return [record["type"] for record in found]
