"""The driver of a sweep: K cells at a time, each a notebook in a process of its own. What is done is not repeated, what
was interrupted goes on, a failure stops nothing, and the record outlives the driver."""

import fnmatch
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhcnb.durable import write_json
from mhcnb.errors import ConfigError, nearest
from mhcnb.run import Run
from mhcnb.sweep.cell import Job, Worker
from mhcnb.sweep.engines.base import Engine
from mhcnb.sweep.engines.dask import Dask
from mhcnb.sweep.engines.local import Local
from mhcnb.sweep.folder import ENDED_BADLY, OwnFolder, SweepFolder
from mhcnb.sweep.loop import POLL_S, Loop
from mhcnb.sweep.names import describe
from mhcnb.sweep.plan import Cell, Plan, plan
from mhcnb.sweep.progress import duration


def run_sweep(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    only: str | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
) -> int:
    """Runs what is left of a sweep and prints how it goes. `overrides` change the sweep's own fields (workers=2) or
    all cells. `only`: a pattern of cell names, as in '*-large-*'; `scheduler`: the address of a dask cluster.

    Returns the exit status: 0 all done, 1 something failed, 130 interrupted. Raises before anything runs.
    """
    planned = plan(path, overrides, out)
    chosen = _choose(planned.cells, only)
    folder = SweepFolder(planned.out)
    folder.require_own(planned.cells)
    if dry_run:
        _show_plan(planned, folder, chosen)
        return 0
    engine = Dask(scheduler, planned) if scheduler else Local(planned)
    try:
        folder.acquire()
        try:
            return _Driver(planned, folder, chosen, retry_failed, engine).run()
        finally:
            folder.release()
    finally:
        engine.close()


def run_cell(
    path: str | Path,
    number: int,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    retry_failed: bool = False,
) -> int:
    """Runs one cell of a sweep, by its place in the plan from 0, beside other processes that run others: a job array
    needs no driver. `then` and the summary are left to `run_sweep`. Returns the exit status; raises as that does."""
    planned = plan(path, overrides, out)
    if not 0 <= number < len(planned.cells):
        raise ConfigError(f"--cell {number}: {path} has {_cells(len(planned.cells))}, 0 to {len(planned.cells) - 1}")
    cell = planned.cells[number]
    folder, engine = OwnFolder(planned.out, cell.name), Local(planned)
    folder.require_own(planned.cells)
    folder.acquire()
    try:
        state = folder.judge(cell)
        if state != "planned" and not (retry_failed and state in ENDED_BADLY):
            hint = "" if state == "done" else " earlier; --retry-failed runs it again"
            print(f"{cell.name} {state}{hint}")
            return int(state != "done")
        folder.wait_until_free([cell])
        folder.make_ready(cell, state)
        loop = Loop([cell], engine, folder, planned.timeout_s)
        with loop.signals():
            loop.run()
        state = folder.cells.get(cell.name, {}).get("state")
        return 130 if loop.interrupts and state != "done" else int(state != "done")
    finally:
        engine.close()
        folder.release()


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"


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
    print(f"{_cells(len(planned.cells))}, {planned.workers} at a time, into {planned.out}; nothing was started")
    if planned.then:
        print(f"then: {', '.join(book.name for book in planned.then)}")


class _Driver:
    def __init__(self, planned: Plan, folder: SweepFolder, chosen: set[str], retry: bool, engine: Engine) -> None:
        self.plan, self.folder, self.chosen = planned, folder, chosen
        self.loop = Loop(self._settle(retry), engine, folder, planned.timeout_s)
        self.progress = self.loop.progress

    def run(self) -> int:
        """All of it. Returns the exit status."""
        states, left, slots = self._states(), len(self.loop.queue), self.progress.workers
        earlier = sum(state in ENDED_BADLY for state in states)
        hint = f", {earlier} failed earlier (--retry-failed runs them again)" if earlier else ""
        at_once = f", {slots} at a time" if min(slots, left) > 1 else ""
        words = f"{_cells(len(states))}: {states.count('done')} done{hint}, {left} to run{at_once}"
        self.progress.say(f"{words}, into {self.folder.path}")
        with self.loop.signals():
            self.loop.run()
            then_failed = not self.loop.interrupts and self._run_then(worked=left > 0)
        self._report()
        if self.loop.interrupts:
            return 130
        return int(then_failed or any(state != "done" for state in self._states()))

    def _states(self) -> list[str]:
        return [self.folder.cells[name]["state"] for name in self.chosen]

    def _settle(self, retry: bool) -> list[Cell]:
        """Gives every cell its state, and returns those that are to run, each ready to start afresh or to go on."""
        before = {cell.name: self.folder.judge(cell) for cell in self.plan.cells}
        self.folder.write()  # says who works here
        again = ("planned", *ENDED_BADLY) if retry else ("planned",)
        todo = [cell for cell in self.plan.cells if cell.name in self.chosen and before[cell.name] in again]
        self.folder.wait_until_free(todo)
        names, old = {cell.name for cell in todo}, self.folder.cells
        self.folder.cells = {}
        for name, state in before.items():
            found = "planned" if name in names else state if state != "planned" else "skipped"
            self.folder.cells[name] = ({} if name in names else old.get(name, {})) | {"state": found}
        for cell in todo:
            self.folder.make_ready(cell, before[cell.name])
        self.folder.write()
        return todo

    def _run_then(self, worked: bool) -> bool:
        """The notebooks over the whole sweep, where there is anything new for them. Returns whether one failed."""
        failed = False
        for notebook in self.plan.then:
            if not worked and self.folder.then.get(notebook.stem) == "done":
                continue
            began, output = time.monotonic(), self.folder.path / notebook.name
            self.progress.say(f"{notebook.stem} started")
            log = self.folder.path / "logs" / f"{notebook.stem}.log"
            worker = Worker(Job(str(notebook), str(output), {"runs": str(self.folder.path)}, str(log)))
            while (ending := worker.poll()) is None:
                if self.loop.interrupts:
                    worker.kill()
                time.sleep(POLL_S)
            state = "interrupted" if self.loop.interrupts else "failed" if ending.error else "done"
            self.folder.then[notebook.stem] = state
            self.folder.write()
            self.progress.say(f"{notebook.stem} {state} in {duration(time.monotonic() - began)}: {output}")
            if self.loop.interrupts:
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
