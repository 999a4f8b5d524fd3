"""What was found, as text for a terminal: a row a feature, a column a dialect, and below it why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.abilities import DIALECTS, Abilities, Able, Dialect, Found, Word
from canonical.features import Feature
from canonical.models import Capability
from gateway.probe.safe import line

NO_WORD = "-"
"""The dialect cannot say it, or it was not asked."""


def write_table(abilities: Abilities) -> str:
    """All models, one table each."""
    by_model: dict[str, dict[Dialect, Able]] = {}
    for dialect, name, able in abilities.models():
        by_model.setdefault(name.removesuffix(":latest"), {})[dialect] = able
    return "\n".join(_model(name, columns) for name, columns in by_model.items())


def _model(name: str, columns: Mapping[Dialect, Able]) -> str:
    dialects = [dialect for dialect in DIALECTS if dialect in columns]
    able = [columns[dialect] for dialect in dialects]
    rows: list[list[str]] = []
    notes: list[str] = []
    asked = dict.fromkeys(key for each in able for key in each.also)
    for key in asked:
        _row(key, [each.also.get(key) for each in able], dialects, rows, notes)
    for feature in Feature:
        found = [each.features.get(feature) for each in able]
        if any(each is not None for each in found):
            _row(feature.value, found, dialects, rows, notes)
    lines = [line(name), *_facts(able), *_aligned([["", *dialects], *rows])]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _facts(able: Sequence[Able]) -> list[str]:
    facts = []
    can = dict.fromkeys(name for each in able for name, yes in each.capabilities.items() if yes)
    facts.append(f"  does: {', '.join(can) or 'nothing that was asked'}")
    if any(each.inline_thinking for each in able):
        facts.append("  writes its thoughts into the text (inline_thinking)")
    facts.extend(
        f"  asked with `{name}: {value}`, which its backend's settings need"
        for each in able
        for name, value in each.asked_with.items()
    )
    context = max(each.context_length for each in able)
    if context:
        facts.append(f"  context: {context} tokens")
    length = max(each.embedding_length for each in able)
    if length and Capability.EMBED in can:
        facts.append(f"  vectors: {length} numbers")
    return facts


def _row(
    name: str,
    found: Sequence[Word | Found | None],
    dialects: Sequence[Dialect],
    rows: list[list[str]],
    notes: list[str],
) -> None:
    rows.append([f"  {name}", *(NO_WORD if each is None else _fate(each) for each in found)])
    said: dict[str, list[str]] = {}
    for dialect, each in zip(dialects, found, strict=True):
        if isinstance(each, Found):
            said.setdefault(f"{each.fate}: {each.note}", []).append(dialect)
    notes.extend(f"  {name} ({', '.join(who)}) {line(words)}" for words, who in said.items())


def _fate(found: Word | Found) -> str:
    return found.fate if isinstance(found, Found) else found


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
