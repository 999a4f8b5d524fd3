"""Texts of servers, made fit to be printed."""

from __future__ import annotations


def without(key: str, text: str) -> str:
    """Servers may quote a key; nothing that is printed or written holds it."""
    return text.replace(key, "[redacted]") if key else text


def shown(text: str) -> str:
    """What servers say, without what would steer a terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def line(text: str) -> str:
    """The same of what stands in a line, and must not look like another."""
    return shown(text).replace("\n", "\N{REPLACEMENT CHARACTER}")
