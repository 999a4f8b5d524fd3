"""Both engines of llama.cpp side by side, as served: tokens a second at several streams, and the time to the first token.

    python bench/engines.py [--rounds 5] [--firsts 3] [--streams 1,8,16] [--model FILE] [--batch 0]

One gateway has the random model of 150 million parameters (``random_model.py`` makes it) twice: once on each engine, each
in its worker process with one thread. Rounds alternate between the engines, with the same prompts; ratios are taken
within a round, so that what else the machine does weighs on both. No prompt comes twice but where that is the point:

    tokens/s       of so many streams together, 64 tokens each, prompts of some 30 tokens that begin alike only as
                   the template does
    cpu of n       CPU time of the engine's process for each of those tokens: what tokens a second are bound by, and
                   what holds on a machine that others use too
    cold           one request with a prefix of 340 tokens that nobody has asked with before
    warm           the same prefix, another question behind it
    same           the very same prompt
    warm x 8       eight at once, the prefix computed before
    cold x 8       eight at once with a new prefix
    gap            the longest wait between two tokens of an answer while another's prompt of 900 tokens is computed

At last the second engine alone, in this process: CPU time of a step beside llama.cpp's own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from random_model import PATH, ROOT, make

ENGINES = {"xllamacpp": "one", "llama-cpp-python": "other"}
CONFIG = """
listeners: [{{port: 0, dialects: [openai]}}]
access_log: false
backends:
  one: {{type: llama_cpp, engine: xllamacpp, isolation: process, {common}}}
  other: {{type: llama_cpp, engine: llama-cpp-python, {common}}}
models:
  - {{id: one, backend: one, file: {file}}}
  - {{id: other, backend: other, file: {file}}}
"""
WORDS = [
    "river",
    "stone",
    "cloud",
    "garden",
    "letter",
    "window",
    "silver",
    "morning",
    "forest",
    "candle",
    "bridge",
    "winter",
]
numbers = itertools.count(int(time.time()))


class Answer:
    """One streamed answer: when its tokens came, and what its usage says."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.times: list[float] = []
        self.tokens = self.cached = self.prompt = 0

    @property
    def first(self) -> float:
        """Milliseconds to the first token."""
        return (self.times[0] - self.begun) * 1000

    @property
    def gap(self) -> float:
        return max(b - a for a, b in itertools.pairwise(self.times)) * 1000


async def ask(port: int, model: str, text: str, tokens: int) -> Answer:
    body = json.dumps(
        {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "max_tokens": tokens,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": text}],
        }
    ).encode()
    found = Answer(time.perf_counter())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    done = False
    async for line in reader:
        if line.startswith(b"data: {"):
            if b'"content":"' in line and b'"content":""' not in line:
                found.times.append(time.perf_counter())
            elif b'"usage":{' in line:
                usage = json.loads(line[6:])["usage"]
                found.tokens, found.prompt = usage["completion_tokens"], usage["prompt_tokens"]
                found.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        done = done or line.startswith(b"data: [DONE]")
    writer.close()
    if not done or found.tokens != tokens:
        raise SystemExit(f"{model}: an answer of {found.tokens} tokens instead of {tokens}")
    return found


def prefix(tokens: int) -> str:
    """A text that nobody has asked with before; about so long."""
    number = next(numbers)
    return f"{number} " + " ".join(WORDS[(number + at * at) % 12] for at in range(tokens * 5 // 8))


def question() -> str:
    number = next(numbers)
    return f"{number % 9973} what is {WORDS[number % 12]}?"


def workers(gateway: int) -> dict[str, int]:
    """The engines' processes, known by the libraries that they have."""
    children = Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split()
    libraries = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in children}
    marks = {"xllamacpp": "/xllamacpp", "llama-cpp-python": "/llama_cpp/lib"}
    return {name: int(next(pid for pid in children if mark in libraries[pid])) for name, mark in marks.items()}


def cpu(pid: int) -> float:
    """Milliseconds that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


async def streams(port: int, model: str, texts: list[str], tokens: int) -> tuple[float, float]:
    """Tokens a second of all together, and the median time to the first."""
    begun = time.perf_counter()
    answers = await asyncio.gather(*(ask(port, model, text, tokens) for text in texts))
    rate = sum(answer.tokens for answer in answers) / (time.perf_counter() - begun)
    return rate, statistics.median(answer.first for answer in answers)


async def firsts(port: int, model: str, start: str, cold_start: str, length: int) -> dict[str, float]:
    """Times to the first token, in milliseconds."""
    cold = await ask(port, model, f"{start} 1?", 2)
    again = f"{start} 2?"
    warm = await ask(port, model, again, 2)
    same = await ask(port, model, again, 2)
    eight = await asyncio.gather(*(ask(port, model, f"{start} {number}?", 2) for number in range(12, 20)))
    new = await asyncio.gather(*(ask(port, model, f"{cold_start} {number}?", 2) for number in range(8)))
    running = asyncio.ensure_future(ask(port, model, question(), 96))
    await asyncio.sleep(0.3)
    await ask(port, model, prefix(length), 2)
    answer = await running
    return {
        "prompt tokens": cold.prompt,
        "cold": cold.first,
        "warm": warm.first,
        "same": same.first,
        "warm x 8": max(one.first for one in eight),
        "cold x 8": max(one.first for one in new),
        "gap": answer.gap,
    }


def told(name: str, one: list[float], other: list[float], *, unit: str, more: bool) -> None:
    ratios = [b / a if more else a / b for a, b in zip(one, other, strict=True)]
    word = "as fast" if more else "less"
    print(
        f"  {name:<14} {statistics.median(one):9.1f} {statistics.median(other):9.1f} {unit:<9}"
        f" x {statistics.median(ratios):.2f} {word} ({min(ratios):.2f}-{max(ratios):.2f})"
    )


def compare(gateway: int, port: int, counts: list[int], *, rounds: int, firsts_in: int, tokens: int) -> None:
    rates: dict[tuple[str, int], list[float]] = {}
    costs: dict[tuple[str, int], list[float]] = {}
    waits: dict[tuple[str, int], list[float]] = {}
    times: dict[tuple[str, str], list[float]] = {}
    names, pids = list(ENGINES), {}
    for turn in range(-1, rounds):  # the first is not counted: pages are read, caches are filled
        order = names if turn % 2 else names[::-1]
        for count in counts:
            texts = [f"{question()} tell me about {WORDS[at % 12]} and {at}" for at in range(count)]
            for name in order:
                before = cpu(pids[name]) if turn >= 0 else 0
                rate, wait = asyncio.run(streams(port, ENGINES[name], texts, tokens))
                if turn >= 0:
                    costs.setdefault((name, count), []).append((cpu(pids[name]) - before) / count / tokens)
                    rates.setdefault((name, count), []).append(rate)
                    waits.setdefault((name, count), []).append(wait)
        pids = pids or workers(gateway)
        start, cold_start = prefix(340), prefix(340)
        for name in order if 0 <= turn < firsts_in else []:
            found = asyncio.run(firsts(port, ENGINES[name], start, cold_start, 900))
            for what, value in found.items():
                times.setdefault((name, what), []).append(value)
        print(".", end="", file=sys.stderr, flush=True)
    print(f"\n\n  {'':<14} {names[0]:>9} {names[1]:>16}")
    for count in counts:
        told(f"{count} streams", rates[names[0], count], rates[names[1], count], unit="tokens/s", more=True)
    for count in counts:
        told(f"cpu of {count}", costs[names[0], count], costs[names[1], count], unit="ms/token", more=False)
    for count in counts:
        told(f"first of {count}", waits[names[0], count], waits[names[1], count], unit="ms", more=False)
    for what in () if not times else ("cold", "warm", "same", "warm x 8", "cold x 8", "gap"):
        told(what, times[names[0], what], times[names[1], what], unit="ms", more=False)
    for name in names if times else []:
        shares = {
            what: statistics.median(b / a for a, b in zip(times[name, "cold"], times[name, what], strict=True))
            for what in ("warm", "same", "warm x 8")
        }
        words = ", ".join(f"{what} {share:.1%}" for what, share in shares.items())
        print(f"  {name}: of the cold time ({times[name, 'prompt tokens'][0]:.0f} tokens): {words}")


def overhead(file: Path, count: int, batch: int) -> str:
    """CPU time of a step in this process, beside llama_decode's, in the thread that owns the context."""
    sys.path.insert(0, str(ROOT))
    import llama_cpp.llama_cpp as native

    from backends.llama_cpp.engine import Start
    from backends.llama_cpp.llama_cpp_python import LlamaCppPython

    engine = LlamaCppPython(Start(path=str(file), slots=count, context=1024, batch=batch, threads=1))
    decode, step = native.llama_decode, engine.loop._step  # noqa: SLF001  # what is measured
    spent = {"all": 0.0, "decode": 0.0}

    def timed(kind: str, work):
        def run(*given):
            begun = time.thread_time()
            try:
                return work(*given)
            finally:
                spent[kind] += time.thread_time() - begun

        return run

    native.llama_decode, engine.loop._step = timed("decode", decode), timed("all", step)  # noqa: SLF001
    try:
        threads = []
        for _ in range(count):
            body = {"messages": [{"role": "user", "content": question()}], "temperature": 0, "max_tokens": 64}
            raw = json.dumps({**body, "ignore_eos": True}).encode()
            threads.append(threading.Thread(target=engine.stream, args=("chat", raw, lambda _: False)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        steps = engine.loop.counts.steps
    finally:
        native.llama_decode = decode
        engine.close()
    own = spent["all"] - spent["decode"]
    return (
        f"  {count:2} streams: {own / steps * 1e6:5.0f} us a step, {own / (64 * count) * 1e6:4.0f} us a token, "
        f"{own / spent['all']:.1%} of the thread's CPU time ({spent['decode'] / steps * 1e3:.1f} ms a step computing)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--firsts", type=int, default=3, help="rounds in which the time to the first token is taken")
    parser.add_argument("--streams", default="1,8,16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--model", type=Path, default=PATH)
    parser.add_argument("--batch", type=int, default=0, help="prompt tokens at once; 0: as the gateway chooses")
    options = parser.parse_args()
    file = make() if options.model == PATH else options.model
    counts = [int(count) for count in options.streams.split(",")]
    common = (
        f"models_dir: {file.resolve().parent}, threads: 1, slots: {max(counts)}, context: 2048, batch: {options.batch}"
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.format(common=common, file=file.name))
        command = [sys.executable, "-m", "gateway", "serve", "--config", config]
        gateway = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            port = int(re.search(r":(\d+)$", gateway.stderr.readline().strip())[1])
            compare(gateway.pid, port, counts, rounds=options.rounds, firsts_in=options.firsts, tokens=options.tokens)
        finally:
            gateway.terminate()
            gateway.wait(10)
    print(f"\nthe second engine's own work, {file.name}:")
    for count in counts:
        print(overhead(file, count, options.batch or 8))


if __name__ == "__main__":
    main()
