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
from pathlib import Path

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


async def client(port: int, until: float) -> int:
    """Tokens that one client got until the time was over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tokens = 0
    while time.perf_counter() < until:
        writer.write(REQUEST)
        tail = b""
        done = False
        while not done:
            piece = await reader.read(65536)
            if not piece:
                raise SystemExit("the gateway closed a stream")
            data = tail + piece
            tokens += data.count(TOKEN)
            done = data.endswith(END)
            cut = data.rfind(b"\n\n")
            tail = b"" if cut < 0 else data[cut:]
            if cut < 0:
                tail = data
                tokens -= data.count(TOKEN)
        if b"[DONE]" not in data:
            raise SystemExit("a stream did not finish")
    writer.close()
    return tokens


async def round_of(port: int, clients: int, seconds: float) -> float:
    """Tokens a second of so many clients together."""
    began = time.perf_counter()
    counts = await asyncio.gather(*(client(port, began + seconds) for _ in range(clients)))
    return sum(counts) / (time.perf_counter() - began)


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
            asyncio.run(round_of(port, 1, 1))
            one, many = [], []
            for _ in range(options.rounds):
                one.append(asyncio.run(round_of(port, 1, options.seconds)))
                many.append(asyncio.run(round_of(port, options.clients, options.seconds)))
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
