"""What a request means, whatever way its dialect puts it: two requests of one meaning compare equal.

Dialects differ in where they cut: turns of one role in a row are one turn, texts side by side are one text, thoughts come
before what they led to, and what holds anyway may be said or not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from msgspec import structs

from adapters.anthropic.call import MAX_TOKENS
from adapters.anthropic.turns import OPENING
from canonical.features import LOADS, Feature
from canonical.messages import Image, Message, Reasoning, Text, ToolCall, ToolResult
from canonical.requests import Embed, Generate, Origin, Output, Rerank, Tool

NO_PARAMETERS = {"type": "object", "properties": {}}
Turn = dict[str, Any]


def meant(request: Generate | Embed | Rerank, without: Collection[Feature] = ()) -> Any:
    """Its meaning, but for what concerns the features of ``without``."""
    if isinstance(request, Generate):
        return _generate(request, without)
    bare = structs.replace(request, origin=Origin(), model="")
    if Feature.TRUNCATE in without:
        bare = structs.replace(bare, truncate=None)
    if isinstance(bare, Rerank):
        return bare
    gone = {field: None for feature, field in LOADS.items() if feature in without}
    bare = structs.replace(bare, load=structs.replace(bare.load, **{"mmap": bare.load.mmap and None, **gone}))
    if Feature.DIMENSIONS in without:
        bare = structs.replace(bare, dimensions=None)
    if Feature.KEEP_ALIVE in without:
        bare = structs.replace(bare, keep_alive=None)
    return structs.replace(bare, truncate=bare.truncate or None)


def _generate(request: Generate, without: Collection[Feature]) -> Any:
    sampling = structs.asdict(request.sampling)
    if sampling["max_tokens"] == MAX_TOKENS:
        sampling["max_tokens"] = None  # one dialect demands a limit
    if Feature.HOT in without:
        sampling["temperature"] = min(sampling["temperature"], 1.0)
    if Feature.STOP_BLANK in without:
        sampling["stop"] = tuple(text for text in sampling["stop"] if not text.isspace())
    if (sampling["top_k"] or 0) < 0:
        sampling["top_k"] = None  # both mean all tokens
    choice = request.tool_choice
    forbidden = choice is not None and choice.mode == "none"
    tools = () if forbidden else tuple(_tool(tool, without) for tool in request.tools)
    if choice is not None and choice.mode in {"auto", "none"}:
        choice = None
    found = {
        "turns": turns(request.messages, without),
        "prompt": request.prompt,
        "tools": tools,
        "choice": choice if tools else None,
        "single": request.parallel_tool_calls is False and bool(tools),
        "output": _output(request.output, without),
        "think": (request.think, request.think_budget),
        "logprobs": None if request.top_logprobs is None else max(request.top_logprobs, 1),
        **{feature.value: getattr(request.load, field) for feature, field in LOADS.items()},
        Feature.MMAP.value: request.load.mmap is not False,
        "stay": request.keep_alive,
        **sampling,
    }
    if not {Feature.TOOL_REQUIRED, Feature.TOOL_NAMED}.isdisjoint(without):
        # A call that is held by the form of the answer: the tools are told in the prompt then.
        for name in ("turns", "tools", "choice", "single", "output"):
            del found[name]
    for feature in without:
        found.pop(_PLACES.get(feature, feature.value), None)
    return found


_THINK = dict.fromkeys(
    (Feature.THINK_OFF, Feature.THINK_ON, Feature.THINK_MINIMAL, Feature.THINK_LEVEL, Feature.THINK_BUDGET), "think"
)
_PLACES = {
    **_THINK,
    Feature.PROMPT_THINK: "think",
    Feature.PROMPT_OUTPUT: "output",
    Feature.HOT: "",
    Feature.STOP_BLANK: "",
    Feature.PARALLEL_TOOLS: "single",
    Feature.LOGPROBS: "logprobs",
    Feature.KEEP_ALIVE: "stay",
    Feature.TOOL_REQUIRED: "choice",
    Feature.TOOL_NAMED: "choice",
    Feature.JSON: "output",
    Feature.SCHEMA: "output",
}


def _tool(tool: Tool, without: Collection[Feature]) -> Any:
    parameters = json.loads(bytes(tool.parameters)) if tool.parameters is not None else NO_PARAMETERS
    strict = bool(tool.strict) and Feature.TOOL_STRICT not in without
    return tool.name, tool.description, parameters, strict


def _output(output: Output | None, without: Collection[Feature]) -> Any:
    if output is None:
        return None
    name = "" if Feature.SCHEMA_NAME in without else output.name
    strict = bool(output.strict) and Feature.SCHEMA_STRICT not in without
    return output.kind, output.schema and json.loads(bytes(output.schema)), name, strict


def turns(messages: Sequence[Message], without: Collection[Feature] = ()) -> list[Turn]:
    """The conversation, turn by turn."""
    found: list[Turn] = []
    instructions = ""
    for message in messages:
        role, parts = message.role, message.parts
        if role == "system" and not found:
            instructions = "\n\n".join(filter(None, (instructions, message.text)))
            continue
        if not any(getattr(part, "text", part) or getattr(part, "signature", None) for part in parts):
            continue
        if role == "system" and Feature.SYSTEM_LATER in without:
            role = "user"
        name = "" if Feature.MESSAGE_NAME in without else message.name
        if not found or role == "tool" or (found[-1]["role"], found[-1]["name"]) != (role, name):
            found.append({"role": role, "name": name, "thoughts": "", "seals": [], "said": [], "calls": []})
        _add(found[-1], parts, without)
    kept = [turn for turn in found if any((turn["thoughts"], turn["seals"], turn["said"], turn["calls"]))]
    if kept and (kept[0]["role"], kept[0]["said"]) == ("user", [("text", OPENING)]):
        del kept[0]  # one dialect demands that the user begins
    if kept and kept[-1]["role"] == "assistant" and kept[-1]["said"]:
        end = kept[-1]["said"][-1]  # the beginning of the answer
        kept[-1]["said"][-1] = (end[0], end[1].rstrip()) if end[0] == "text" else end
    for turn in kept:
        if Feature.IMAGE_PLACE in without:
            turn["said"] = _joined(sorted(turn["said"], key=lambda piece: piece[0] != "image"))
    return [{"role": "system", "said": instructions}, *kept] if instructions else kept


def _add(turn: Turn, parts: Sequence[Any], without: Collection[Feature]) -> None:
    for part in parts:
        match part:
            case Text(text):
                if text:
                    turn["said"] = _joined([*turn["said"], ("text", text)])
            case Image(source, detail):
                turn["said"].append(("image", source, "" if Feature.IMAGE_DETAIL in without else detail))
            case Reasoning(text, signature):
                if Feature.THOUGHTS not in without:
                    turn["thoughts"] += text
                if signature is not None and Feature.SIGNATURE not in without:
                    turn["seals"].append(signature)
            case ToolCall(id, name, arguments):
                turn["calls"].append((id, name, json.loads(arguments)))
            case ToolResult(id, _, text, error):
                if Feature.TOOL_ERROR in without:
                    text, error = text.removeprefix("Error: "), False
                turn["calls"].append((id, text, error))
            case _:
                turn["said"].append(("sound", part))


def _joined(pieces: list[Any]) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        if found and piece[0] == found[-1][0] == "text":
            found[-1] = ("text", found[-1][1] + piece[1])
        else:
            found.append(piece)
    return found
