"""The command line: ``dragoman serve``, ``check``, ``probe``; ``python -m gateway`` is the same as ``dragoman``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from gateway import config
from gateway.settings import Settled


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status. A configuration that cannot be used is one line and status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["probe"]:
        from gateway.probe.command import main as probe

        return probe(given[1:])
    parser = argparse.ArgumentParser(
        prog="dragoman",
        description="One gateway between AI applications and AI models.",
        epilog="dragoman probe URL asks a server what its models can do: see dragoman probe --help.",
    )
    parser.add_argument("command", nargs="?", choices=("serve", "check"), default="serve")
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: ./config.yaml")
    parser.add_argument("-v", "--verbose", action="store_true", help="log loads, unloads and backends' troubles")
    options = parser.parse_args(given)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        settled = config.load(options.config)
        if options.command == "check":
            print(f"{options.config} is good: {len(settled.models)} models, {len(settled.backends)} backends")
            return 0
        _serve(settled)
    except config.ConfigError as error:
        print(f"dragoman: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(settled: Settled) -> None:
    import uvloop

    from gateway.web.listeners import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settled))


if __name__ == "__main__":
    sys.exit(main())
