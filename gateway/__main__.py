"""The command line: ``dragoman serve``, ``worker``, ``check``, ``probe`` and the commands on models; ``python -m gateway`` is the same."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from msgspec import structs

from gateway import config
from gateway.settings import Listener, Settled

ON_MODELS = ("pull", "push", "create", "list", "ls", "ps", "show", "cp", "rm", "load", "unload", "run")
"""Commands of ``gateway.cli``, whose libraries only they need."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status. A configuration that cannot be used is one line and status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["probe"]:
        from gateway.probe.command import main as probe

        return probe(given[1:])
    if given[:1] and given[0] in ON_MODELS:
        from gateway.cli.command import main as on_models

        return on_models(given)
    parser = argparse.ArgumentParser(
        prog="dragoman",
        description="One gateway between AI applications and AI models.",
        epilog=f"More commands, each with its --help: probe (what can a server do?), {', '.join(ON_MODELS)}.",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "worker", "check"),
        default="serve",
        help="serve: be the gateway (default); worker: paint the pictures that gateways of the same file take in;"
        " check: read the file and say whether it is good",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: ./config.yaml")
    source.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help="no config.yaml: LM Studio behind, as these variables say (OPENAI_BASE_URL ...)",
    )
    source.add_argument("--env", action="store_true", help="the same by the environment alone")
    parser.add_argument("--port", type=int, help="serve on this port of 127.0.0.1 alone, whatever the file says")
    parser.add_argument(
        "--jobs", type=_positive, metavar="N", help="worker: how many at once (default: jobs.running of the file, or 1)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log loads, unloads and backends' troubles")
    options = parser.parse_args(given)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        if options.env or options.env_file is not None:
            from gateway import from_environment

            settled = from_environment.load(options.env_file)
            told = options.env_file or "the environment"
        else:
            settled = config.load(options.config)
            told = options.config
        if options.command == "check":
            print(f"{told} is good: {len(settled.models)} models, {len(settled.backends)} backends")
            return 0
        if options.command == "worker":
            _work(settled, options.jobs)
            return 0
        _serve(settled if options.port is None else on_port(settled, options.port))
    except config.ConfigError as error:
        print(f"dragoman: {error}", file=sys.stderr)
        return 2
    return 0


def on_port(settled: Settled, port: int) -> Settled:
    """The same with one listener of its own, which speaks all that the configured ones do."""
    spoken = dict.fromkeys(mounted for listener in settled.config.listeners for mounted in listener.mounts)
    listener = Listener(port=port, dialects=tuple(spoken))
    return structs.replace(settled, config=structs.replace(settled.config, listeners=(listener,)))


def _serve(settled: Settled) -> None:
    import uvloop

    from gateway.web.listeners import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settled))


def _work(settled: Settled, jobs: int | None) -> None:
    import uvloop

    from gateway.jobs.worker_process import work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(settled, jobs=jobs))


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of jobs")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
