"""Cells through an engine: started as slots become free, asked to stop, killed where they take too long, and judged by
what their runs say. A failure stops nothing."""

import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mhcnb.run import Run
from mhcnb.sweep.cell import Ending
from mhcnb.sweep.engines.base import Engine, Handle
from mhcnb.sweep.folder import SweepFolder
from mhcnb.sweep.plan import Cell
from mhcnb.sweep.progress import Progress, duration

POLL_S = 0.1
LOOK_S = 1.0  # between looks at a run's heartbeat
SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGUSR1"))


@dataclass
class Attempt:
    """A cell that runs. `before`: what its run said of an earlier attempt; `beat`: when it last said anything, which
    was `heard`, its own clock's time."""

    cell: Cell
    handle: Handle
    before: dict[str, Any]
    began: float
    beat: float
    looked: float
    heard: float = 0.0
    too_long: bool = False
    silent: bool = False

    @property
    def status(self) -> dict[str, Any]:
        """What the run says of this attempt; {} before it has said anything."""
        status = Run(self.cell.out).status()
        return status if status != self.before else {}


class Loop:
    """Runs cells. `interrupts` counts signals: at the first running cells are asked to stop, at the second killed."""

    def __init__(self, todo: Iterable[Cell], engine: Engine, folder: SweepFolder, timeout_s: float | None) -> None:
        self.queue, self.engine, self.folder, self.timeout_s = deque(todo), engine, folder, timeout_s
        self.running: dict[str, Attempt] = {}
        self.progress = Progress(len(self.queue), max(1, engine.slots))
        self.interrupts, self._waiting = 0, False

    def run(self) -> None:
        """All of them."""
        while self.running or (self.queue and not self.interrupts):
            while self.queue and len(self.running) < self.engine.slots and not self.interrupts:
                self._start(self.queue.popleft())
            if not self.running and not self._waiting:
                self._waiting = True
                self.progress.say("no worker is there yet; waiting for one")
            for attempt in list(self.running.values()):
                self._attend(attempt)
            self.progress.live([attempt.cell for attempt in self.running.values()], len(self.queue))
            time.sleep(POLL_S)

    def _start(self, cell: Cell) -> None:
        before, now = Run(cell.out).status(), time.monotonic()
        handle = self.engine.submit(cell)
        self.running[cell.name] = Attempt(cell, handle, before, now, now, now)
        self.progress.workers = max(self.progress.workers, len(self.running))  # workers of a cluster come and go
        facts = dict(digest=cell.digest, params=str(cell.params), overrides=cell.overrides, started=time.time())
        self.folder.set(cell.name, "running", **facts, **handle.facts)
        self.progress.say(f"{cell.name} {'goes on' if before else 'started'}")

    def _attend(self, attempt: Attempt) -> None:
        seconds = time.monotonic() - attempt.began
        if (ending := attempt.handle.poll()) is not None:
            self._finish(attempt, ending, seconds)
        elif self.timeout_s is not None and seconds > self.timeout_s:
            attempt.too_long = True
            attempt.handle.kill()
        elif self.interrupts:
            self._stop(attempt)
        elif time.monotonic() - attempt.looked > LOOK_S:
            self._listen(attempt)

    def _finish(self, attempt: Attempt, ending: Ending, seconds: float) -> None:
        cell = attempt.cell
        del self.running[cell.name]
        state, why = outcome(attempt, ending, self.interrupts > 0, self.timeout_s)
        self.folder.set(cell.name, state, seconds=round(seconds, 1), error=why)
        loss = Run(cell.out).summary().get("final_val_loss") if state == "done" else None
        words = f"{state}{f' (val loss {loss:.3f})' if loss is not None else ''}"
        self.progress.finished(cell.name, words, seconds, stopping=self.interrupts > 0)
        if why:
            self.progress.say(f"  {cell.name}: {why}")

    def _stop(self, attempt: Attempt) -> None:
        """Asks a run to stop at its next step; one that has not begun has nothing to lose."""
        run, state = Run(attempt.cell.out), attempt.status.get("state")
        if self.interrupts > 1 or state is None:
            attempt.handle.kill()
        elif state in ("starting", "running") and not run.requested("stop"):  # one that just starts clears requests
            run.request("stop")

    def _listen(self, attempt: Attempt) -> None:
        """Says once of a run that has said nothing for as long as its own ranks would wait for each other."""
        attempt.looked = now = time.monotonic()
        status = attempt.status
        if status and (heard := status["heartbeat"]) != attempt.heard:
            attempt.heard, attempt.beat, attempt.silent = heard, now - max(0.0, time.time() - heard), False
        silence = now - attempt.beat
        if silence > attempt.cell.config.train.timeout_s and not attempt.silent:
            attempt.silent = True
            where = f"step {status.get('step')}" if status else "its start"
            self.progress.say(f"{attempt.cell.name} has given no sign of life for {duration(silence)}, since {where}")

    @contextmanager
    def signals(self) -> Iterator[None]:
        """SIGNALS only count: the loop acts on them, so that no record is left half-made."""

        def note(number: int, frame: object) -> None:
            self.interrupts += 1
            if self.interrupts == 1:
                self.progress.say("stopping: running cells end after their step; once more to kill them")

        here = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, note) for number in SIGNALS} if here else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def outcome(attempt: Attempt, ending: Ending, interrupted: bool, timeout_s: float | None) -> tuple[str, str]:
    """(state, why) of a cell whose notebook has ended: what its run says of itself comes first."""
    status = attempt.status
    state, reason = status.get("state"), status.get("reason", "")
    if state == "done":
        return "done", f"the run is done, but its notebook is not: {ending.error}" if ending.error else ""
    if state == "stopped":
        return "interrupted", reason
    if state in ("failed", "diverged"):
        return "failed", reason or ending.error
    if attempt.too_long:
        return "timeout", f"killed after {duration(timeout_s or 0)} (--timeout), at step {status.get('step', 0)}"
    if interrupted:
        return "interrupted", ""
    if ending.error:
        return ("died" if ending.died or state else "failed"), ending.error
    return "failed", f"its notebook ended, but left no finished run in {attempt.cell.out} (state: {state})"
