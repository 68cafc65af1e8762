"""How long a run takes and what it leaves on the disk, from a few steps that are really made.

The steps are those of a run: its loop, data reader, logs and checkpoints, in a folder that is thrown away and in
processes of their own, as many at a time as there will be.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mhcnb import yamlfile
from mhcnb.config import RunConfig, as_dict, load_config
from mhcnb.durable import write_json
from mhcnb.errors import RunError
from mhcnb.run import Run

SECONDS = 10.0  # of updates in one measurement; at least one is made, however long it takes
EVALUATE, MAPS = 10, 7  # updates between evaluations and between maps records there: both often enough to be seen warm
WARM = 2  # updates that warm up
SAID = "said.txt"  # what a measured process prints to its standard error


class Timings(NamedTuple):
    """Seconds. `micro`: one micro-batch of each process, its reading and the update that follows it included;
    `evaluation`: one batch of each split; `save`: a checkpoint; `start`: from the command to the first evaluation.
    And the most memory of a process, in 10⁹ bytes."""

    start: float
    micro: float
    evaluation: float
    save: float
    maps: float
    peak_memory_gb: float


class Counts(NamedTuple):
    """How often a run does what takes time. `micros`: micro-batches of each process; `evaluations`: of all batches;
    `saves`: at most, for an evaluation is followed by one where it is the best so far."""

    micros: int
    evaluations: int
    saves: int
    maps: int


def counts(config: RunConfig, processes: int = 1) -> Counts:
    """Of a whole run. Saves by time are left out: they come where there are few others."""
    train, steps = config.train, config.train.steps
    evaluations = 1 + math.ceil(steps / train.eval_every)
    saves = {steps, *range(train.eval_every, steps + 1, train.eval_every)}
    if train.save_every:
        saves |= set(range(train.save_every, steps + 1, train.save_every))
    maps = 1 + steps // config.log.maps_every if config.log.maps_every else 0
    return Counts(steps * max(1, train.accumulation // processes), evaluations, len(saves), maps)


def run_seconds(config: RunConfig, timings: Timings, processes: int = 1) -> float:
    """Of a whole run with these timings."""
    n, t = counts(config, processes), timings
    batches = n.evaluations * math.ceil(config.train.eval_batches / processes)
    return t.start + n.micros * t.micro + batches * t.evaluation + n.saves * t.save + n.maps * t.maps


def run_bytes(config: RunConfig, checkpoint: int) -> int:
    """At most, on the disk: the last checkpoints, the best, and the one that is written before another goes."""
    train = config.train
    times = train.steps if train.save_minutes else counts(config).saves
    return min(times, train.keep_last + 2) * checkpoint


def measure(configs: Sequence[RunConfig], processes: int = 1, threads: int | None = None) -> list[Timings]:
    """Timings of the runs, made at the same time as each other: each `processes` ranks of `threads` threads.

    Raises RunError with what a run said that failed, as where its data are not there or its memory was not enough.
    """
    with tempfile.TemporaryDirectory(prefix="mhcnb-plan-") as folder:
        jobs = [_start(config, Path(folder, str(i)), processes, threads) for i, config in enumerate(configs)]
        try:
            for job in jobs:
                job.wait()
        finally:
            for job in jobs:
                job.kill()
                job.wait()
        return [_result(Path(folder, str(i))) for i in range(len(jobs))]


def short(config: RunConfig, processes: int = 1) -> RunConfig:
    """The run to measure: one micro-batch an update and one batch an evaluation, which stand for all the others."""
    values = as_dict(config)
    few = {"accumulation": processes if config.train.accumulation > 1 else 1, "eval_batches": processes}
    few |= {"eval_every": EVALUATE, "save_every": 0, "save_minutes": 0.0, "resume": "never", "steps": 10**9}
    few |= {"epochs": 0, "save_evaluated": False}
    values["train"] |= few
    values["log"] |= {"every": 1, "maps_every": MAPS if config.log.maps_every else 0, "wandb": None}
    return RunConfig.build(values, "the configuration to measure")


def _start(config: RunConfig, folder: Path, processes: int, threads: int | None) -> subprocess.Popen[bytes]:
    folder.mkdir()
    (folder / "config.yaml").write_text(yamlfile.dump(as_dict(short(config, processes))), encoding="utf-8")
    ranks = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *ranks, "mhcnb.training.estimate", str(folder), repr(time.time())]
    env = dict(os.environ)
    if threads:
        env.setdefault("OMP_NUM_THREADS", str(threads))
    with (folder / SAID).open("wb") as said:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=env)


def _result(folder: Path) -> Timings:
    if (folder / "timings.json").is_file():
        return Timings(**json.loads((folder / "timings.json").read_text(encoding="utf-8")))
    said = (folder / SAID).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = Run(folder / "run").status().get("reason") or (said[-1] if said else "its process was killed")
    raise RunError(f"the steps to measure failed: {reason}; `mhcnb plan --no-measure` needs none")


def timings_of(records: Sequence[dict[str, Any]], start: float, peak_memory_gb: float) -> Timings:
    """From the records of a measured run, which was stopped at a step that it does not evaluate at: the record of
    that stop comes after a checkpoint, too. What warms up, or stands behind a checkpoint, counts where there is no
    other."""
    taken: dict[str, list[tuple[bool, float]]] = {"train": [], "eval": [], "maps": [], "stop": []}
    previous: dict[str, Any] = {"time_s": 0.0, "type": ""}
    for record in records:
        kind = "stop" if record.get("on_stop") else record["type"]
        warm = record["step"] > (WARM if kind == "train" else 0) and (previous["type"], kind) != ("eval", "train")
        taken[kind].append((warm, record["time_s"] - previous["time_s"]))
        previous = record
    micro, evaluation, maps, stop = map(_mean, taken.values())
    return Timings(start, micro, evaluation, max(0.0, stop - evaluation), maps, peak_memory_gb)


def _mean(taken: list[tuple[bool, float]]) -> float:
    """Of what was warm, else of all; 0 of nothing."""
    chosen = [seconds for warm, seconds in taken if warm] or [seconds for _, seconds in taken]
    return statistics.fmean(chosen) if chosen else 0.0


def main(folder: Path, launched: float) -> None:
    """One process of a measured run: asks it to stop when it has been seen long enough."""
    from mhcnb.training.loop import train_steps

    run, leads = Run(folder / "run"), os.environ.get("RANK", "0") == "0"
    first = start = 0.0
    for info in train_steps(load_config(folder / "config.yaml"), run.path):
        if info.step == 0 and leads:
            evaluated = run.results()[-1]["time_s"]
            first, start = time.monotonic(), time.time() - launched - evaluated
        elif leads and time.monotonic() - first > SECONDS and (info.step + 1) % EVALUATE:
            run.request("stop")
    if leads:
        timings = timings_of(run.results(), start, run.summary()["peak_memory_gb"])
        write_json(folder / "timings.json", timings._asdict())


if __name__ == "__main__":
    from mhcnb.training.rank import as_rank

    with as_rank():
        main(Path(sys.argv[1]), float(sys.argv[2]))
