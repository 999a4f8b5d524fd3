"""Which gateway a command is for: ``--url``, ``DRAGOMAN_URL``, or the one of config.yaml; and the key for it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from backends.workers.parent import die_with_parent
from gateway.cli.client import Client, Failed, Unreachable
from gateway.config import ConfigError, load
from gateway.settings import ANY_ADDRESS, Settled

URL, KEY = "DRAGOMAN_URL", "DRAGOMAN_KEY"
DEFAULT = "http://127.0.0.1:11434"

_ADDRESS = re.compile(r"on (http://\S+)$")


@contextlib.contextmanager
def gateway(url: str, config: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Client]:
    """A client of the gateway. Where none runs on ``config``'s port, one is started and ended with the command.

    Raises:
        Failed: there is none, and none can be started.
    """
    key = environ.get(KEY, "")
    named = url or environ.get(URL, "")
    settled = _settled(config) if not named and config.exists() else None
    if settled is not None:
        named = _address(settled)
        key = key or next((each.key for each in settled.config.secrets), "")
    client = Client(named or DEFAULT, key)
    try:
        client.version()
    except Unreachable:
        if settled is None:
            raise
        with _started(config) as address:
            yield Client(address, key)
        return
    yield client


def _settled(config: Path) -> Settled:
    try:
        return load(config)
    except ConfigError as error:
        raise Failed(str(error)) from error


def _address(settled: Settled) -> str:
    """Where the configuration's gateway speaks Ollama's dialect."""
    for listener in settled.config.listeners:
        if "ollama" in listener.dialects:
            host = "127.0.0.1" if listener.host in ANY_ADDRESS else listener.host
            return f"http://[{host}]:{listener.port}" if ":" in host else f"http://{host}:{listener.port}"
    raise Failed("no listener of the configuration speaks Ollama's dialect, which these commands use")


@contextlib.contextmanager
def _started(config: Path) -> Iterator[str]:
    """A gateway on a free port of this machine, for the length of one command."""
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", "0"]
    process = subprocess.Popen(  # noqa: S603  # ourselves
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),  # noqa: PLW1509  # there are no threads yet
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            if found := _ADDRESS.search(line.strip()):
                break
            said.append(line.removeprefix("dragoman: ").strip())
        else:
            raise Failed(said[-1] if said else "the gateway does not start")
        # What it writes besides is nobody's business here, and must not fill the pipe.
        threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
        yield found[1]
    finally:
        process.terminate()
        process.wait()
