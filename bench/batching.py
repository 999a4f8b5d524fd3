"""How much faster many streams are than one, on the demo model inside the gateway: tokens a second, and the ratio.

    python bench/batching.py [--clients 16] [--rounds 5] [--config FILE]

One gateway is started on config.yaml (the port is replaced by a free one). Rounds alternate between one client and
many; each client streams the demo model's story again and again for a while. A token is a chunk with text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
BODY = json.dumps(
    {
        "model": "pip",
        "stream": True,
        "temperature": 0,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "Tell me a story."}],
    }
).encode()
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
TOKEN, END = b'"delta":{"content":', b"0\r\n\r\n"


class Client(asyncio.Protocol):
    """One client: streams story after story until the time is over. Does as little as it can: it shares the cores."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.tokens = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        data = self.tail + data
        self.tokens += data.count(TOKEN)
        self.tail = data[1 - len(TOKEN) :]  # too short to be counted again
        if data.endswith(END):
            if b"[DONE]" not in data:
                self.over.set_exception(SystemExit("a stream did not finish"))
            elif time.perf_counter() < self.until:
                self.tail = b""
                self.transport.write(REQUEST)
            else:
                self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.over.done():
            self.over.set_exception(SystemExit("the gateway closed a stream"))


async def client(port: int, until: float) -> int:
    """Tokens that one client got until the time was over."""
    transport, one = await asyncio.get_running_loop().create_connection(lambda: Client(until), "127.0.0.1", port)
    await one.over
    transport.close()
    return one.tokens


async def round_of(port: int, clients: int, seconds: float) -> float:
    """Tokens a second of so many clients together."""
    began = time.perf_counter()
    counts = await asyncio.gather(*(client(port, began + seconds) for _ in range(clients)))
    return sum(counts) / (time.perf_counter() - began)


def run(work: Coroutine[None, None, float]) -> float:
    """The result of one round, on the fastest loop there is."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def main() -> None:
    """Start the gateway, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    options = parser.parse_args()
    text = options.config.read_text().replace("port: 11434", "port: 0", 1).replace("./models", str(ROOT / "models"))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(text + "\naccess_log: false\n")
        command = [sys.executable, "-m", "gateway", "serve", "--config", config]
        gateway = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            port = int(re.search(r":(\d+)$", gateway.stderr.readline().strip())[1])
            run(round_of(port, 1, 1))
            one, many = [], []
            for _ in range(options.rounds):
                one.append(run(round_of(port, 1, options.seconds)))
                many.append(run(round_of(port, options.clients, options.seconds)))
                print(
                    f"  one {one[-1]:7.0f} tokens/s   {options.clients} {many[-1]:7.0f} tokens/s   x {many[-1] / one[-1]:.2f}",
                    flush=True,
                )
            ratios = [b / a for a, b in zip(one, many, strict=False)]
            print(
                f"one client {statistics.median(one):.0f} tokens/s, {options.clients} clients {statistics.median(many):.0f} tokens/s: "
                f"x {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            )
        finally:
            gateway.terminate()
            gateway.wait(10)


if __name__ == "__main__":
    main()
