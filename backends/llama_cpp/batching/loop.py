"""The one thread that owns a context: it seats requests, computes a step for all of them, and draws their tokens.

What it does in a step, in this order: it lets go of those whom nobody listens to any more, seats who waits, has the
tokens of ``plan`` computed, and draws a token for every answer. Threads that serve requests only put them in and take
chunks out.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as native
import numpy as np
from msgspec import Struct

from backends.llama_cpp.batching.batch import Batch
from backends.llama_cpp.batching.prefix import WORTH, Choice, choose, soon
from backends.llama_cpp.batching.slots import Slot
from backends.llama_cpp.batching.step import Piece, plan
from backends.llama_cpp.batching.task import Task
from backends.llama_cpp.engine import write_error
from backends.llama_cpp.sampling import Candidates, NoToken

_FULL = 1
"""What llama_decode answers where the memory has no room; nothing is changed then."""
_LOOK = 0.05
"""Seconds after which a thread with nothing to compute looks whether those who wait are still wanted."""


class Counts(Struct):
    """What has been done so far."""

    steps: int = 0
    tokens: int = 0
    """Computed, of prompts and of answers."""
    prompts: int = 0
    cached: int = 0
    """Tokens of prompts that were there already."""
    ended: int = 0
    """Requests that are over, however they ended."""
    evicted: int = 0
    """Idle slots that lost what they held, for room."""
    returned: int = 0
    """Requests that had to begin again, for room."""
    cut: int = 0
    """Answers that ended early, for room."""


class Loop:
    """A context at work. ``look`` is shown the pieces of every step before it is computed."""

    def __init__(self, context: Any, *, size: int, slots: int, chunk: int, partial: bool) -> None:
        """``size``: the vocabulary's; ``chunk``: tokens of prompts in a step; ``partial``: see ``choose``."""
        self.counts = Counts()
        self.slots: list[Slot[Task]] = [Slot(seq) for seq in range(slots)]
        self.look: Callable[[list[Piece[Task]]], None] | None = None
        self._context = context
        self._memory = native.llama_get_memory(context)
        self._size = size
        self._chunk = chunk
        self._partial = partial
        self._batch = Batch(slots + chunk)
        self._candidates = Candidates(size)
        self._waiting: deque[Task] = deque()
        self._inbox: deque[Task] = deque()
        self._orders = 0
        self._changed = threading.Condition()
        self._news = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="llama-loop", daemon=True)
        self._thread.start()

    def run(self, task: Task) -> None:
        """Have a request answered; returns when it is over. Any thread may call it, and waits in it.

        Raises:
            RuntimeError: the engine failed.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError("the model is being closed")
            self._orders += 1
            task.order = self._orders
            self._inbox.append(task)
            self._tell()
        task.deliver(self._wake)

    def close(self) -> None:
        """End all that runs, and the thread."""
        with self._changed:
            self._closing = True
            self._tell()
        self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._tell()

    def _tell(self) -> None:
        self._news = True
        self._changed.notify()

    def _run(self) -> None:
        idle = False
        while True:
            with self._changed:
                if idle and not self._news:
                    waits = bool(self._waiting) or any(slot.task for slot in self.slots)
                    self._changed.wait(_LOOK if waits else None)
                self._news = False
                if self._closing:
                    break
                while self._inbox:
                    self._waiting.append(self._inbox.popleft())
            try:
                idle = not self._step()
            except Exception as error:  # noqa: BLE001  # those who run are told; those who come find it empty
                self._fail(error)
        end = RuntimeError("the model is being closed")
        for task in (*self._waiting, *self._inbox):
            task.drop(end)
        self._fail(end)

    def _step(self) -> bool:
        """One step; False where there was nothing to compute."""
        for slot in self.slots:
            task = slot.task
            if task is not None and task.stopped:
                self._leave(slot)
                task.drop()
        if self._waiting:
            self._seat()
        pieces = plan(self.slots, chunk=self._chunk, turn=self.counts.steps)
        if not pieces:
            return False
        if self.look is not None:
            self.look(pieces)
        places = self._batch.fill(pieces)
        code = native.llama_decode(self._context, self._batch.native)
        if code == _FULL:
            self._make_room()
            return True
        if code:
            raise RuntimeError(f"llama_decode answered {code}")
        self._take(pieces, places)
        return True

    def _seat(self) -> None:
        """Give slots to those who wait, in the order of their coming."""
        for task in [task for task in self._waiting if task.stopped]:
            self._waiting.remove(task)
            self.counts.ended += 1
            task.drop()
        for task in list(self._waiting):
            if task.barred == self.counts.ended and any(slot.task for slot in self.slots):
                break  # nobody takes the room that it waits for
            choice = choose(self.slots, () if task.fresh else task.prompt, task.tenant, partial=self._partial)
            if choice is None:
                break
            # Of many requests with one prefix that come at once, one computes it and the others then have it.
            shares = self._partial and not task.fresh
            if shares and soon(self.slots, task.prompt, task.tenant) >= choice.keep + WORTH:
                continue
            self._waiting.remove(task)
            self._begin(task, choice)

    def _begin(self, task: Task, choice: Choice[Task]) -> None:
        slot, source, keep = choice
        if task.seeded and keep % self._chunk:
            # A token computed alone is not to the last bit what it is amid others: what is computed at the first time
            # is computed each time.
            keep = keep - keep % self._chunk if self._partial else 0
            source = source if keep else None
        if source is not slot:
            self._clear(slot)
            if source is not None:
                # The cells are shared, nothing is copied; it works while the source goes on, too.
                native.llama_memory_seq_cp(self._memory, source.seq, slot.seq, 0, keep)
        elif len(slot.held) > keep and not native.llama_memory_seq_rm(self._memory, slot.seq, keep, -1):
            self._clear(slot)
            keep = 0
        slot.held = task.prompt[:keep]
        slot.tenant, slot.task, slot.next = task.tenant, task, None
        task.seat(keep)
        self.counts.prompts += len(task.prompt)
        self.counts.cached += keep

    def _take(self, pieces: list[Piece[Task]], places: list[int]) -> None:
        """Note what has been computed, and draw the tokens that follow."""
        wanted = [(piece.slot, place) for piece, place in zip(pieces, places, strict=True) if piece.last]
        for piece in pieces:
            piece.slot.held += piece.tokens
            self.counts.tokens += len(piece.tokens)
        self.counts.steps += 1
        if not wanted:
            return
        rows = self._logits(len(wanted))
        drawn: list[tuple[Slot[Task], Task, Exception | None]] = []
        for (slot, place), logits in zip(wanted, rows, strict=True):
            task = slot.task
            assert task is not None
            failure: Exception | None = None
            try:
                slot.next = task.next(self._context, place, logits, self._candidates)
            except NoToken:
                slot.next = None
                task.refuse(write_error(500, "the grammar stack has no token that fits", "server_error"))
            except Exception as error:  # noqa: BLE001  # one request's fault is not the others'
                slot.next, failure = None, error
            drawn.append((slot, task, failure))
        for slot, task, failure in drawn:
            if slot.next is not None:
                task.tell()
            else:
                self._leave(slot)  # before anybody is told: who hears of the end finds the slot free
                task.drop(failure)

    def _logits(self, count: int) -> Any:
        """The rows of the last step, in the order in which they were asked for; they hold until the next."""
        pointer = native.llama_get_logits(self._context)
        array: Any = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float * (count * self._size))).contents
        return np.frombuffer(array, np.float32).reshape(count, self._size)

    def _make_room(self) -> None:
        """The memory is full: idle slots forget first, then prompts wait, and at last the longest answer ends."""
        holding = [slot for slot in self.slots if slot.task is None and slot.held]
        if holding:
            self._clear(min(holding, key=lambda slot: slot.used))
            self.counts.evicted += 1
            return
        running = [slot for slot in self.slots if slot.task is not None]
        young = [slot for slot in running if slot.task is not None and not slot.task.begun]
        if young and len(running) > 1:
            slot = max(young, key=_order)
            task = slot.task
            assert task is not None
            self._clear(slot)
            slot.task = slot.next = None
            task.barred = self.counts.ended
            self._waiting.appendleft(task)
            self.counts.returned += 1
            return
        slot = young[0] if young else max(running, key=lambda slot: len(slot.held))
        task = slot.task
        assert task is not None
        if young:
            task.refuse(write_error(503, "there is no room for the prompt", "server_error"))
        else:
            task.end("length")
            self.counts.cut += 1
        self._clear(slot)
        self._leave(slot)
        task.drop()

    def _clear(self, slot: Slot[Task]) -> None:
        native.llama_memory_seq_rm(self._memory, slot.seq, -1, -1)
        slot.held = []

    def _leave(self, slot: Slot[Task]) -> None:
        slot.task = slot.next = None
        slot.used = self.counts.steps + 1
        self.counts.ended += 1

    def _fail(self, error: BaseException) -> None:
        """What ran is over, and what is held may be wrong."""
        for slot in self.slots:
            if slot.task is not None:
                with contextlib.suppress(Exception):
                    slot.task.drop(error)
                self._leave(slot)
            slot.held = []
        native.llama_memory_clear(self._memory, True)


def _order(slot: Slot[Task]) -> int:
    return slot.task.order if slot.task is not None else 0
