"""What a model brings along to every request: instructions, a conversation to begin with, and how it is sampled and loaded.

What a client says comes first, then what the model brings along, then what the server has by default.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct, structs

from canonical.messages import Message, Text
from canonical.requests import AS_CONFIGURED, Generate, LoadOptions, Sampling
from canonical.roles import begin

S = TypeVar("S", Sampling, LoadOptions)

_NOT_SAID = Sampling()


class Own(Struct, frozen=True, kw_only=True):
    """A model's own part of each request."""

    system: str = ""
    """Instructions, where a client gives none of its own."""
    messages: tuple[Message, ...] = ()
    """Turns that stand before the client's."""
    sampling: Sampling = _NOT_SAID
    load: LoadOptions = AS_CONFIGURED

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Own()


def applied(request: Generate, own: Own) -> Generate:
    """``request`` with what ``own`` says and the client does not.

    A prompt that goes to the model as it stands gets neither instructions nor turns.
    """
    sampling = over(request.sampling, own.sampling)
    load = over(request.load, own.load)
    messages = request.messages
    if request.prompt is None:
        begun = begin(messages)
        # Instructions first: many templates know of no later place for them.
        head = messages[:begun] or _instructions(own)
        if head or own.messages:
            messages = (*head, *own.messages, *messages[begun:])
    if messages == request.messages:
        return structs.replace(request, sampling=sampling, load=load)
    origin = structs.replace(request.origin, verbatim=False)
    return structs.replace(request, sampling=sampling, load=load, messages=messages, origin=origin)


def over(said: S, own: S) -> S:
    """``said``, with what it leaves open as ``own`` has it."""
    if own == type(own)():
        return said
    gaps = {
        name: mine
        for name, mine in structs.asdict(own).items()
        if mine not in (None, ()) and getattr(said, name) in (None, ())
    }
    return structs.replace(said, **gaps) if gaps else said


def laid_over(upper: Own, lower: Own) -> Own:
    """One model's part where two have a say: ``upper`` wins, and its turns replace those of ``lower``."""
    if not upper:
        return lower
    if not lower:
        return upper
    return Own(
        system=upper.system or lower.system,
        messages=upper.messages or lower.messages,
        sampling=over(upper.sampling, lower.sampling),
        load=over(upper.load, lower.load),
    )


def _instructions(own: Own) -> tuple[Message, ...]:
    return (Message("system", (Text(own.system),)),) if own.system else ()
