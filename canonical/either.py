"""An answer in a given form from a model that may call tools instead: held to either, and told as what it turns out to be.

Engines hold a schema, or look for calls; asked for both they hold the schema, and no tool is ever called. So the schema
says: the answer, or the JSON of a call, as in ``forced``. The first letters of what comes tell which of them it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, structs

from canonical.errors import Unsupported
from canonical.events import Event, Finished, TextDelta
from canonical.forced import ForcedCall, call_schema, move_shared
from canonical.limits import check_schema
from canonical.requests import Generate, Output


def allow_calls(request: Generate) -> Generate | None:
    """The request with a schema that its answer and its tools' calls fit; None where there are not both.

    Raises:
        Unsupported: two of the schemas define one name differently, or the answer's refers to its own root.
        InvalidRequest: they are past the limits together.
    """
    output, choice = request.output, request.tool_choice
    if output is None or not request.tools or request.prompt is not None:
        return None
    if choice is not None and choice.mode != "auto":
        return None
    shared: dict[str, dict[str, Any]] = {}
    answer: dict[str, Any] = {"type": "object"}
    if output.schema is not None:
        if b'"#"' in bytes(output.schema):
            raise Unsupported("beside tools a schema may not refer to its own root", param="response_format")
        answer = move_shared(json.loads(bytes(output.schema)), shared)
    calls = [call_schema(tool, shared) for tool in request.tools]
    text = Raw(msgspec.json.encode({"anyOf": [*calls, answer], **shared}))
    check_schema(text, param="tools")
    return structs.replace(request, output=structs.replace(output, kind="schema", schema=text))


class EitherCall:
    """The text of such an answer, in any slices -> a call's events, or the text. Thoughts before it pass.

    Where the form leaves open which names an object has, an answer may begin as a call does and go on otherwise: then
    only the whole of it tells, and nothing comes before that.
    """

    def __init__(self, request: Generate, new_id: Callable[[], str]) -> None:
        """``request`` is the client's own."""
        names = [tool.name for tool in request.tools]
        self._open = _open(request.output)
        self._names = frozenset(names)
        self._heads = ['{"name":' + _bare(json.dumps(name, ensure_ascii=False)) + ',"arguments":' for name in names]
        self._call = ForcedCall(new_id)
        self._calls: bool | None = None
        self._held: list[TextDelta] = []
        self._text = ""

    def feed(self, events: list[Event]) -> list[Event]:
        """The same events; text that is a call becomes one."""
        told: list[Event] = []
        for event in events:
            if self._calls is None and isinstance(event, TextDelta):
                self._held.append(event)
                self._text += event.text
                self._decide()
                if self._calls is not None:
                    told.extend(self._settled())
            elif self._calls is None and isinstance(event, Finished):
                self._calls = self._open and self._whole_call()
                told.extend([*self._settled(), *(self._call.feed([event]) if self._calls else [event])])
            else:
                told.extend(self._call.feed([event]) if self._calls else [event])
        return told

    def _decide(self) -> None:
        if self._open:
            return
        bare = _bare(self._text)
        if any(bare.startswith(head) for head in self._heads):
            self._calls = True
        elif not any(head.startswith(bare) for head in self._heads):
            self._calls = False

    def _whole_call(self) -> bool:
        try:
            found = json.loads(self._text)
        except ValueError:
            return False
        return (
            isinstance(found, dict)
            and list(found) == ["name", "arguments"]
            and found["name"] in self._names
            and isinstance(found["arguments"], dict)
        )

    def _settled(self) -> list[Event]:
        held: list[Event] = [*self._held]
        self._held.clear()
        return self._call.feed(held) if self._calls else held


def _open(output: Output | None) -> bool:
    """Whether a form lets an object have any names."""
    if output is None or output.schema is None:
        return True
    schema: Any = json.loads(bytes(output.schema))
    return "properties" not in schema or schema.get("additionalProperties", False) is not False


def _bare(text: str) -> str:
    return "".join(text.split())
