"""What it costs to keep things: 200 sessions and 200 conversations at once, mixed reads and writes, on both databases.

    python bench/kept.py                                  # SQLite, and a PostgreSQL that it starts
    python bench/kept.py --rate 800 --seconds 60 sqlite

Each of the 400 clients is one user: it writes or reads, waits a moment, and goes on. Behind them is the echo backend, so
that what is measured is the gateway and its store. At the end everything is read back: nothing may be lost, doubled,
out of order or another's. With --kill the gateway is ended by SIGKILL in the middle, started again, and held to what it
had acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MODELS = ("echo", "second", "third")
READS = 0.75
"""Share of reads among what a client does."""


class Client:
    """One user with one connection."""

    def __init__(self, number: int, port: int) -> None:
        self.id = f"bench-{number}"
        self.port = port
        self.random = random.Random(number)
        self.count = 0
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Session-ID: {self.id}\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answered = await self.reader.readuntil(b"\r\n\r\n")
        lines = answered.decode("latin-1").lower().split("\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), None)
        if length is not None:
            return int(lines[0][9:12]), await self.reader.readexactly(length)
        pieces = []
        while size := int(await self.reader.readline(), 16):  # chunks, as streams have them
            pieces.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return int(lines[0][9:12]), b"".join(pieces)

    def drop(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Session(Client):
    """Loads models into its session, and reads which one it has."""

    kept = asked = ""

    async def begin(self) -> None:
        await self.write()

    async def write(self) -> None:
        self.asked = model = self.random.choice(MODELS)
        status, answer = await self.ask("POST", f"/v1/models/{model}/load")
        assert status == 200, (status, answer)
        assert b"loaded" in answer, answer
        self.kept = model
        self.count += 1

    async def read(self) -> None:
        status, answer = await self.ask("GET", "/v1/session")
        assert status == 200, (status, answer)
        found = json.loads(answer)
        assert found["session_id"] == self.id, (self.id, found)
        # What was on its way when the gateway was killed may be there.
        assert found["current_model"] in {self.kept, self.asked}, (self.id, self.kept, found)


class Conversation(Client):
    """Says something new each time, and reads all that was said."""

    async def begin(self) -> None:
        status, answer = await self.ask("POST", f"/api/conversation/start?conv_id={self.id}")
        assert status in {200, 201}, (status, answer)

    async def write(self) -> None:
        said = f"{self.id} says {self.count} <"
        message = {"prompt": said, "model": "echo"}
        status, answer = await self.ask("POST", f"/api/conversation/{self.id}/message", message)
        assert status == 200, (status, answer)
        assert said.encode() in answer, answer
        self.count += 1

    async def read(self) -> None:
        status, answer = await self.ask("GET", f"/api/conversation/{self.id}")
        assert status == 200, (status, answer)
        said = [message["content"] for message in json.loads(answer)["messages"]]
        wanted = [f"{self.id} says {number} <" for number in range(self.count) for _ in ("user", "assistant")]
        # What was on its way when the gateway was killed may be there, and may be an unanswered one.
        assert said[: len(wanted)] == wanted, (self.id, wanted, said)
        assert len(said) <= len(wanted) + 2, (self.id, wanted, said)
        self.count += (len(said) - len(wanted)) // 2


async def live(client: Client, rate: float, until: float, taken: dict[str, list[float]]) -> None:
    """Write and read, ``rate`` times a second on average."""
    kind = type(client).__name__.lower()
    while True:
        await asyncio.sleep(client.random.expovariate(rate))
        if time.monotonic() > until:
            return
        reads = client.random.random() < READS
        began = time.perf_counter()
        await (client.read() if reads else client.write())
        taken[f"{kind} {'read' if reads else 'write'}"].append(time.perf_counter() - began)


@contextmanager
def gateway(folder: Path, database: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The gateway on ``folder``, and its port."""
    config = {
        "listeners": [{"port": 0, "dialects": ["brenda", "conversation"]}],
        "backends": {"demo": {"type": "echo"}, "more": {"type": "echo"}, "others": {"type": "echo"}},
        "models": [
            {"id": model, "backend": backend, "name": "echo"}
            for model, backend in zip(MODELS, ("demo", "more", "others"), strict=True)
        ],
        "database": database,
        "access_log": False,
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(file)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        if "on http://" not in said:
            raise SystemExit(said + process.stderr.read())
        yield process, int(said.rsplit(":", 1)[1])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


async def run(folder: Path, database: str, options: argparse.Namespace) -> None:
    """One run on one database, and its table."""
    taken: dict[str, list[float]] = defaultdict(list)
    with gateway(folder, database) as (process, port):
        sessions = [Session(number, port) for number in range(options.each)]
        conversations = [Conversation(number, port) for number in range(options.each)]
        clients: list[Client] = [*sessions, *conversations]
        for client in clients:
            await client.begin()
        until = time.monotonic() + options.seconds
        before = _cpu(process.pid)
        work = [asyncio.ensure_future(live(client, options.rate / len(clients), until, taken)) for client in clients]
        if options.kill:
            await asyncio.sleep(options.seconds / 2)
            process.kill()
        await asyncio.gather(*work, return_exceptions=options.kill)
        memory, cpu = _memory(process.pid), _cpu(process.pid) - before
        if not options.kill:
            for client in clients:
                await client.read()
    if options.kill:
        with gateway(folder, database) as (_, port):
            for client in clients:
                client.drop()
                client.port = port
                await client.read()
    done = sum(map(len, taken.values()))
    kept = sum(client.count for client in conversations)
    cost = "killed in the middle" if options.kill else f"{memory:.0f} MB, {cpu / done * 1e6:.0f} us of CPU a request"
    print(f"  {done} done, {done / options.seconds:.0f}/s; {kept} messages kept and answered; {cost}")
    for kind, times in sorted(taken.items()):
        cuts = statistics.quantiles(times, n=100)
        print(
            f"  {kind:20} {len(times):6}  p50 {cuts[49] * 1e3:6.1f}  p90 {cuts[89] * 1e3:6.1f}"
            f"  p99 {cuts[98] * 1e3:6.1f}  max {max(times) * 1e3:6.1f} ms"
        )


def _memory(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * 4096 / 1e6


def _cpu(pid: int) -> float:
    """Seconds of it that the process took, without those of its database."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--each", type=int, default=200, help="sessions, and conversations")
    parser.add_argument("--rate", type=float, default=400, help="requests a second of all together")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--kill", action="store_true", help="SIGKILL in the middle")
    options = parser.parse_args()
    for database in options.databases:
        print(f"{database}: {options.each} sessions and {options.each} conversations", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if database == "postgresql":
                from tests.postgres import running

                with running() as url:
                    asyncio.run(run(Path(folder), url, options))
            else:
                asyncio.run(run(Path(folder), "" if database == "sqlite" else database, options))


if __name__ == "__main__":
    main()
