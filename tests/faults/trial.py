"""One trial: a run, what happened to it, and the row that says how it ended."""

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mhcnb.config import as_dict, load_config
from mhcnb.data.shardfile import ShardWriter
from mhcnb.run import Run
from mhcnb.yamlfile import dump

from .inject import Fault, Trace
from .jobs import INJECT, Forked, Launched, preload
from .oracle import judge
from .rows import SURVIVED, Row

TINY = Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml"
INTERVAL, STEPS = 4, 16
# weights and optimizer of about a megabyte
SMALL = {
    "model.width": 56, "model.heads": 2, "model.layers": 2, "model.block_size": 16, "model.vocab_size": 64,
    "train.steps": STEPS, "train.micro_batch": 4, "train.warmup": 2, "train.eval_every": 6, "train.eval_batches": 2,
    "train.save_every": INTERVAL, "train.keep_last": 2, "log.every": 1, "log.maps_every": 8, "model.dropout": 0.1,
}  # fmt: skip
Job = Forked | Launched


class Lab:
    """A folder with data, and an undisturbed run of each kind, made when first asked for."""

    def __init__(self, folder: Path, seed: int) -> None:
        preload()
        self.folder, self.seed, self.count = folder, seed, 0
        self.seconds: dict[Path, float] = {}  # that an undisturbed run takes
        self.latest: Trial | None = None
        (folder / "data").mkdir(parents=True)
        tokens = np.random.default_rng(0)
        for split, count in (("train", 4000), ("val", 1000)):
            with ShardWriter(folder / "data" / f"{split}.bin") as writer:
                writer.append((np.cumsum(tokens.integers(1, 4, count)) % 64).astype(np.uint16))

    def params(self, connection: str) -> Path:
        """The parameters of a method as a file."""
        path = self.folder / f"{connection}.yaml"
        if not path.exists():
            given = SMALL | {"data.root": str(self.folder / "data"), "connection.name": connection}
            path.write_text(dump(as_dict(load_config(TINY, given))))
        return path

    def whole(self, connection: str, ranks: int) -> Path:
        """The undisturbed run."""
        path = self.folder / f"whole-{connection}-{ranks}" / "run"
        if path not in self.seconds:
            trace = path.parent / "trace"
            trace.mkdir(parents=True)
            began = time.monotonic()
            args = ["train", str(self.params(connection)), "--out", str(path)]
            if Forked(trace, [], args, path.parent / "log.txt", ranks).wait() != [0] * ranks:
                sys.exit(f"the undisturbed run failed, nothing to compare with: {path.parent}/log.txt")
            self.seconds[path] = time.monotonic() - began
        return path

    def trial(self, fault: str, point: str, connection: str, ranks: int = 1, launcher: bool = False) -> "Trial":
        """A new one, whose random numbers follow from the lab's seed and its number."""
        self.count += 1
        row = Row(fault, point, ranks, connection, self.seed * 10_000 + self.count)
        self.latest = Trial(self, row, Launched if launcher else Forked, self.folder / f"trial-{self.count:03d}")
        return self.latest


class Trial:
    """`problems` collects what went wrong; `row` is filled by `finish`."""

    def __init__(self, lab: Lab, row: Row, launcher: type[Job], folder: Path) -> None:
        self.lab, self.row, self.launcher, self.folder = lab, row, launcher, folder
        self.rng, self.problems = random.Random(row.seed), []
        self.sign = ""  # what a warning about this fault says
        # steps that may have to be done again: an interval, and one more while a save is written, for the next waits
        self.bound = 2 * INTERVAL
        self.path = folder / "run"
        (folder / "trace").mkdir(parents=True)
        self.trace, self.jobs = Trace(folder / "trace"), list[Job]()
        self.whole = lab.whole(row.connection, row.ranks)
        self.seconds = lab.seconds[self.whole]

    @property
    def run(self) -> Run:
        return Run(self.path)

    def start(self, *faults: Fault, **options: Any) -> Job:
        """The command that begins the run. `options`: of the launcher; `given`: key=value."""
        params = str(self.lab.params(self.row.connection))
        return self._begin(["train", params, *options.pop("given", ()), "--out", str(self.path)], faults, options)

    def resume(self, *faults: Fault, **options: Any) -> Job:
        """The command that goes on with it; the first one where it was not even a run yet."""
        if not (self.path / "config.yaml").exists():
            return self.start(*faults, **options)
        return self._begin(["train", "--resume", str(self.path), *options.pop("given", ())], faults, options)

    def _begin(self, args: list[str], faults: tuple[Fault, ...], options: dict[str, Any]) -> Job:
        launcher = options.pop("launcher", self.launcher)
        job = launcher(self.trace.folder, faults, args, self.folder / "log.txt", ranks=self.row.ranks, **options)
        self.jobs.append(job)
        return job

    def demand(self, holds: Any, otherwise: str) -> None:
        """Notes what must hold beside the oracle."""
        if not holds:
            self.problems.append(otherwise)

    def demand_status(self, state: str, reason: str = "") -> None:
        """What status.json must say now, and that there is the checkpoint of a stop."""
        status = self.run.status()
        told = status.get("state") == state and reason in status.get("reason", "")
        self.demand(told, f"status.json says {status}, not {state} {reason}")
        if state == "stopped" and told:
            self.demand(self.run.last_checkpoint().name == f"step-{status['step']:08d}", "stopped without a checkpoint")

    def command(self, *faults: Fault) -> list[object]:
        """Of a Python: the command line with faults, its arguments to follow."""
        return [INJECT, self.trace.folder, *faults, "--"]

    def go(self) -> None:
        """Ends the fault `wait`."""
        (self.trace.folder / "go").touch()

    def await_update(self, step: int, seconds: float = 60.0) -> None:
        """Until rank 0 has made that update. Raises TimeoutError."""
        self.await_that(lambda: any(told["step"] >= step for told in self.trace.told("update")), seconds)

    def await_that(self, holds: Callable[[], bool], seconds: float) -> None:
        """Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so after {seconds:g} s")
            time.sleep(0.005)

    def finish(self) -> Row:
        """Resumes until the run is done, at most three times, and judges it."""
        for _ in range(3):
            if self.path.exists() and self.run.status().get("state") == "done":
                break
            self.row.restarts += 1
            self.resume(launcher=Forked).wait()
        verdict = judge(self.path, self.whole)
        self.demand(not (left := [pid for job in self.jobs for pid in job.left()]), f"processes left: {left}")
        self.row.bit_equal, self.row.torn, self.row.doubled = verdict.bit_equal, verdict.torn, verdict.doubled
        self._time()
        self.demand(not self.sign or self.row.detected_s, "it was not noticed")
        lost = self.row.lost_steps or 0
        self.demand(lost <= self.bound, f"{lost} steps done again, with a save every {INTERVAL}")
        wrong = [*self.problems, *verdict.wrong]
        self.row.outcome = "; ".join(wrong) if wrong else SURVIVED
        return self.row

    def _time(self) -> None:
        """Detected: a warning, or the end of a process that lived before. Recovered: the first update of a process
        that began after; where there was no need of one, the first save after it was detected."""
        told, row = self.trace.told(), self.row
        since = next(one["time"] for one in told if one["event"] == "fault" and not one["fault"].startswith("wait"))
        after = [one for one in told if one["time"] > since]
        fresh = {one["pid"] for one in after if one["event"] == "begin"}
        signs = [one["time"] for one in after if self._tells(one, fresh)]
        if fresh:
            again = [one["time"] for one in after if one["event"] == "update" and one["pid"] in fresh]
        else:
            again = [one["time"] for one in after if one["event"] == "saved" and signs and one["time"] > min(signs)]
        row.injected_s = since - self.jobs[0].began
        row.detected_s = min(signs) - since if signs else None
        row.recovered_s = again[0] - since if again else None
        updates = [one["step"] for one in told if one["event"] == "update" and one["rank"] == 0]
        row.lost_steps = len(updates) - len(set(updates))
        row.restarts = max(row.restarts, *(one["attempt"] for one in told))

    def _tells(self, one: dict[str, Any], fresh: set[int]) -> bool:
        if one["event"] == "warning":
            return bool(self.sign) and self.sign in one["text"]
        return one["event"] == "noticed" or (one["event"] == "end" and one["pid"] not in fresh)

    def stop(self) -> None:
        """Ends what may still run."""
        for job in self.jobs:
            job.kill()

    def struck(self, fault: str) -> None:
        """The harness has done something to the run itself."""
        self.trace.tell("fault", fault=fault, step=-1)
