"""The command line: ``dragoman probe URL``. Exit status 0: probed; 1: no server there that can be asked; 2: wrong usage."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from backends.abilities import DIALECTS, Abilities, Able, Dialect, Found, filled, write_abilities
from backends.remote import read_url
from canonical.errors import GatewayError
from canonical.features import Feature
from canonical.models import Capability, ModelInfo
from gateway.probe.answers import Patience
from gateway.probe.asking import Asker
from gateway.probe.detecting import CREDENTIALS, Heard, Remote, Spoken, backend, listen
from gateway.probe.judges import HONOURED
from gateway.probe.table import write_table

LISTING_TIME = 20.0
"""Seconds for each question that tells which dialects there are."""
OTHER_LIMIT = "max_completion_tokens"
"""How some clouds want the limit spelled, and say so when they refuse the usual spelling."""
STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


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


def main(arguments: list[str], *, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    key = ""
    if options.key_env:
        key = environ.get(options.key_env, "")
        if not key:
            parser.error(f"the environment variable {options.key_env} is not set")
    try:
        read_url(options.url)
        _check_key(key)
    except ValueError as error:
        parser.error(str(error))
    wish = Wish(
        url=options.url,
        key=key,
        models=tuple(options.model),
        all=options.all,
        dialects=(options.type,) if options.type else DIALECTS,
        patience=Patience(ask=options.ask_time, total=options.total_time, first=max(options.ask_time, 300.0)),
    )
    if options.write is not None and (options.write.is_dir() or not os.access(options.write.parent, os.W_OK)):
        parser.error(f"{options.write} cannot be written")
    try:
        found = _run(wish, sys.stderr)
        _check_found(found)
    except Failed as error:
        print(f"dragoman: {_shown(_without(key, str(error)))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dragoman: stopped", file=sys.stderr)
        return STOPPED
    told = write_abilities(found, json=True).decode() if options.json else _shown(write_table(found))
    sys.stdout.write(_without(key, told))
    if options.write is not None:
        text = _without(key, write_abilities(found, json=options.write.suffix == ".json").decode())
        try:
            options.write.write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"dragoman: {options.write}: {error.strerror}", file=sys.stderr)
            return 2
        print(f"written: {options.write} (a backend uses it with `abilities: {options.write.name}`)", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dragoman probe",
        description="Ask a server what its models can truly do: tools, JSON, images, thinking, every sampling parameter.",
    )
    parser.add_argument("url", help="where it is, as in a backend's `url`: http://127.0.0.1:1234")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="this one; may be given again")
    parser.add_argument("--all", action="store_true", help="every model of its list; without: the first one")
    parser.add_argument("--type", choices=DIALECTS, help="ask in this dialect only; without: in all that it speaks")
    parser.add_argument("--key-env", default="", metavar="VARIABLE", help="the environment variable that holds its key")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it down, as YAML or (.json) JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--ask-time", type=_seconds, default=60.0, metavar="SECONDS", help="for one answer (60)")
    parser.add_argument("--total-time", type=_seconds, default=1800.0, metavar="SECONDS", help="for everything (1800)")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError("more than 0 and at most a day")
    return value


def _check_key(key: str) -> None:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the key has a character that no header can carry")


def _without(key: str, text: str) -> str:
    """Servers may quote a key; nothing that is printed or written holds it."""
    return text.replace(key, "[redacted]") if key else text


def _shown(text: str) -> str:
    """What servers say, without what would steer a terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _run(wish: Wish, progress: TextIO) -> Abilities:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(probe(wish, progress))


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
            known[_plain(name)] = filled(known.get(_plain(name), Able()), able)
    return {
        dialect: {name: filled(able, known[_plain(name)]) for name, able in models.items()}
        for dialect, models in found.items()
    }


def _plain(name: str) -> str:
    return name.casefold().removesuffix(":latest")


def _check_found(found: Abilities) -> None:
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
                listed.setdefault(_plain(info.id), info.id)
        names = [name for name in listed.values() if name]
        if not names:
            raise Failed("the server lists no models: --model NAME")
        if not wish.all and len(names) > 1:
            print(_shown(f"{names[0]}, of {len(names)} models (--all, or --model NAME)"), file=progress)
            del names[1:]
    found = []
    for name in names:
        for each in spoken:
            known = {_plain(info.id): info for info in reversed(each.models)}
            told = known.get(_plain(name))
            if told is not None or wish.models:
                found.append((each, told or ModelInfo(id=name)))
    return found


async def _ask(spoken: Spoken, info: ModelInfo, wish: Wish, until: float, progress: TextIO) -> Able:
    def show(name: str, found: Found) -> None:
        print(_shown(f"{spoken.dialect} {info.id}: {name}: {found.fate}"), file=progress)

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
        print(_shown(f"{spoken.dialect} {info.id}: ended early: {_without(wish.key, asked.trouble)}"), file=progress)
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
