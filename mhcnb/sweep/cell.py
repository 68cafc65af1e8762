"""One notebook in one process of its own: papermill changes process-wide state, so each process runs one.

The process reads its job from its standard input and ends at once when that is closed: when the one that started it (a
driver, a dask worker) is gone, however it ended, it follows, and then its kernel, which watches its parent.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mhcnb.errors import MhcnbError

if TYPE_CHECKING:  # a worker needs no plan, and so no torch: it starts in half the time
    from mhcnb.sweep.plan import Cell

LOG = "logs/cell.log"


class Ending(NamedTuple):
    """What a worker left: no error, or one in words. `died`: its process or its kernel was killed."""

    error: str = ""
    died: bool = False


class Job(NamedTuple):
    """What to run, in plain data: another host may run it. What its process and its kernel print goes to `log`."""

    notebook: str
    output: str
    parameters: dict[str, Any]
    log: str

    @classmethod
    def of(cls, cell: "Cell") -> "Job":
        """A cell's notebook, in the folder of its run."""
        return cls(str(cell.notebook), str(cell.out / "notebook.ipynb"), cell.parameters, str(cell.out / LOG))


class Worker:
    """The starter's side: a notebook that runs, on so many threads a rank and on those devices alone, if any are named
    (as in CUDA_VISIBLE_DEVICES)."""

    def __init__(self, job: Job, threads: int | None = None, devices: str | None = None) -> None:
        self.log = log = Path(job.log)
        log.parent.mkdir(parents=True, exist_ok=True)
        env = os.environ | {"MHCNB_HEADLESS": "1"}  # the starter itself may have been started in JupyterLab
        env |= {"CUDA_VISIBLE_DEVICES": devices} if devices is not None else {}
        if threads:
            env.setdefault("OMP_NUM_THREADS", str(threads))
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mhcnb.sweep.cell"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=env,
                start_new_session=True,  # Ctrl-C in the terminal is for the driver alone
            )
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it ended at once: `poll` tells
            self.process.stdin.write(json.dumps(job._asdict()).encode() + b"\n")
            self.process.stdin.flush()
        self.facts = {"pid": self.process.pid, "host": socket.gethostname()}

    def poll(self) -> Ending | None:
        """None while it runs."""
        if self.process.poll() is None:
            return None
        assert self.process.stdin
        assert self.process.stdout
        said = self.process.stdout.read()
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        if said:
            return Ending(**json.loads(said))
        return Ending(f"its process ended with status {self.process.returncode}; see {self.log}", died=True)

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Ends it now; its kernel follows within two seconds."""
        self.process.kill()


def main() -> None:
    """The process's side: one job, one line of JSON as answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a kernel inherits standard output: its words are for the log
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_starter, daemon=True).start()
    from mhcnb.notebook.execute import KernelDied, execute

    ending = Ending()
    try:
        execute(Path(job["notebook"]), Path(job["output"]), job["parameters"])
    except MhcnbError as error:
        ending = Ending(str(error), isinstance(error, KernelDied))
    json.dump(ending._asdict(), answers)
    answers.close()


def _end_with_starter() -> None:
    while os.read(0, 1):  # the starter writes nothing more: this returns when its end is closed
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
