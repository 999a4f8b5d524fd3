r"""The answer of ``/api/v1/chat``: named events, and the result that they add up to.

    event: message.delta
    data: {"type":"message.delta","content":"Hel"}

    chat.start (model_load.start model_load.progress* model_load.end)?
    prompt_processing.start prompt_processing.end
    (reasoning.start reasoning.delta* reasoning.end | message.start message.delta* message.end | tool_call.failure)*
    error? chat.end

What breaks off ends in ``error`` and, behind it, ``chat.end`` with what there is. The vendor's server runs tools that the
chat brings along; there are none here, so a call that a model makes all the same is one of no known tool.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from adapters.dialect import Stamp
from adapters.framing import encode_line
from adapters.lmstudio import wire
from adapters.lmstudio.errors import error_object
from adapters.lmstudio.stats import stats
from adapters.responses import reply
from adapters.responses import wire as kept
from adapters.responses.stream import CUT_OFF, LIMIT
from canonical.errors import BackendError, GatewayError
from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, ToolCallDelta

Kind = Literal["message", "reasoning"]


class ChatStream:
    """Canonical events -> frames, and the whole. ``store`` may be changed until the end is told."""

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"

    __slots__ = (
        "_begun", "_created", "_end", "_frame", "_instance", "_kind", "_last", "_loaded", "_output", "_pieces", "_prompt", "_size", "id",
        "store",
    )  # fmt: skip

    def __init__(
        self,
        stamp: Stamp,
        *,
        instance: str,
        store: bool,
        previous: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        limit: int | None = None,
    ) -> None:
        self.id = f"resp_{stamp.id}"
        self.store = store
        self._instance = instance
        self._created = stamp.clock() // 1_000_000_000
        asked = kept.Request(
            model=instance,
            previous_response_id=previous,
            temperature=temperature,
            top_p=top_p,
            max_output_tokens=limit,
        )
        self._frame = reply.frame(asked, kept.Echo())
        self._begun = False
        self._prompt = False
        """Whether the prompt is being processed, as far as the client knows."""
        self._loaded: float | None = None
        self._kind: Kind | None = None
        """What is being said."""
        self._pieces: list[str] = []
        self._size = 0
        self._output: list[wire.Said | wire.InvalidCall] = []
        self._end: Finished | None = None
        self._last = b""
        """Frames that wait for the last one: the answer may yet fail to be kept."""

    # A load, which is nobody's event

    def loading(self) -> bytes:
        """The model is being loaded for this chat."""
        return self._begin() + _frame("model_load.start", model_instance_id=self._instance)

    def progress(self, share: float) -> bytes:
        """How far that is, from 0 to 1."""
        return _frame("model_load.progress", model_instance_id=self._instance, progress=share)

    def loaded(self, seconds: float) -> bytes:
        """It is loaded."""
        self._loaded = seconds
        return _frame("model_load.end", model_instance_id=self._instance, load_time_seconds=seconds)

    # The answer

    def processing(self) -> bytes:
        """The prompt is being processed."""
        if self._prompt:
            return b""
        self._prompt = True
        return self._begin() + _frame("prompt_processing.start")

    def feed(self, event: Event, choice: int = 0) -> bytes:  # noqa: ARG002 - a chat has one choice
        """The frames of one event.

        Raises:
            BackendError: the answer has more than ``LIMIT`` characters.
        """
        match event:
            case TextDelta(text):
                return self._piece("message", text)
            case ReasoningDelta(text):
                return self._piece("reasoning", text)
            case ToolCallDelta():
                return self._call(event.name) if event.id else b""
            case Started():
                return self.processing()
            case Finished():
                self._end = event
                self._last = self._processed() + self._close()
                return b""

    def finish(self) -> bytes:
        """The last frames: what is open ends, and the whole answer is told."""
        return self._last + _frame("chat.end", result=self._result())

    def fail(self, error: GatewayError) -> bytes:
        """What went wrong, and the last frame, with what there is of an answer that nobody keeps."""
        self.store = False
        self._last += self._begin() + self._close() + _frame("error", error=error_object(error))
        return self.finish()

    def body(self) -> bytes:
        """The answer not streamed."""
        return encode_line(self._result())

    @property
    def status(self) -> kept.Status:
        """How it ended."""
        return "incomplete" if self._end is not None and self._end.reason in CUT_OFF else "completed"

    def kept(self) -> bytes:
        """The answer as it is kept: the object of ``/v1/responses``. Calls of no known tool are nothing to go on from."""
        items: list[kept.OutputItem] = []
        for said in self._output:
            id = f"{self.id.removeprefix('resp_')}_{len(items)}"
            if isinstance(said, wire.InvalidCall):
                continue
            if said.type == "message":
                items.append(
                    kept.MessageItem(id=f"msg_{id}", status="completed", content=[kept.OutputText(said.content)])
                )
            else:
                thought = [kept.ReasoningText(said.content)]
                items.append(kept.ReasoningItem(id=f"rs_{id}", status="completed", summary=[], content=thought))
        told = self._frame.response(
            id=self.id, created=self._created, status=self.status, model=self._instance, output=items, store=True
        )
        told.usage = reply.usage(self._end.usage) if self._end is not None else None
        if self.status == "incomplete":
            assert self._end is not None
            told.incomplete_details = kept.Incomplete(CUT_OFF[self._end.reason])
        else:
            told.completed_at = self._created
        return encode_line(told)

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _frame("chat.start", model_instance_id=self._instance)

    def _processed(self) -> bytes:
        """The prompt is, as soon as anything is known to come of it."""
        if not self._prompt:
            return b""
        self._prompt = False
        return _frame("prompt_processing.end")

    def _piece(self, kind: Kind, text: str) -> bytes:
        if not text:
            return b""
        self._size += len(text)
        if self._size > LIMIT:
            raise BackendError(f"the answer has more than {LIMIT} characters")
        frames = b""
        if kind != self._kind:
            frames = self._processed() + self._close() + _frame(f"{kind}.start")
            self._kind = kind
        self._pieces.append(text)
        return frames + _frame(f"{kind}.delta", content=text)

    def _close(self) -> bytes:
        """End the text or the thoughts that are open."""
        if self._kind is None:
            return b""
        kind, self._kind = self._kind, None
        self._output.append(wire.Said(kind, "".join(self._pieces)))
        self._pieces = []
        return _frame(f"{kind}.end")

    def _call(self, name: str) -> bytes:
        call = wire.InvalidCall(
            reason=f"Cannot find tool with name {name}.", metadata=wire.CallMetadata("invalid_name", name)
        )
        frames = self._processed() + self._close()
        self._output.append(call)
        return frames + _frame("tool_call.failure", reason=call.reason, metadata=call.metadata)

    def _result(self) -> wire.Result:
        result = wire.Result(
            model_instance_id=self._instance, output=self._output, stats=stats(self._end, self._loaded)
        )
        if self.store:
            result.response_id = self.id
        return result


def _frame(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode_line({"type": name, **fields}))
