"""Whose turn a text belongs to: instructions before a conversation, and without a role for them.

Templates without a system role refuse one, and many of them want user and assistant to take turns.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from canonical.messages import Message, Part, Text
from canonical.requests import Generate


def begin(messages: Sequence[Message]) -> int:
    """How many messages stand before the conversation, as its instructions."""
    return next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))


def told_first(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """``messages`` with ``text`` at the end of the instructions before them."""
    told = Message("system", (Text(text),))
    begun = begin(messages)
    if not begun:
        return (told, *messages)
    return (*messages[: begun - 1], joined(messages[begun - 1], told), *messages[begun:])


def without_system(request: Generate) -> Generate:
    """The same request for a model that has no system role: instructions become part of the user's turns.

    Those before the conversation stand at the head of the first user message, later ones where they stood.
    """
    if not any(message.role == "system" for message in request.messages):
        return request
    messages = request.messages
    begun = begin(messages)
    first = _one(messages[:begun])
    found: list[Message] = []
    moved = False
    for message in messages[begun:]:
        later = message.role == "system"
        if later:
            message = Message("user", message.parts)
        elif message.role == "user" and first is not None:
            message, first = joined(first, message), None
        if message.role == "user" and found and found[-1].role == "user" and (later or moved):
            found[-1] = joined(found[-1], message)
        else:
            found.append(message)
        moved = later or (moved and message.role == "user")
    if first is not None:
        found.insert(0, first)
    origin = structs.replace(request.origin, verbatim=False)
    return structs.replace(request, messages=tuple(found), origin=origin)


def joined(one: Message, other: Message) -> Message:
    """Two messages as one of the first's role, a blank line between their texts."""
    before: list[Part] = list(one.parts)
    after: list[Part] = list(other.parts)
    last, first = before[-1] if before else None, after[0] if after else None
    if isinstance(last, Text) and first is not None:
        if isinstance(first, Text):
            del after[0]
        before[-1] = Text(f"{last.text}\n\n{first.text if isinstance(first, Text) else ''}")
    return Message(one.role, (*before, *after), one.name or other.name)


def _one(messages: Sequence[Message]) -> Message | None:
    """Instructions as one message of the user's; None: there are none."""
    found: Message | None = None
    for message in messages:
        mine = Message("user", message.parts)
        found = mine if found is None else joined(found, mine)
    return found
