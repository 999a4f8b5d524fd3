"""What workers are worth: 60 tiny pictures with one ``dragoman worker`` and with three, and what chats notice of it.

    python bench/jobs.py                                  # over the database
    python bench/jobs.py --redis --rounds 3               # over a Redis that it starts

The gateway leaves all painting to the workers (``jobs.running: 0``). Every worker has its model loaded before the clock starts.
At the end each row is looked at: every job is done, and was begun once. Then short chats with the demo model are asked at a
steady rate, alone and while three workers paint: the difference is what the pictures cost whoever chats.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.redis_server import redis_server  # noqa: E402
from tests.serving import serving  # noqa: E402

MODEL = "painter/tiny-sdxl-base"
CHAT = "local/pip"
GLANCE = 0.2
"""Seconds between two looks whether the last job is done: each look at a queue costs a core 2 ms."""


def config(folder: Path, queue: str) -> str:
    return json.dumps(
        {
            "listeners": [{"port": 0, "dialects": ["openai", "images"]}],
            "backends": {
                "local": {"type": "llama_cpp", "models_dir": str(ROOT / "models")},
                "painter": {"type": "diffusers", "models_dir": str(ROOT / "models" / "painting"), "threads": 1},
            },
            "keep_alive": -1,
            "data_dir": str(folder / "data"),
            "jobs": {"running": 0, "waiting": 1000, "queue": queue, "results": str(folder / "pictures")},
            "access_log": False,
        }
    )


async def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    answer = await reader.read()
    writer.close()
    head_, _, rest = answer.partition(b"\r\n\r\n")
    return int(head_[9:12]), json.loads(rest)


async def submit(port: int, seed: int, steps: int) -> str:
    body = {"prompt": "a red square", "model": MODEL, "width": 64, "height": 64, "steps": steps, "seed": seed}
    status, found = await ask(port, "POST", "/generate", body)
    assert status == 200, found
    return str(found["job_id"])


async def ended(port: int, ids: list[str]) -> None:
    for id in reversed(ids):
        while True:
            _, found = await ask(port, "GET", f"/status/{id}")
            assert found["state"] in {"PENDING", "PROGRESS", "SUCCESS"}, found
            if found["state"] == "SUCCESS":
                break
            await asyncio.sleep(GLANCE)


@contextlib.contextmanager
def workers(folder: Path, written: str, count: int) -> Iterator[list[int]]:
    file = folder / "config.yaml"
    file.write_text(written)
    command = [sys.executable, "-m", "gateway", "worker", "--config", str(file)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen(command, env=environ, cwd=folder, stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def painting(pids: list[int]) -> bool:
    """Whether each worker has a model."""
    return all(Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in pids)


async def warm(port: int, pids: list[int]) -> None:
    """Have every worker load its model."""
    while True:
        ids = [await submit(port, seed, 20) for seed in range(3 * len(pids))]
        await ended(port, ids)
        if painting(pids):
            return


async def paint(port: int, count: int, steps: int) -> float:
    """Seconds for so many jobs."""
    begun = time.perf_counter()
    ids = [await submit(port, seed, steps) for seed in range(count)]
    await ended(port, ids)
    return time.perf_counter() - begun


async def chat(port: int, rate: float, until: asyncio.Event | float) -> list[float]:
    """Milliseconds of short chats, asked at a steady rate."""
    body = {"model": CHAT, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
    taken: list[float] = []

    async def one() -> None:
        begun = time.perf_counter()
        status, found = await ask(port, "POST", "/v1/chat/completions", body)
        assert status == 200, found
        taken.append(1000 * (time.perf_counter() - begun))

    asked = []
    first = time.perf_counter()
    while not (until.is_set() if isinstance(until, asyncio.Event) else time.perf_counter() - first > until):
        asked.append(asyncio.ensure_future(one()))
        await asyncio.sleep(max(0.0, first + len(asked) / rate - time.perf_counter()))
    await asyncio.gather(*asked)
    return taken


def quantiles(taken: list[float]) -> tuple[float, float, float]:
    ordered = sorted(taken)
    return statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))], ordered[-1]


def begun_once(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "data" / "dragoman.db")) as db:
        rows = db.execute("SELECT state, attempt, count(*) FROM jobs GROUP BY state, attempt").fetchall()
    assert len(rows) == 1, rows
    assert rows[0][:2] == ("done", 1), rows


async def measure(port: int, folder: Path, written: str, options: argparse.Namespace) -> dict[str, Any]:
    times: dict[int, list[float]] = {1: [], 3: []}
    for number in range(options.rounds):
        for count in (1, 3) if number % 2 == 0 else (3, 1):
            with workers(folder, written, count) as pids:
                await warm(port, pids)
                times[count].append(await paint(port, options.jobs, options.steps))
            print(f"{count} workers: {options.jobs} jobs in {times[count][-1]:.1f} s", flush=True)
    begun_once(folder)
    ratios = [one / three for one, three in zip(times[1], times[3], strict=True)]
    print(
        f"3 workers are {statistics.median(ratios):.2f} times as fast as 1 ({min(ratios):.2f}-{max(ratios):.2f}); none began a job twice"
    )
    await chat(port, options.rate, 3)
    alone = await chat(port, options.rate, options.seconds)
    with workers(folder, written, 3) as pids:
        await warm(port, pids)
        over = asyncio.Event()
        chats = asyncio.ensure_future(chat(port, options.rate, over))
        begun = time.perf_counter()
        while time.perf_counter() - begun < options.seconds:
            await paint(port, options.jobs, options.steps)
        over.set()
        beside = await chats
    begun_once(folder)
    for words, taken in (("alone", alone), ("beside 3 workers", beside)):
        p50, p99, worst = quantiles(taken)
        print(f"chats {words}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {worst:.1f} ms ({len(taken)})")
    added = [with_ - without for without, with_ in zip(quantiles(alone), quantiles(beside), strict=True)]
    print(f"added: p50 {added[0]:+.1f} ms, p99 {added[1]:+.1f} ms")
    return {"seconds": times, "ratios": ratios, "alone_ms": quantiles(alone), "beside_ms": quantiles(beside)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", action="store_true", help="jobs go over Redis")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5, help="chats a second")
    parser.add_argument("--seconds", type=float, default=40, help="of chats, alone and beside")
    parser.add_argument("-o", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        queue = stack.enter_context(redis_server(folder)).url if options.redis else ""
        written = config(folder, queue)
        served = stack.enter_context(serving(written))
        figures = asyncio.run(measure(int(served.url.rpartition(":")[2]), folder, written, options))
    if options.o:
        options.o.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
