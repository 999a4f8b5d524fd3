"""The command line: ``dragoman probe URL``. Exit status 0: probed; 1: no server there that can be asked; 2: wrong usage."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from backends.abilities import DIALECTS, Abilities, write_abilities
from backends.upstream import read_url
from gateway.probe.answers import Patience
from gateway.probe.safe import shown, without
from gateway.probe.server import Failed, Wish, check_found, probe
from gateway.probe.table import write_table

STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


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
        check_found(found)
    except Failed as error:
        print(f"dragoman: {shown(without(key, str(error)))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dragoman: stopped", file=sys.stderr)
        return STOPPED
    told = write_abilities(found, json=True).decode() if options.json else shown(write_table(found))
    sys.stdout.write(without(key, told))
    if options.write is not None:
        text = without(key, write_abilities(found, json=options.write.suffix == ".json").decode())
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


def _run(wish: Wish, progress: TextIO) -> Abilities:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(probe(wish, progress))
