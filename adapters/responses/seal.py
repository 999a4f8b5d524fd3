"""Thoughts in an ``encrypted_content``, and text tools as functions: both go out to the client and come back whole.

Clients that keep a conversation themselves (Codex does) send reasoning items back with nothing but this field, so it holds
the thoughts and their signature. It is a container, not a secret: who may read the answer may read the thoughts.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from canonical.messages import Reasoning

MARK = "dragoman1."

_encode = msgspec.json.Encoder().encode


class _Sealed(msgspec.Struct, array_like=True):
    text: str
    signature: str | None = None


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    input: str


_sealed = msgspec.json.Decoder(_Sealed)
_input = msgspec.json.Decoder(_Input)


def seal(thought: Reasoning) -> str:
    """``thought`` as an ``encrypted_content``."""
    return MARK + base64.urlsafe_b64encode(_encode(_Sealed(thought.text, thought.signature))).decode()


def unseal(text: str) -> Reasoning | None:
    """What ``seal`` has put in; None of what another server has encrypted."""
    if not text.startswith(MARK):
        return None
    try:
        found = _sealed.decode(base64.urlsafe_b64decode(text.removeprefix(MARK)))
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        return None
    return Reasoning(found.text, found.signature)


SCHEMA = b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}'
"""The parameters of a tool that takes plain text."""


def text_arguments(text: str) -> str:
    """The input of a text tool as the arguments of a function."""
    return _encode(_Input(text)).decode()


def text_input(arguments: str) -> str:
    """The way back. Of arguments in another form the whole is the input: a model may get it wrong."""
    try:
        return _input.decode(arguments).input
    except msgspec.MsgspecError:
        return arguments
