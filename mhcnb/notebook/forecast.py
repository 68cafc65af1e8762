"""The costs of planned runs, as words and as a table."""

import heapq
from typing import TYPE_CHECKING, NamedTuple

from mhcnb.config import RunConfig
from mhcnb.sweep.progress import duration
from mhcnb.training.estimate import Timings, counts
from mhcnb.training.footprint import Memory

if TYPE_CHECKING:
    from pandas import DataFrame

# Not measured, but counted roughly: what a notebook takes beside what it does, in starts of one process (papermill,
# a kernel, imports, its figure), and one that reads the runs of a sweep, in all and for each run
CELL_STARTS, THEN_STARTS, THEN_STARTS_A_RUN = 3.0, 6.0, 1.25


class Planned(NamedTuple):
    """One run. Bytes, FLOPs a token (forward and backward), seconds; `activations` by train.recompute;
    `process_bytes`: the most that a process holds; timings and seconds are None where nothing was measured."""

    name: str
    config: RunConfig
    device: str
    processes: int
    parts: dict[str, int]
    flops: float
    connection_flops: float
    tokens_a_step: int
    memory: Memory
    process_bytes: int
    activations: dict[str, int]
    checkpoint_bytes: int
    disk_bytes: int
    timings: Timings | None
    seconds: float | None

    @property
    def parameters(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    @property
    def tokens(self) -> int:
        """Of all updates."""
        return self.tokens_a_step * self.config.train.steps


class Forecast(NamedTuple):
    """The runs of a params file (one) or of a sweep, `at_once` at a time, and then `then` notebooks over all."""

    runs: list[Planned]
    at_once: int
    then: int
    sweep: bool
    warnings: list[str]

    @property
    def disk_bytes(self) -> int:
        """At most, for the checkpoints of all runs."""
        return sum(run.disk_bytes for run in self.runs)

    @property
    def seconds(self) -> float | None:
        """Of all of it; None where nothing was measured."""
        if any(run.seconds is None for run in self.runs):
            return None
        seconds = [run.seconds or 0.0 for run in self.runs]
        if not self.sweep:
            return seconds[0]
        starts = [run.timings.start if run.timings else 0.0 for run in self.runs]
        cells = [s + CELL_STARTS * start for s, start in zip(seconds, starts, strict=True)]
        then = self.then * max(starts) * (THEN_STARTS + THEN_STARTS_A_RUN * len(cells))
        return makespan(cells, self.at_once) + then

    def frame(self) -> "DataFrame":
        """A row for each run."""
        import pandas

        return pandas.DataFrame([_row(run) for run in self.runs])

    def __str__(self) -> str:
        text = _sweep(self) if self.sweep else _run(self.runs[0])
        return "\n".join([text, *(f"WARNING: {warning}" for warning in self.warnings)])

    __repr__ = __str__


def makespan(seconds: list[float], at_once: int) -> float:
    """When the last of the jobs ends that start in their order, each as soon as one of `at_once` places is free."""
    ends = [0.0] * at_once
    for job in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + job)
    return max(ends)


def _row(run: Planned) -> dict[str, object]:
    facts: dict[str, object] = {"run": run.name, "connection": run.config.connection.name}
    facts |= {"streams": getattr(run.config.connection, "streams", 1), "recompute": run.config.train.recompute}
    facts |= {"device": run.device, "processes": run.processes, "parameters": run.parameters}
    facts |= {f"parameters_{part}": count for part, count in run.parts.items()}
    facts |= {"flops_per_token": run.flops, "connection_flops_per_token": run.connection_flops}
    facts |= {"tokens_per_step": run.tokens_a_step, "steps": run.config.train.steps, "tokens": run.tokens}
    facts |= {f"{part}_bytes": count for part, count in run.memory._asdict().items()}
    facts |= {"process_bytes": run.process_bytes, "checkpoint_bytes": run.checkpoint_bytes}
    return facts | {"disk_bytes": run.disk_bytes, "seconds": run.seconds}


def _run(run: Planned) -> str:
    """A line for each matter."""
    m, train = run.memory, run.config.train
    parts = ", ".join(f"{part} {count:,}" for part, count in run.parts.items() if count)
    share = run.connection_flops / run.flops
    kept = ", ".join(f"{how} {size(n)}" for how, n in run.activations.items())
    lines = {
        "runs on": f"{run.device}" + (f", {run.processes} processes" if run.processes > 1 else ""),
        "parameters": f"{run.parameters:,}: {parts}",
        "FLOPs a token": f"{quantity(run.flops)}, of which connections {quantity(run.connection_flops)} ({share:.1%})",
        "tokens": f"{run.tokens:,}: {train.steps:,} steps of {run.tokens_a_step:,}",
        "state": f"{size(m.weights + m.gradients + m.moments)}: weights {size(m.weights)}, gradients "
        f"{size(m.gradients)}, moments {size(m.moments)}",
        "activations": f"{size(m.activations)} a micro-batch; by train.recompute: {kept}",
        "peak memory": f"about {size(run.process_bytes)} a process" + _seen(run),
        "checkpoint": f"{size(run.checkpoint_bytes)}; at most {size(run.disk_bytes)} on the disk at a time",
        "time": _time(run),
    }
    return "\n".join([run.name, *(f"  {name:14} {text}" for name, text in lines.items())])


def _seen(run: Planned) -> str:
    return f" (in the measured steps {run.timings.peak_memory_gb:.2f} GB)" if run.timings else ""


def _time(run: Planned) -> str:
    if run.seconds is None or run.timings is None:
        return "not measured"
    n, t = counts(run.config, run.processes), run.timings
    updates = f"{n.micros:,} micro-batches of {t.micro:.3g} s"
    batches = n.evaluations * -(-run.config.train.eval_batches // run.processes) * t.evaluation
    rest = f"{n.evaluations} evaluations {batches:.3g} s, {n.saves} saves {n.saves * t.save:.3g} s"
    maps = f", {n.maps} records of maps {n.maps * t.maps:.3g} s" if n.maps else ""
    return f"about {duration(run.seconds)}: {updates}, {rest}{maps}, start {t.start:.2g} s"


def _sweep(forecast: Forecast) -> str:
    heads = ["run", "parameters", "connections", "FLOPs/token", "activations", "peak", "checkpoint", "tokens", "time"]
    rows = [
        [
            run.name,
            f"{run.parameters:,}",
            f"{run.parts['connections']:,}",
            quantity(run.flops),
            size(run.memory.activations),
            size(run.process_bytes),
            size(run.checkpoint_bytes),
            quantity(run.tokens),
            "-" if run.seconds is None else duration(run.seconds),
        ]
        for run in forecast.runs
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    table = [
        "  ".join(f"{x:{'<' if i == 0 else '>'}{width}}" for i, (x, width) in enumerate(zip(row, widths, strict=True)))
        for row in [heads, ["-" * width for width in widths], *rows]
    ]
    return "\n".join([*table, "", _total(forecast)])


def _total(forecast: Forecast) -> str:
    runs = forecast.runs
    tokens = quantity(sum(run.tokens for run in runs))
    words = f"{len(runs)} runs on {runs[0].device}, {forecast.at_once} at a time: {tokens} tokens, at most "
    words += f"{size(forecast.disk_bytes)} of checkpoints on the disk"
    if forecast.seconds is None:
        return f"{words}; time not measured"
    notebooks = f" and {forecast.then} notebooks after them" if forecast.then else ""
    return f"{words}; about {duration(forecast.seconds)}, the cells' notebooks{notebooks} counted roughly"


def size(count: float) -> str:
    """`13.9 MB`, in powers of ten."""
    return " ".join(_scaled(count)) + "B"


def quantity(count: float) -> str:
    """`13.9 M`: three figures and k, M, G, T, P or E."""
    return " ".join(_scaled(count)).rstrip()


def _scaled(count: float) -> tuple[str, str]:
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(count) < 999.5:
            return f"{count:.3g}", unit
        count /= 1000
    return f"{count:.3g}", "E"
