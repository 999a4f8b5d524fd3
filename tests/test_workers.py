"""Worker processes, with one that misbehaves on demand: whatever it does costs its own requests, and an error each."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from backends.llama_cpp import LlamaCppBackend
from backends.llama_cpp.engine import Emit, Kind, Start
from backends.llama_cpp.inprocess import InProcess
from backends.llama_cpp.isolated import explain
from backends.llama_cpp.loading import Gauge, mapped
from backends.llama_cpp.settings import LlamaCppSettings
from backends.workers.deaths import LONGEST_PAUSE, PAUSE, WITHIN, Deaths
from backends.workers.failing import Failed
from backends.workers.frames import Pulse
from backends.workers.life import Life
from backends.workers.memory import oom_kills
from backends.workers.pulse import SPIN, Watch
from backends.workers.worker import Job, Worker
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable, OutOfMemory
from canonical.progress import Progress

ROOT = Path(__file__).parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")


def job(start: str = "well", **more: Any) -> Job:
    return Job(name="odd", module="tests.odd_worker", start=start.encode(), **{"slots": 2, **more})


def told(story: Callable[[Worker], Awaitable[None]], start: str = "well", **more: Any) -> None:
    async def main() -> None:
        worker = Worker(job(start, **more))
        try:
            await story(worker)
        finally:
            await worker.close()
            assert worker.pid is None

    asyncio.run(main())


async def text(worker: Worker, kind: str, body: bytes = b"") -> bytes:
    return await worker.whole(kind, body)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_an_answer_comes_whole_and_in_order_also_a_long_one() -> None:
    async def story(worker: Worker) -> None:
        assert await text(worker, "count", b"1000") == b"".join(b"%d " % number for number in range(1000))

    told(story)


def test_one_that_dies_fails_its_own_asks_and_the_next_has_a_new_process() -> None:
    async def story(worker: Worker) -> None:
        await worker.start()
        first = worker.pid
        stream = worker.stream("hang", b"")
        assert await anext(stream) == [b"begun"]
        with pytest.raises(BackendError, match="the worker of the model 'odd' ended by SIGABRT"):
            await text(worker, "die")
        with pytest.raises(BackendError, match="SIGABRT"):
            await anext(stream)
        assert await text(worker, "count", b"2") == b"0 1 "
        assert worker.pid != first

    told(story)


@pytest.mark.parametrize("kind", ["hang", "spin"])
def test_one_that_hangs_is_ended_and_its_ask_told_so(kind: str) -> None:
    async def story(worker: Worker) -> None:
        with pytest.raises(BackendTimeout, match="hung, and was ended") as caught:
            await text(worker, kind)
        assert caught.value.status == 504
        worker._job = job()  # patient, as the machine may be busy
        assert await text(worker, "count", b"1") == b"0 "

    told(story, hang=0.15)


def test_one_that_is_stopped_from_outside_hangs_too() -> None:
    async def story(worker: Worker) -> None:
        stream = worker.stream("count", b"100000")
        await anext(stream)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(BackendTimeout):
            async for _ in stream:
                pass

    told(story, hang=0.3)


@linux
def test_one_that_wants_too_much_memory_fails_alone() -> None:
    async def story(worker: Worker) -> None:
        with pytest.raises(BackendError, match="MemoryError"):
            await text(worker, "grow")
        assert await text(worker, "count", b"1") == b"0 "

    told(story, memory=256 * 1024 * 1024)


def test_what_it_prints_is_no_message_and_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(worker: Worker) -> None:
        assert await text(worker, "print") == b"printed"
        assert await text(worker, "count", b"1") == b"0 "

    told(story)
    assert capfd.readouterr() == ("", "")


def test_it_gets_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    async def story(worker: Worker) -> None:
        names = await text(worker, "environment")
        assert b"STUDIO_KEY" not in names
        assert b"OMP_NUM_THREADS" in names
        assert b"GGML_NO_BACKTRACE" in names  # else whoever has a debugger waits for its stack

    told(story)


def test_work_that_cannot_be_stopped_is_ended_with_its_process_and_makes_nobody_else_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a client that leaves three times in the middle of a large picture has it refused to everybody."""
    monkeypatch.setattr("backends.workers.worker.STUCK", 0.02)

    async def story(worker: Worker) -> None:
        for _ in range(4):
            stream = worker.stream("hang", b"")
            assert await anext(stream) == [b"begun"]
            await stream.aclose()
        assert await text(worker, "count", b"1") == b"0 "

    told(story)


def test_a_load_that_fails_says_why_and_what_it_printed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def story(worker: Worker) -> None:
        with pytest.raises(BackendError, match="'odd' could not be loaded: ValueError: this is no model"):
            await worker.start()

    with caplog.at_level(logging.WARNING, "dragoman.workers"):
        told(story, "fails")
    assert "said while loading: 'loading fails'" in caplog.text


def test_one_that_dies_while_loading_is_told_and_counted() -> None:
    async def story(worker: Worker) -> None:
        for _ in range(3):
            with pytest.raises(BackendError, match="its process ended by SIGABRT"):
                await worker.start()
        with pytest.raises(BackendUnavailable, match="keeps dying") as caught:
            await worker.start()
        assert caught.value.status == 503
        assert caught.value.retry_after == pytest.approx(PAUSE, abs=1)

    told(story, "dies")


@linux
def test_a_load_that_nobody_waits_for_is_ended_and_its_memory_free_when_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def story(worker: Worker) -> None:
        parts: list[float] = []
        loading = asyncio.Event()
        pids: list[int] = []

        def far(part: float) -> None:
            parts.append(part)
            loading.set()

        async def look(pid: int) -> None:
            pids.append(pid)

        start = asyncio.ensure_future(worker.start(far, look))
        joined = asyncio.ensure_future(text(worker, "count"))
        await loading.wait()
        assert names(tmp_path)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert not gone(pids[0])  # somebody else still waits
        joined.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joined
        assert gone(pids[0])
        assert parts == [0.5]
        assert not names(tmp_path)

    told(story, "takes for ever")


@linux
def test_a_load_that_is_given_up_in_the_instant_of_its_end_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LlamaCppSettings(models_dir=str(ROOT / "models"), isolation="process", threads=1)
    opened, pids = Worker._opened, []

    async def main() -> None:
        opening = asyncio.ensure_future(LlamaCppBackend("local", settings).open("embed"))

        def given_up(worker: Worker, life: asyncio.Task[Any]) -> None:
            opened(worker, life)
            pids.append(worker.pid)
            opening.cancel()

        monkeypatch.setattr(Worker, "_opened", given_up)
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert pids[0] is not None
        assert gone(pids[0])

    asyncio.run(main())


@linux
def test_closing_in_the_instant_of_a_loads_end_leaves_no_process() -> None:
    async def main() -> None:
        worker = Worker(job())
        load = worker._load
        ends: list[tuple[int, asyncio.Task[None]]] = []

        async def loaded(life: Life, gauge: Any) -> None:
            await load(life, gauge)
            ends.append((life.process.pid, asyncio.ensure_future(worker.close())))

        worker._load = loaded  # type: ignore[method-assign]
        await worker.start()
        pid, closing = ends[0]
        await closing
        assert gone(pid)

    asyncio.run(main())


@linux
@pytest.mark.parametrize("start", ["well", "takes for ever"])
def test_it_dies_with_its_parent_also_by_kill_9(start: str) -> None:
    script = f"""
import asyncio
from tests.test_workers import job, Worker

async def main():
    worker = Worker(job({start!r}))
    async def look(pid):
        print(pid, flush=True)
    loading = asyncio.ensure_future(worker.start(lambda part: print("loading", flush=True), look))
    await loading
    await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        while parent.stdout.readline() != "loading\n":
            pass
        parent.kill()
        # Its end closes the pipe that it shares with nobody else, but ours is the parent's: look until it is gone.
        while not gone(pid) and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            pass


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_three_deaths_within_a_minute_are_a_pattern_and_pauses_grow() -> None:
    clock = Clock()
    deaths = Deaths(clock)
    for _ in range(6):  # one now and then is none
        deaths.add()
        clock.now += WITHIN
        assert not deaths.left()
    for _ in range(2):
        deaths.add()
        assert not deaths.left()
    pauses = []
    for _ in range(9):
        deaths.add()
        pauses.append(deaths.left())
        clock.now += deaths.left()
        assert not deaths.left()
    assert pauses == [5, 10, 20, 40, 80, 160, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    clock.now += WITHIN
    deaths.add()
    assert not deaths.left()
    for _ in range(2):
        deaths.add()
    assert deaths.left() == PAUSE


WORKING, STILL = 1.0, 0.0
"""Processor time in a second."""


@pytest.mark.parametrize(
    ("seconds", "stepping", "computing", "after"),
    [
        (STILL, 0, 1, 10),
        (STILL, 1, 1, 10),
        (WORKING, 1, 1, 10 * SPIN),
        (WORKING, 0, 1, None),  # a long prompt on a slow machine, or a long text that becomes a vector
        (STILL, 0, 0, None),  # nothing to do, or a client that reads slowly
    ],
)
def test_hung_is_who_makes_no_step_and_does_not_compute_either(
    seconds: float, stepping: int, computing: int, after: int | None
) -> None:
    watch = Watch(10.0)
    pulses = (Pulse(5, computing, stepping, seconds * now) for now in range(1000))
    found = next((now for now, pulse in enumerate(pulses) if watch.feel(float(now), pulse)), None)
    assert found == after


def test_every_step_is_a_sign_of_life() -> None:
    watch = Watch(10.0)
    assert not any(watch.feel(now * 9.0, Pulse(now, 1, 1, 0.0)) for now in range(100))
    off = Watch(0)
    assert not any(off.feel(float(now), Pulse(0, 1, 1, 0.0)) for now in range(1000))


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.events"),
        ("4:memory:/a\n1:cpu:/\n", "sys/fs/cgroup/memory/a/memory.oom_control"),
    ],
)
def test_the_kernels_kills_for_memory_are_counted(tmp_path: Path, group: str, file: str) -> None:
    assert oom_kills(tmp_path) == 0
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 2\n")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("oom 9\noom_kill 3\n")
    assert oom_kills(tmp_path) == 5


def test_a_kill_for_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [0]
    monkeypatch.setattr("backends.workers.life.oom_kills", lambda: kills[0])

    async def story(worker: Worker) -> None:
        stream = worker.stream("hang", b"")
        await anext(stream)
        kills[0] += 1
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match="was killed, most likely because memory ran out"):
            await anext(stream)

    told(story)


def test_why_llama_cpp_could_not_load_is_its_first_error_without_a_path() -> None:
    said = (
        "0.00.003.564 E llama_model_load: error loading model: unknown architecture in /home/me/models/x.gguf\n"
        "0.00.003.577 E cmn  common_init_: failed to load model '/home/me/models/x.gguf'\n"
    )
    error = explain("x", Failed("RuntimeError: Failed to init server", said, starved=False))
    assert error.message == (
        "the model 'x' could not be loaded: llama_model_load: error loading model: unknown architecture in x.gguf"
    )
    assert type(error) is BackendError
    for failed in (
        Failed("its process was killed, most likely because memory ran out", "", starved=True),
        Failed("RuntimeError: no", "0.1 E ggml_gallocr: failed to allocate CPU buffer of size 5\n", starved=False),
        Failed("its process ended with status 1", "Traceback:\nRuntimeError: can't start new thread\n", starved=False),
        Failed(
            "its process ended by SIGABRT", "terminate\n  what():  Resource temporarily unavailable\n", starved=False
        ),
    ):
        assert isinstance(explain("x", failed), OutOfMemory)


@linux
def test_how_much_of_a_file_a_process_has_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(1_000_000))
    read = mapped(os.getpid(), str(path))
    assert read > 0  # not mapped: what was read, of whatever
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        sum(view[:: mmap.PAGESIZE])
        assert 1_000_000 <= mapped(os.getpid(), str(path)) <= 1_000_000 + mmap.PAGESIZE
    assert mapped(2**22 + 1, str(path)) == 0


def test_progress_never_goes_back() -> None:
    seen: list[Progress] = []
    gauge = Gauge("x", 1000, seen.append)
    for part in (0.0, 0.5, 0.4, 2.0):
        gauge.far(part)
    assert [(step.completed, step.total) for step in seen] == [(0, 1000), (500, 1000), (1000, 1000)]


class Blocked:
    """An engine that says a word and then waits."""

    def __init__(self, start: Start | None = None) -> None:
        self.gate, self.closed = threading.Event(), False

    def stream(self, kind: Kind, body: bytes, emit: Emit) -> None:
        emit(b"begun")
        self.gate.wait()

    def embed(self, body: bytes) -> bytes:
        return b"{}"

    def rerank(self, body: bytes) -> bytes:
        return b"{}"

    def close(self) -> None:
        self.closed = True


def test_an_engine_that_hangs_in_the_gateways_process_ends_its_requests_and_gets_no_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.llama_cpp.inprocess.time.process_time", lambda: 0.0)  # the test itself computes

    async def main() -> None:
        engine = Blocked()
        runner = InProcess(engine, name="m", hang=0.1)
        stream = runner.stream("chat", b"")
        assert await anext(stream) == [b"begun"]
        with pytest.raises(BackendTimeout):
            await anext(stream)
        for refused in (runner.embed(b""), anext(runner.stream("chat", b""))):
            with pytest.raises(BackendUnavailable, match="hangs") as caught:
                await refused
            assert caught.value.status == 503
        await runner.close()
        assert not engine.closed  # it would wait for ever
        engine.gate.set()
        runner._hang = 60.0  # patient, as the machine may be busy
        while runner._calls:  # noqa: ASYNC110  # a thread of the engine ends now
            await asyncio.sleep(0)
        assert await runner.embed(b"") == b"{}"  # it came back
        await runner.close()
        assert engine.closed

    with caplog.at_level(logging.ERROR, "dragoman.workers"):
        asyncio.run(main())
    assert "the engine of 'm' hangs" in caplog.text


def test_nobody_watches_an_engine_of_the_gateways_process_that_is_closed() -> None:
    async def main() -> None:
        runner = InProcess(Blocked(), hang=60.0)
        assert await runner.embed(b"") == b"{}"
        await runner.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_what_a_closed_engine_has_freed_is_given_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, closed = Blocked(), []

    class System:
        def __init__(self, _: None) -> None: ...

        def malloc_trim(self, _: int) -> None:
            closed.append(engine.closed)

    monkeypatch.setattr("backends.llama_cpp.inprocess.ctypes.CDLL", System)
    asyncio.run(InProcess(engine).close())
    assert closed == [True]


def test_a_load_in_the_gateways_process_is_waited_for_and_undone() -> None:
    gate, begun = threading.Event(), threading.Event()
    engine = Blocked()

    def load(start: Start) -> Blocked:
        begun.set()
        gate.wait()
        return engine

    async def main() -> None:
        loading = asyncio.ensure_future(InProcess.start("m", load, Start(path="x")))
        await asyncio.to_thread(begun.wait)
        for _ in range(3):
            loading.cancel()
            await asyncio.sleep(0)
            assert not loading.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert engine.closed

    asyncio.run(main())
