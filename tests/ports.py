"""Ports for servers that come back on theirs: not of those that the system gives to whoever asks for any."""

from __future__ import annotations

import random
import socket


def own_port() -> int:
    """A port that is free, and that nobody gets by chance meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
