"""A whole server, asked: which models are asked in which dialects, and what is asked again with other settings."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from msgspec import Struct

from backends.abilities import DIALECTS, Abilities, Able, Dialect, Found, filled
from canonical.errors import GatewayError
from canonical.features import Feature
from canonical.models import Capability, ModelInfo, spelling
from gateway.probe.answers import Patience
from gateway.probe.asking import Asker
from gateway.probe.detecting import CREDENTIALS, Heard, Remote, Spoken, backend, listen
from gateway.probe.judges import HONOURED
from gateway.probe.safe import line, without

LISTING_TIME = 20.0
"""Seconds for each question that tells which dialects there are."""
OTHER_LIMIT = "max_completion_tokens"
"""How some clouds want the limit spelled, and say so when they refuse the usual spelling."""


class Failed(Exception):
    """No server there that can be asked; the message is one line."""


class Wish(Struct, frozen=True, kw_only=True):
    """What is to be asked."""

    url: str
    key: str = ""
    models: tuple[str, ...] = ()
    """Empty: the first one of the server's list, or with ``all`` each."""
    all: bool = False
    dialects: tuple[Dialect, ...] = DIALECTS
    patience: Patience = Patience()


async def probe(wish: Wish, progress: TextIO) -> Abilities:
    """Ask, and tell on ``progress`` how far it is. Raises Failed."""
    until = time.monotonic() + wish.patience.total
    heard = await listen(
        wish.url,
        wish.key,
        wanted=wish.dialects,
        seconds=min(LISTING_TIME, wish.patience.total),
        answering=wish.patience.first,
    )
    spoken = heard.spoken
    found: dict[Dialect, dict[str, Able]] = {}
    try:
        spoken = _usable(heard, wish)
        for each, info in _chosen(spoken, wish, progress):
            able = await _ask(each, info, wish, until, progress)
            if able.also:
                found.setdefault(each.dialect, {})[info.id] = able
    finally:
        for each in spoken:
            await each.backend.close()
    return Abilities(url=wish.url, probed=dt.datetime.now(dt.UTC).date().isoformat(), **_shared(found))


def _shared(found: Mapping[Dialect, Mapping[str, Able]]) -> dict[str, dict[str, Able]]:
    """What a server tells of a model in one dialect is true in the others."""
    known: dict[str, Able] = {}
    for models in found.values():
        for name, able in models.items():
            known[spelling(name)] = filled(known.get(spelling(name), Able()), able)
    return {
        dialect: {name: filled(able, known[spelling(name)]) for name, able in models.items()}
        for dialect, models in found.items()
    }


def check_found(found: Abilities) -> None:
    """A file without anything in it would look like knowledge. Raises Failed."""
    models = list(found.models())
    if any(yes for _, _, able in models for yes in able.capabilities.values()):
        return
    words = dict.fromkeys(each.note for _, _, able in models for each in able.also.values() if isinstance(each, Found))
    raise Failed("no model there answered anything: " + ("; ".join(list(words)[:3]) or "the time is over"))


def _usable(heard: Heard, wish: Wish) -> tuple[Spoken, ...]:
    failures = heard.failures
    if any(error.code == CREDENTIALS for error in failures.values()) and not heard.spoken:
        raise Failed("the server wants a key, or another one: --key-env VARIABLE")
    spoken = heard.spoken
    if len(wish.dialects) == 1 and wish.models and not spoken and heard.reached:
        # A dialect that is insisted on, and models that are named: a server need not list them.
        only = wish.dialects[0]
        source = backend(only, wish.url, wish.key, seconds=wish.patience.first)
        return (Spoken(only, source),)
    if not heard.reached:
        raise Failed(f"the server cannot be reached: {_reason(failures)}")
    if not spoken:
        raise Failed(f"nothing there speaks {' or '.join(wish.dialects)}: {_reason(failures)}")
    return spoken


def _reason(failures: Mapping[Dialect, GatewayError]) -> str:
    said = dict.fromkeys(" ".join(error.message.split())[:200] for error in failures.values())
    return "; ".join(said)


def _chosen(spoken: Sequence[Spoken], wish: Wish, progress: TextIO) -> list[tuple[Spoken, ModelInfo]]:
    """Which models are asked in which dialects: the same ones in each, however it spells them."""
    names = list(wish.models)
    if not names:
        listed: dict[str, str] = {}
        for each in spoken:
            for info in each.models:
                listed.setdefault(spelling(info.id), info.id)
        names = [name for name in listed.values() if name]
        if not names:
            raise Failed("the server lists no models: --model NAME")
        if not wish.all and len(names) > 1:
            print(line(f"{names[0]}, of {len(names)} models (--all, or --model NAME)"), file=progress)
            del names[1:]
    found = []
    for name in names:
        for each in spoken:
            known = {spelling(info.id): info for info in reversed(each.models)}
            told = known.get(spelling(name))
            if told is not None or wish.models:
                found.append((each, told or ModelInfo(id=name)))
    return found


async def _ask(spoken: Spoken, info: ModelInfo, wish: Wish, until: float, progress: TextIO) -> Able:
    def show(name: str, found: Found) -> None:
        print(line(f"{spoken.dialect} {info.id}: {name}: {found.fate}"), file=progress)

    async def asker(source: Remote) -> Asker:
        model = await source.open(info.id)
        return Asker(model, spoken.dialect, patience=wish.patience, until=until, clock=time.monotonic, progress=show)

    told = info
    with contextlib.suppress(GatewayError):
        told = filled(info, (await spoken.backend.details(info.id)).info)
    asked = await asker(spoken.backend)
    await asked.ask_all()
    setting: dict[str, str] = {}
    if spoken.dialect == "openai" and OTHER_LIMIT in asked.refused:
        setting = {"max_tokens_field": OTHER_LIMIT}
    elif spoken.dialect == "anthropic" and not asked.trouble and _may_think(asked):
        setting = {"thinking": "enabled"}
    if setting:
        other = backend(spoken.dialect, wish.url, wish.key, seconds=wish.patience.first, **setting)
        try:
            again = await asker(other)
            if "thinking" in setting:
                asked = await _thinking(asked, again)
                setting = setting if asked.features[Feature.THINK_ON].fate == "honoured" else {}
            else:
                await again.ask_all()
                asked = again
        finally:
            await other.close()
    if asked.trouble:
        print(line(f"{spoken.dialect} {info.id}: ended early: {without(wish.key, asked.trouble)}"), file=progress)
    return asked.able(told, setting)


def _may_think(asked: Asker) -> bool:
    """Whether it talks and does not think, as far as the usual words for it go."""
    on = asked.features.get(Feature.THINK_ON)
    return on is not None and on.fate != "honoured"


async def _thinking(asked: Asker, again: Asker) -> Asker:
    """``asked``, with what ``again`` finds about thoughts if it finds any."""
    await again.ask_thinking()
    if again.features.get(Feature.THINK_ON) == HONOURED:
        asked.features.update(again.features)
        asked.capabilities[Capability.REASONING] = True
    return asked
