"""The driver of a sweep: K cells at a time, each a notebook in a process of its own. What is done is not repeated, a
failure stops nothing, and the record outlives the driver."""

import fnmatch
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mhcnb.durable import write_json
from mhcnb.errors import ConfigError, nearest
from mhcnb.run import Run
from mhcnb.sweep.cell import Ending, Worker
from mhcnb.sweep.folder import SweepFolder
from mhcnb.sweep.names import describe
from mhcnb.sweep.plan import Cell, Plan, plan
from mhcnb.sweep.progress import Progress, duration

POLL_S = 0.1


def run_sweep(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    only: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
) -> int:
    """Runs what is left of a sweep and prints how it goes. `only`: a pattern of cell names, as in '*-large-*'.

    Returns the exit status: 0 all done, 1 something failed, 130 interrupted. Raises before anything runs.
    """
    own = {**(overrides or {}), **({"workers": workers} if workers is not None else {})}
    planned = plan(path, own, out)
    chosen = _choose(planned.cells, only)
    folder = SweepFolder(planned.out)
    if dry_run:
        _show_plan(planned, folder, chosen)
        return 0
    folder.acquire()
    try:
        return _Driver(planned, folder, chosen, retry_failed).run()
    finally:
        folder.release()


def _choose(cells: list[Cell], only: str | None) -> set[str]:
    names = {cell.name for cell in cells}
    chosen = {name for name in names if fnmatch.fnmatchcase(name, only or "*")}
    if not chosen:
        raise ConfigError(f"--only {only!r} matches no cell{nearest(str(only), names)}")
    return chosen


def _show_plan(planned: Plan, folder: SweepFolder, chosen: set[str]) -> None:
    width = max(len(cell.name) for cell in planned.cells)
    for cell in planned.cells:
        state = folder.judge(cell)
        state = state if state != "planned" or cell.name in chosen else "skipped"
        ranks = f", {cell.processes} processes" if cell.processes > 1 else ""
        print(f"{cell.name:{width}}  {state:8}  {cell.params.name}: {describe(cell.point)}{ranks}")
    print(f"{len(planned.cells)} cells, {planned.workers} at a time, into {planned.out}; nothing was started")
    if planned.then:
        print(f"then: {', '.join(book.name for book in planned.then)}")


class _Driver:
    def __init__(self, planned: Plan, folder: SweepFolder, chosen: set[str], retry: bool) -> None:
        self.plan, self.folder, self.chosen = planned, folder, chosen
        self.interrupts = 0
        self.queue = deque(self._settle(retry))
        self.running: dict[str, tuple[Cell, Worker, float]] = {}
        self.workers = min(planned.workers, max(1, len(self.queue)))
        self.progress = Progress(len(self.queue), self.workers)

    def run(self) -> int:
        """All of it. Returns the exit status."""
        states = [self.folder.cells[name]["state"] for name in self.chosen]
        earlier = sum(state in ("failed", "died") for state in states)
        hint = f", {earlier} failed earlier (--retry-failed runs them again)" if earlier else ""
        at_once = f", {self.workers} at a time" if self.workers > 1 else ""
        words = f"{len(states)} cells: {states.count('done')} done{hint}, {len(self.queue)} to run{at_once}"
        self.progress.say(f"{words}, into {self.folder.path}")
        worked = bool(self.queue)
        try:
            with self._signals():
                self._run_cells()
                then_failed = not self.interrupts and self._run_then(worked)
        finally:
            for _, worker, _ in self.running.values():
                worker.kill()
        self._report()
        if self.interrupts:
            return 130
        states = [self.folder.cells[name]["state"] for name in self.chosen]
        return int(then_failed or any(state != "done" for state in states))

    def _settle(self, retry: bool) -> list[Cell]:
        """Gives every cell its state, and returns those that are to run; what they left before is put aside."""
        before = {cell.name: self.folder.judge(cell) for cell in self.plan.cells}
        self.folder.write()  # says who works here
        again = ("planned", "failed", "died") if retry else ("planned",)
        todo = [cell for cell in self.plan.cells if cell.name in self.chosen and before[cell.name] in again]
        self.folder.wait_until_free(todo)
        old, self.folder.cells = self.folder.cells, {}
        for cell in self.plan.cells:
            state = "planned" if cell in todo else before[cell.name] if before[cell.name] != "planned" else "skipped"
            self.folder.cells[cell.name] = ({} if cell in todo else old.get(cell.name, {})) | {"state": state}
        for cell in todo:
            self.folder.set_aside(cell)
        self.folder.write()
        return todo

    def _run_cells(self) -> None:
        while self.running or (self.queue and not self.interrupts):
            while self.queue and len(self.running) < self.workers and not self.interrupts:
                self._start(self.queue.popleft())
            for cell, worker, began in list(self.running.values()):
                if (ending := worker.poll()) is not None:
                    self._finish(cell, ending, time.monotonic() - began)
                elif self.interrupts:
                    self._stop(cell, worker)
            self.progress.live([cell for cell, *_ in self.running.values()], len(self.queue))
            time.sleep(POLL_S)

    def _start(self, cell: Cell) -> None:
        threads = None if self.workers == 1 else max(1, _cores() // (self.workers * cell.processes))
        log = cell.out / "logs" / "cell.log"
        worker = Worker(cell.notebook, cell.out / "notebook.ipynb", cell.parameters, log, threads)
        self.running[cell.name] = (cell, worker, time.monotonic())
        facts = dict(digest=cell.digest, params=str(cell.params), overrides=cell.overrides, started=time.time())
        self.folder.set(cell.name, "running", pid=worker.process.pid, **facts)
        self.progress.say(f"{cell.name} started")

    def _finish(self, cell: Cell, ending: Ending, seconds: float) -> None:
        del self.running[cell.name]
        state, why = _outcome(cell, ending, self.interrupts > 0)
        self.folder.set(cell.name, state, seconds=round(seconds, 1), error=why)
        loss = Run(cell.out).summary().get("final_val_loss") if state == "done" else None
        words = f"{state}{f' (val loss {loss:.3f})' if loss is not None else ''}"
        self.progress.finished(cell.name, words, seconds, stopping=self.interrupts > 0)
        if why:
            self.progress.say(f"  {cell.name}: {why}")

    def _stop(self, cell: Cell, worker: Worker) -> None:
        """Asks a run to stop at its next step; one that has not begun has nothing to lose."""
        run = Run(cell.out)
        state = run.status().get("state")
        if self.interrupts > 1 or state is None:
            worker.kill()
        elif state in ("starting", "running") and not run.requested("stop"):  # one that just starts clears requests
            run.request("stop")

    def _run_then(self, worked: bool) -> bool:
        """The notebooks over the whole sweep, where there is anything new for them. Returns whether one failed."""
        failed = False
        for notebook in self.plan.then:
            if not worked and self.folder.then.get(notebook.stem) == "done":
                continue
            began, output = time.monotonic(), self.folder.path / notebook.name
            self.progress.say(f"{notebook.stem} started")
            log = self.folder.path / "logs" / f"{notebook.stem}.log"
            worker = Worker(notebook, output, {"runs": str(self.folder.path)}, log)
            while (ending := worker.poll()) is None:
                if self.interrupts:
                    worker.kill()
                time.sleep(POLL_S)
            state = "interrupted" if self.interrupts else "failed" if ending.error else "done"
            self.folder.then[notebook.stem] = state
            self.folder.write()
            self.progress.say(f"{notebook.stem} {state} in {duration(time.monotonic() - began)}: {output}")
            if self.interrupts:
                return True
            if ending.error:
                self.progress.say(f"  {ending.error}")
                failed = True
        return failed

    def _report(self) -> None:
        """summary.json over all cells, and the same as a table."""
        from mhcnb.sweep.collect import collect, table

        states = {name: entry["state"] for name, entry in self.folder.cells.items()}
        rows = [{"cell": name, "state": states[name], **Run(self.folder.path / name).summary()} for name in states]
        write_json(self.folder.path / "summary.json", rows)
        frame = collect([self.folder.path]).set_index("run", drop=False).loc[list(states)]
        self.progress.say(f"\n{table(frame)}\n\n{self.folder.path / 'summary.json'}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM only count: the loop acts on them, so that no record is left half-made."""

        def note(number: int, frame: object) -> None:
            self.interrupts += 1
            if self.interrupts == 1:
                self.progress.say("stopping: running cells end after their step; once more to kill them")

        here = threading.current_thread() is threading.main_thread()
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)} if here else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _outcome(cell: Cell, ending: Ending, interrupted: bool) -> tuple[str, str]:
    """(state, why) of a cell whose worker has ended: what its run says of itself comes first."""
    status = Run(cell.out).status()
    state, reason = status.get("state"), status.get("reason", "")
    if state == "done":
        return "done", f"the run is done, but its notebook is not: {ending.error}" if ending.error else ""
    if state == "stopped":
        return "interrupted", reason
    if state in ("failed", "diverged"):
        return "failed", reason or ending.error
    if interrupted:
        return "interrupted", ""
    if ending.error:
        return ("died" if ending.died or state else "failed"), ending.error
    return "failed", f"its notebook ended, but left no finished run in {cell.out} (state: {state})"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
