"""Messages as pure values: a role and a tuple of parts. Equality is by content.

Identity, storage and wire spelling are left to others. Roles are four: a dialect spells ``developer``, ``ai``
or ``function`` away at its border. A tool call always has an id; the adapter mints one if its wire has none.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from canonical.media import Blob

Role = Literal["system", "user", "assistant", "tool"]


class Text(Struct, frozen=True, tag="text", gc=False):
    """Plain text."""

    text: str


class Reasoning(Struct, frozen=True, tag="reasoning", gc=False):
    """What the model thought before it answered; ``signature`` is a vendor's opaque proof of it."""

    text: str
    signature: str | None = None


class Image(Struct, frozen=True, tag="image", omit_defaults=True):
    """A picture: its bytes, or a link. ``detail`` is how closely to look, in OpenAI's words; empty: not said."""

    source: Blob | str
    detail: str = ""


class Audio(Struct, frozen=True, tag="audio"):
    """A sound."""

    source: Blob


class ToolCall(Struct, frozen=True, tag="tool_call", gc=False):
    """The model asks for a function. ``arguments`` is JSON *text*: that is what streams and what models get wrong."""

    id: str
    name: str
    arguments: str


class ToolResult(Struct, frozen=True, tag="tool_result", omit_defaults=True):
    """What the function of call ``id`` answered. ``name`` may be empty where the wire does not say it."""

    id: str
    name: str
    text: str
    error: bool = False
    """The function failed, and the text says how."""

    @property
    def told(self) -> str:
        """The text, for wires that have no other word for a failure."""
        return f"Error: {self.text}" if self.error else self.text


Part = Text | Reasoning | Image | Audio | ToolCall | ToolResult


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation. ``name`` is who speaks, where several share a role."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))
