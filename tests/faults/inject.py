"""Faults at named points of a training, put in from outside: the product knows nothing of them.

    python tests/faults/inject.py TRACE FAULT... -- train PARAMS ...

wraps the functions that the points name and calls the command line. A FAULT is WHAT@POINT:STEP[:RANK[:DELAY]], as
KILL@step:7:1 or KILL@saving:8:0:3.5. TRACE is a folder: each fault strikes once, whatever is restarted, and
trace.jsonl tells when it did, which updates were made, what was warned of, and how each process ended.
"""

import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mhcnb import durable
from mhcnb.cli import main as command_line
from mhcnb.objectives.lm import LM
from mhcnb.training import checkpoint, loop

POINTS = {
    "step": "before an update",
    "saving": "inside a save: its hidden folder is there",
    "weights": "inside a save: weights written, optimizer not",
    "filled": "inside a save: files written, manifest not",
    "manifest": "between manifest and rename",
    "renamed": "between rename and prune",
    "pruning": "inside a prune: a checkpoint half deleted",
    "loss": "the loss of a micro-batch",
    "gradient": "the gradient of a micro-batch",
}
EVERY = -1  # any step
SMALL = 100_000  # bytes that a file may have on a full disk


class Fault(NamedTuple):
    """WHAT is a signal's name (KILL, STOP, TERM, ...) that the process sends itself, or one of DEEDS; or, at loss and
    gradient, nan or inf. DELAY: ms between the point and the deed, while the process goes on."""

    what: str
    point: str
    step: int = EVERY
    rank: int = 0
    delay: float = 0.0

    def __str__(self) -> str:
        return f"{self.what}@{self.point}:{self.step}:{self.rank}:{self.delay:g}"

    @classmethod
    def parse(cls, text: str) -> "Fault":
        what, rest = text.split("@")
        point, *numbers = rest.split(":")
        assert point in POINTS, text
        return cls(what, point, *(kind(n) for kind, n in zip((int, int, float), numbers, strict=False)))


class Trace:
    """A folder that outlives the processes; many write to it, whole lines each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "trace.jsonl"

    def tell(self, event: str, **facts: Any) -> None:
        rank = int(os.environ.get("RANK", 0))
        attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        line = {"time": time.time(), "event": event, "pid": os.getpid(), "rank": rank, "attempt": attempt} | facts
        durable.append(self.path, json.dumps(line).encode() + b"\n")

    def told(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [told for told in map(json.loads, lines) if event in (None, told["event"])]

    def forget(self, event: str) -> None:
        """What was told of such events."""
        rest = [json.dumps(told) + "\n" for told in self.told() if told["event"] != event]
        self.path.write_text("".join(rest))

    def first(self, fault: Fault) -> bool:
        """Whether the fault has not struck yet; from now on it has."""
        try:
            (self.folder / f"struck-{fault}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def arm(faults: list[Fault], trace: Trace) -> None:
    """Wraps the functions that the points name, in this process, for good."""
    own = [fault for fault in faults if fault.rank == int(os.environ.get("RANK", 0))]
    striker = Striker(own, trace)
    _after(loop, "_update", lambda s, step, *_: trace.tell("update", step=step))
    _before(loop, "_update", lambda s, step, *_: striker.at("step", step))
    _before(checkpoint, "_fill", lambda part, _: striker.at("saving", _step(part)))
    _after(checkpoint, "_fill", lambda part, _: striker.at("filled", _step(part)))
    _after(checkpoint, "save_file", lambda _, path: striker.at("weights", _step(path)))
    _after(durable, "write_manifest", lambda part: striker.at("manifest", _step(part)))
    _after(durable, "publish", lambda _, final: trace.tell("saved", step=_step(final)))
    _after(durable, "publish", lambda _, final: striker.at("renamed", _step(final)))
    _before(shutil, "rmtree", lambda path, *_, **__: _half_deleted(Path(path), striker))
    LM.step = _poisoned(LM.step, [fault for fault in own if fault.point in ("loss", "gradient")], trace)
    logging.getLogger("mhcnb").addHandler(_Warned(trace))


class Striker:
    """Does what the faults of this rank say, each at its point."""

    def __init__(self, faults: list[Fault], trace: Trace) -> None:
        self.faults, self.trace = faults, trace

    def at(self, point: str, step: int) -> None:
        for fault in self.faults:
            if fault.point != point or fault.step not in (step, EVERY):
                continue
            if fault.what == "slow":
                time.sleep(fault.delay / 1000)
            elif self.trace.first(fault):
                delayed = threading.Timer(fault.delay / 1000, self.strike, (fault, step))
                delayed.daemon = True
                delayed.start() if fault.delay else self.strike(fault, step)

    def strike(self, fault: Fault, step: int) -> None:
        self.trace.tell("fault", fault=str(fault), step=step)
        if fault.what in DEEDS:
            DEEDS[fault.what](self.trace)
        else:
            os.kill(os.getpid(), signal.Signals[f"SIG{fault.what}"])


def _full(_: Trace) -> None:
    """No file beyond SMALL bytes, as on a disk that takes a metric line but no checkpoint."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))


def _free(_: Trace) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _hang(_: Trace) -> None:
    """In Python, unlike STOP: this process can still say where it stands."""
    time.sleep(3600)


def _wait(trace: Trace) -> None:
    """Until somebody makes the file `go` in the trace."""
    while not (trace.folder / "go").exists():
        time.sleep(0.01)


def _raise(_: Trace) -> None:
    raise ValueError("injected")


DEEDS: dict[str, Callable[[Trace], None]] = {
    "full": _full, "free": _free, "hang": _hang, "wait": _wait, "raise": _raise,
}  # fmt: skip


def _poisoned(step: Callable, faults: list[Fault], trace: Trace) -> Callable:
    """LM.step whose loss, or whose gradient alone, is not finite: as often as that step is done, as bad data would."""

    def poisoned(self, model, batch, carry, clock):
        out = step(self, model, batch, carry, clock)
        for fault in faults:
            if fault.step == clock.step:
                if trace.first(fault):
                    trace.tell("fault", fault=str(fault), step=clock.step)
                factor = float(fault.what)
                if fault.point == "loss":
                    out = out._replace(loss_sum=out.loss_sum * factor)
                else:
                    out.loss_sum.register_hook(lambda gradient, factor=factor: gradient * factor)
        return out

    return poisoned


class _Warned(logging.Handler):
    """What the product says at level WARNING and above, with the time."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self.trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        self.trace.tell("warning", text=record.getMessage())


def _half_deleted(path: Path, striker: Striker) -> None:
    if path.name.startswith(".gone-"):
        if any(fault.point == "pruning" for fault in striker.faults):
            next(path.glob("o*"), path / "none").unlink(missing_ok=True)
        striker.at("pruning", _step(path))


def _step(path: Path) -> int:
    found = re.search(r"step-(\d{8})", str(path))
    return int(found[1]) if found else EVERY - 1


def _before(owner: Any, name: str, do: Callable) -> None:
    function = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        do(*args, **kwargs)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, do: Callable) -> None:
    function = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        do(*args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def run(folder: Path, faults: list[Fault], args: list[str]) -> None:
    """The command line with these faults; leaves as it does, and the trace says how."""
    trace, end = Trace(folder), "returned"
    torch.set_num_threads(1)
    arm(faults, trace)
    trace.tell("begin")
    try:
        command_line(args)
    except SystemExit as leaving:
        end = f"exit {leaving.code or 0}"
        raise
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"
        raise
    finally:
        trace.tell("end", how=end)


if __name__ == "__main__":
    mark = sys.argv.index("--")
    run(Path(sys.argv[1]), [Fault.parse(text) for text in sys.argv[2:mark]], sys.argv[mark + 1 :])
