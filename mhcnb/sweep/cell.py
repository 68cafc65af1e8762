"""One notebook in one process of its own: papermill changes process-wide state, so each process runs one.

The process reads its job from its standard input and ends at once when that is closed: when the driver is gone,
however it ended, its workers follow, and then their kernels, which watch their parent.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mhcnb.errors import MhcnbError


class Ending(NamedTuple):
    """What a worker left: no error, or one in words. `died`: its process or its kernel was killed."""

    error: str = ""
    died: bool = False


class Worker:
    """The driver's side: a notebook that runs. What the process and its kernel print goes to `log`."""

    def __init__(self, notebook: Path, output: Path, parameters: dict[str, Any], log: Path, threads: int | None = None):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, job = log, dict(notebook=str(notebook), output=str(output), parameters=parameters)
        env = os.environ | {"MHCNB_HEADLESS": "1"}  # the driver itself may have been started in JupyterLab
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
        with suppress(BrokenPipeError):  # it ended at once: `ending` tells
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

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

    def kill(self) -> None:
        """Ends it now; its kernel follows within two seconds."""
        self.process.kill()


def main() -> None:
    """The worker's side: one job, one line of JSON as answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a kernel inherits standard output: its words are for the log
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_driver, daemon=True).start()
    from mhcnb.notebook.execute import KernelDied, execute

    ending = Ending()
    try:
        execute(Path(job["notebook"]), Path(job["output"]), job["parameters"])
    except MhcnbError as error:
        ending = Ending(str(error), isinstance(error, KernelDied))
    json.dump(ending._asdict(), answers)
    answers.close()


def _end_with_driver() -> None:
    while os.read(0, 1):  # the driver writes nothing more: this returns when its end is closed
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
