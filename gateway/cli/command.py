"""The command line: ``dragoman pull``, ``list``, ``ps``, ``rm``, ``show``, ``load``, ``unload``, ``run``, ``create``, ``cp``, ``push``.

Exit status 0: done; 1: it failed, and one line says why; 2: wrong usage; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gateway.cli import shown
from gateway.cli.chat import Talk, converse, figures
from gateway.cli.client import Client, Failed, Missing
from gateway.cli.making import create_body, is_path, pull_body
from gateway.cli.place import gateway
from gateway.probe.safe import shown as safe

STOPPED = 130
QUOTED = ("modelfile", "parameters", "template", "system", "license")
"""Parts of ``show`` that can be had alone, as they are."""

Do = Callable[[Client, argparse.Namespace, Console], None]


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = _console()
    try:
        with gateway(options.url, options.config) as client:
            _COMMANDS[options.command][0](client, options, console)
    except Failed as error:
        print(f"dragoman: {safe(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dragoman: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever reads has seen enough
        sys.stderr.close()
        return 1
    return 0


def _console(*, stderr: bool = False) -> Console:
    """Where a bracket in a name is a bracket."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=not stderr)


def _pull(client: Client, options: argparse.Namespace, console: Console) -> None:
    if is_path(options.name):
        made = pull_body(options.name, client, tell=console.print)
        shown.Bars(console).follow(client.lines("/api/create", made))
        return
    _transfer(client, options, console)


def _transfer(client: Client, options: argparse.Namespace, console: Console) -> None:
    body = {"model": options.name, "insecure": options.insecure}
    shown.Bars(console).follow(client.lines(f"/api/{options.command}", body))


def _create(client: Client, options: argparse.Namespace, console: Console) -> None:
    body = create_body(options.name, options.file, client, quantize=options.quantize, tell=console.print)
    shown.Bars(console).follow(client.lines("/api/create", body))


def _list(client: Client, options: argparse.Namespace, console: Console) -> None:
    rows = client.ask("GET", "/api/tags?kinds=all")["models"]
    prefix = options.prefix.lower()
    console.print(shown.models([row for row in rows if row["name"].lower().startswith(prefix)], _now()))


def _ps(client: Client, _: argparse.Namespace, console: Console) -> None:
    console.print(shown.running(client.ask("GET", "/api/ps")["models"], _now()))


def _show(client: Client, options: argparse.Namespace, console: Console) -> None:
    told = client.ask("POST", "/api/show", {"model": options.name})
    for part in QUOTED:
        if getattr(options, part):
            print(safe(str(told.get(part) or "")))
            return
    shown.details(options.name, told, console)


def _cp(client: Client, options: argparse.Namespace, console: Console) -> None:
    client.ask("POST", "/api/copy", {"source": options.source, "destination": options.destination})
    console.print(f"copied {safe(options.source)} to {safe(options.destination)}")


def _rm(client: Client, options: argparse.Namespace, console: Console) -> None:
    for name in options.names:
        client.ask("DELETE", "/api/delete", {"model": name})
        console.print(f"removed {safe(name)}")


def _load(client: Client, options: argparse.Namespace, console: Console) -> None:
    with console.status(Text(f"loading {safe(options.name)}")):
        client.ask("POST", "/api/generate", _wish(options))
    console.print(f"loaded {safe(options.name)}")


def _unload(client: Client, options: argparse.Namespace, console: Console) -> None:
    client.ask("POST", "/api/generate", {"model": options.name, "keep_alive": 0})
    console.print(f"unloaded {safe(options.name)}")


def _run(client: Client, options: argparse.Namespace, console: Console) -> None:
    try:
        client.ask("POST", "/api/show", {"model": options.name})
    except Missing:
        shown.Bars(_console(stderr=True)).follow(client.lines("/api/pull", {"model": options.name}))
    think = {"auto": None, "on": True, "off": False}[options.think]
    talk = Talk(client, options.name, out=sys.stdout, keep_alive=options.keep_alive, think=think)
    prompt = " ".join(options.prompt)
    if not sys.stdin.isatty():
        prompt = "\n\n".join(filter(None, (prompt, sys.stdin.read().strip())))
    if prompt:
        talk.say(prompt)
    elif sys.stdin.isatty():
        with console.status(Text(f"loading {safe(options.name)}")):
            client.ask("POST", "/api/generate", _wish(options))
        converse(talk, input, sys.stdout)
    if options.figures:
        figures(talk.last, sys.stderr)


def _wish(options: argparse.Namespace) -> dict[str, Any]:
    return {"model": options.name, **({"keep_alive": options.keep_alive} if options.keep_alive else {})}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


_COMMANDS: dict[str, tuple[Do, str]] = {
    "pull": (_pull, "fetch a model, or go on fetching it"),
    "push": (_transfer, "send a model to the registry that its name begins with"),
    "create": (_create, "make a model by a Modelfile"),
    "list": (_list, "the models that there are"),
    "ls": (_list, "the same"),
    "ps": (_ps, "the models in memory"),
    "show": (_show, "what a model is"),
    "cp": (_cp, "give a model a second name"),
    "rm": (_rm, "remove models"),
    "load": (_load, "bring a model into memory"),
    "unload": (_unload, "free a model's memory"),
    "run": (_run, "talk to a model"),
}
NAMES = tuple(_COMMANDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dragoman",
        description="Commands to the running gateway; where none runs, to one that is started for the while.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, words) in _COMMANDS.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument(
            "--url", default="", help="the gateway's address (default: $DRAGOMAN_URL, else config.yaml's)"
        )
        command.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: ./config.yaml")
        _ARGUMENTS[name](command)
    return parser


def _named(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="llama3.2, hf.co/org/repo:Q4_K_M, ...; to pull also ./file.gguf")


def _transferred(command: argparse.ArgumentParser) -> None:
    _named(command)
    command.add_argument("--insecure", action="store_true", help="also without TLS")


def _created(command: argparse.ArgumentParser) -> None:
    command.add_argument("name")
    command.add_argument("-f", "--file", type=Path, default=Path("Modelfile"), help="default: ./Modelfile")
    command.add_argument("-q", "--quantize", default="", help="Q4_K_M, Q8_0, ...")


def _listed(command: argparse.ArgumentParser) -> None:
    command.add_argument("prefix", nargs="?", default="", help="only names that begin with this")


def _described(command: argparse.ArgumentParser) -> None:
    command.add_argument("name")
    for part in QUOTED:
        command.add_argument(f"--{part}", action="store_true", help=f"the {part} alone")


def _copied(command: argparse.ArgumentParser) -> None:
    command.add_argument("source")
    command.add_argument("destination")


def _removed(command: argparse.ArgumentParser) -> None:
    command.add_argument("names", nargs="+", metavar="name")


def _kept(command: argparse.ArgumentParser) -> None:
    _named(command)
    command.add_argument("--keep-alive", default="", help="how long it stays afterwards: 10m, -1 for ever")


def _talked(command: argparse.ArgumentParser) -> None:
    _kept(command)
    command.add_argument("prompt", nargs="*", help="one question; without, a conversation")
    command.add_argument("--think", choices=("auto", "on", "off"), default="auto", help="whether it thinks first")
    command.add_argument("--figures", action="store_true", help="how fast it was")


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "pull": _transferred,
    "push": _transferred,
    "create": _created,
    "list": _listed,
    "ls": _listed,
    "ps": lambda _: None,
    "show": _described,
    "cp": _copied,
    "rm": _removed,
    "load": _kept,
    "unload": _named,
    "run": _talked,
}
