"""Ollama's model names: ``[scheme://][host/][namespace/]model[:tag]``.

Defaults are ``registry.ollama.ai``, ``library`` and ``latest``; letters' case never tells two names apart. Answers echo
a request's spelling, lists give the short form: no default host and namespace, always the tag.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HOST = "registry.ollama.ai"
NAMESPACE = "library"
TAG = "latest"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


class Name(NamedTuple):
    """The parts of a name, with the defaults filled in."""

    host: str
    namespace: str
    model: str
    tag: str


def parse(text: str) -> Name | None:
    """The parts of ``text``; None if it is no valid name (``@sha256:...`` is none either)."""
    scheme = _SCHEME.match(text)
    if scheme:
        text = text[scheme.end() :]
    *path, last = text.split("/")
    model, colon, tag = last.partition(":")
    if len(path) > 2:
        return None
    namespace = path.pop() if path else NAMESPACE
    host = path.pop() if path else HOST
    name = Name(host, namespace, model, tag if colon else TAG)
    return name if valid(name) else None


def valid(name: Name) -> bool:
    """Whether every part is one: only then may it become a part of a path."""
    forms = (_HOST, _NAMESPACE, _WORD, _WORD)
    return all(form.fullmatch(part) for form, part in zip(forms, name, strict=True))


def short(text: str) -> str:
    """The form of lists: ``qwen3`` -> ``qwen3:latest``, ``acme/bot`` -> ``acme/bot:latest``.

    A foreign id that is no Ollama name stays as it is, but for the tag.
    """
    name = parse(text)
    if name is None:
        return text if ":" in text.rpartition("/")[2] else f"{text}:{TAG}"
    return written(name)


def written(name: Name) -> str:
    """The form of lists."""
    if not _same_part(name.host, HOST):
        return f"{name.host}/{name.namespace}/{name.model}:{name.tag}"
    if not _same_part(name.namespace, NAMESPACE):
        return f"{name.namespace}/{name.model}:{name.tag}"
    return f"{name.model}:{name.tag}"


def key(text: str) -> str:
    """Equal for two spellings of one name: ``Qwen3`` and ``library/qwen3:LATEST``. For look-ups."""
    return short(text).lower()


def same(one: str, other: str) -> bool:
    """Whether two spellings mean one model."""
    return key(one) == key(other)


def _same_part(one: str, other: str) -> bool:
    return one.lower() == other.lower()
