"""A loaded GGUF model: canonical requests in, canonical events out, over either engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import reduce

from msgspec import structs

from adapters.openai.call import ChatReader, CompletionReader
from backends.base import new_call_id
from backends.llama_cpp.body import chat_body, completion_body, switched_on
from backends.llama_cpp.engine import Kind, is_error, read_counted, read_error
from backends.llama_cpp.facts import Facts
from backends.llama_cpp.loaded import Loaded
from backends.llama_cpp.notes import Notes
from backends.llama_cpp.schema import check_held
from canonical.either import EitherCall, allow_calls
from canonical.errors import BackendError, InvalidRequest, Unsupported
from canonical.events import Event, ReasoningDelta, Started, TextDelta, ToolCallDelta
from canonical.forced import ForcedCall, force
from canonical.models import Capability
from canonical.requests import Generate, ToolChoice, has_calls
from canonical.roles import begin, joined, without_system
from canonical.think import OPEN

_CALLED = b'{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}'
_ENDLESS = 2**31
"""Tokens of a budget that is none: the engine's own numbers end before, and begin anew."""


class TextModel(Loaded):
    """A model that goes on with conversations and prompts."""

    thinking: bool = False
    """Whether it thinks where a request does not say."""
    switch: bool = True
    """Whether its template can leave thoughts out."""
    facts: Facts = Facts()
    engine: str = "xllamacpp"

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the answer's events. Closing the generator stops the generation and waits until its slot is free.

        Raises:
            InvalidRequest, Unsupported: before the engine has seen anything, or by its verdict on the request.
            BackendError: the engine failed.
        """
        forced = force(request) if self.engine == "xllamacpp" else None
        either = allow_calls(request)
        call: ForcedCall | EitherCall | None = None
        if either is not None:
            call = EitherCall(request, new_call_id)
        elif forced is not None:
            call = ForcedCall(new_call_id)
        kind, body = self._asked(request, either or forced)
        reader = ChatReader(new_call_id) if kind == "chat" else CompletionReader()
        thinking = self._thinks(request)[0] if kind == "chat" else None
        # A model that has been told not to think may do so all the same, and nobody wants to hear it.
        hidden = thinking is False and not switched_on(request, self._limits)
        trim = _Trim(thinking=bool(thinking), hidden=hidden)
        single = request.parallel_tool_calls is False
        notes = Notes()
        async with aclosing(self.runner.stream(kind, body)) as chunks:
            async for batch in chunks:
                events: list[Event] = []
                for chunk in batch:
                    if not chunk:
                        continue
                    if is_error(chunk):
                        raise read_error(chunk, context=self._limits.context)
                    notes.read(chunk)
                    events.extend(reader.feed_record(chunk))
                told = self._told(events, trim)
                if single and any(isinstance(event, ToolCallDelta) and event.index for event in told):
                    # The engine's grammar lets a second call come even so. Leaving it here stops it.
                    told = [event for event in told if not (isinstance(event, ToolCallDelta) and event.index)]
                    reader.feed_record(_CALLED)
                    yield told
                    break
                if call is not None:
                    told = call.feed(told)
                if told:
                    yield told
        end = notes.add_to(reader.finish())
        yield end if call is None else call.feed(end)

    async def count(self, request: Generate) -> int:
        """The tokens of the prompt, as the engine itself counts them. Raises as ``generate``."""
        kind, body = self._asked(request)
        if kind != "chat":
            raise Unsupported("only conversations are counted", param="prompt")
        async with aclosing(self.runner.stream("count", body)) as chunks:
            async for batch in chunks:
                for chunk in filter(None, batch):
                    if is_error(chunk):
                        raise read_error(chunk, context=self._limits.context)
                    return read_counted(chunk).prompt_tokens
        raise BackendError("the engine did not count")

    def _asked(self, request: Generate, forced: Generate | None = None) -> tuple[Kind, bytes]:
        if request.output is not None and request.output.schema is not None:
            check_held(request.output.schema, self.engine, param="response_format")
        prompt = request.prompt
        if prompt is not None:
            if Capability.VISION in self.info.capabilities and (prompt.tokens is not None or prompt.suffix is not None):
                # Its engine reads prompts for markers of pictures then, and takes nothing but text.
                what = "token ids" if prompt.suffix is None else "insert"
                raise Unsupported(
                    f'"{self.info.id}" does not support {what} beside its vision projector', param="prompt"
                )
            return "completion", completion_body(request, prompt, self._limits)
        able = self.info.capabilities
        if request.tools and Capability.TOOLS not in able:
            raise Unsupported(f"{self.info.id!r} does not support tools", param="tools")
        choice = request.tool_choice
        if choice is not None and choice.mode == "named" and all(tool.name != choice.name for tool in request.tools):
            raise InvalidRequest(f"there is no tool named {choice.name[:64]!r}", param="tool_choice")
        if request.tools and request.top_logprobs is not None and self.engine == "xllamacpp" and not _none(choice):
            raise Unsupported("this model's engine gives no log probabilities beside tools", param="logprobs")
        if Capability.TOOLS not in able and has_calls(request):
            # Its template would leave them out without a word.
            raise Unsupported(f"{self.info.id!r} does not support tools", param="messages")
        asked = self._placed(forced or request)
        thinking, budget = self._thinks(request)
        vision = Capability.VISION in able
        return "chat", chat_body(asked, self._limits, thinking=thinking, vision=vision, budget=budget)

    def _thinks(self, request: Generate) -> tuple[bool | None, int | None]:
        """Whether the model is to think, and for how many tokens at most; None: it cannot, or as long as it likes."""
        if Capability.REASONING not in self.info.capabilities:
            return None, None
        budget = request.think_budget
        if request.think == "off" or (budget is not None and budget <= 0):
            thinking = False
        elif request.think is None and budget is None:
            # Clients of Anthropic's dialect who do not ask for thoughts want none, and set small limits.
            thinking = self.thinking and request.origin.dialect != "anthropic"
        else:
            thinking = True
        if not thinking:
            return False, None if self.switch else 0
        return True, budget if budget is not None and budget < _ENDLESS else None

    def _placed(self, request: Generate) -> Generate:
        """Instructions where the model's template has a place for them."""
        facts = self.facts
        if facts.system and facts.system_later:
            return request
        if not facts.system:
            return without_system(request)
        messages = request.messages
        begun = begin(messages)
        first = (reduce(joined, messages[:begun]),) if begun else ()  # a template that knows one place has room for one
        rest = without_system(structs.replace(request, messages=messages[begun:]))
        return structs.replace(rest, messages=(*first, *rest.messages))

    def _told(self, events: list[Event], trim: _Trim) -> list[Event]:
        told: list[Event] = []
        for event in events:
            if type(event) is ReasoningDelta:
                text = trim.feed(event.text)
                if text:
                    told.append(ReasoningDelta(text))
            elif type(event) is TextDelta and trim.before(event):
                pass  # log probabilities of thoughts and their tags
            elif type(event) is Started:
                told.append(Started(self.info.id))
            else:
                told.append(event)
        return told


def _none(choice: ToolChoice | None) -> bool:
    return choice is not None and choice.mode == "none"


class _Trim:
    """Reasoning without white space at its ends: engines leave the line breaks beside the tags. ``hidden``: none of it."""

    def __init__(self, *, thinking: bool, hidden: bool = False) -> None:
        self._held = ""
        self._begun = False
        self._before = thinking
        self._hidden = hidden

    def before(self, event: TextDelta) -> bool:
        """Whether the answer itself has not begun, with ``event``."""
        if event.text:
            self._before = False
        elif self._hidden and any(token.token == OPEN for token in event.logprobs):
            self._before = True
        return self._before

    def feed(self, text: str) -> str:
        if self._hidden:
            self._before = True
            return ""
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._begun = self._begun or bool(kept)
        self._held = text[len(kept) :]
        return kept
