"""Trainings that can be killed: forked from a process that has imported everything, or under torchrun."""

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch._dynamo  # a first optimizer would, in every child

from mhcnb import registry
from mhcnb.training.rank import die_with_parent

from .inject import Fault, run

INJECT = Path(__file__).with_name("inject.py")
POLL_S = 0.002


def preload() -> None:
    """Imports what a training will, here, so that no child needs to; and starts no thread, for none would be there
    after a fork."""
    torch.set_num_threads(1)
    for axis in registry.AXES:
        for name in registry.entries(axis):
            registry.load(axis, name)


class Forked:
    """`ranks` children of this process, each the command line with faults; they meet without a launcher."""

    def __init__(self, trace: Path, faults: Sequence[Fault], args: Sequence[str], log: Path, ranks: int = 1) -> None:
        self.began = time.time()
        environments = _environments(ranks)
        self.codes: dict[int, int] = {}
        self.pids = [_fork(trace, list(faults), list(args), log, environment) for environment in environments]

    def poll(self) -> bool:
        """Whether any still runs."""
        for pid in set(self.pids) - self.codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.codes[pid] = os.waitstatus_to_exitcode(status)
        return len(self.codes) < len(self.pids)

    def wait(self, seconds: float = 60.0) -> list[int]:
        """The exit codes by rank, -9 for a killed one. Raises TimeoutError, and then nothing runs any more."""
        deadline = time.monotonic() + seconds
        while self.poll():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"not ended after {seconds:g} s")
            time.sleep(POLL_S)
        return [self.codes[pid] for pid in self.pids]

    def send(self, number: signal.Signals) -> None:
        """To all ranks."""
        for pid in set(self.pids) - self.codes.keys():
            os.kill(pid, number)

    def kill(self) -> None:
        """-9 to all that still run, and waits."""
        self.poll()
        self.send(signal.SIGKILL)
        while self.poll():
            time.sleep(POLL_S)

    def left(self) -> list[int]:
        """Processes that should not be there any more."""
        return [pid for pid in self.pids if self.poll() and pid not in self.codes]


class Launched:
    """torchrun with ranks that have faults. All its processes carry a mark by which those left over are found."""

    def __init__(
        self, trace: Path, faults: Sequence[Fault], args: Sequence[str], log: Path, ranks: int = 2, restarts: int = 3
    ) -> None:
        self.began, self.mark, self.log = time.time(), f"MHCNB_TRIAL={uuid.uuid4().hex}", log
        signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"),
            *(f"--max-restarts={restarts}", f"--signals-to-handle={signals}", str(INJECT), str(trace)),
            *map(str, faults), "--", *args,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict([self.mark.split("=")])
        with log.open("a") as said:
            self.process = subprocess.Popen(
                command, env=environment, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def poll(self) -> bool:
        """Whether the launcher still runs."""
        return self.process.poll() is None

    def wait(self, seconds: float = 120.0) -> list[int]:
        """[the launcher's exit code]. Raises TimeoutError, and then nothing runs any more."""
        try:
            return [self.process.wait(seconds)]
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"not ended after {seconds:g} s") from None

    def send(self, number: signal.Signals) -> None:
        """To the launcher alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """-9 to launcher and ranks."""
        for pid in self.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def left(self) -> list[int]:
        """Processes that carry the mark, the launcher among them while it runs."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()  # empty for a zombie
        except OSError:
            return False
        return self.mark.encode() in environment.split(b"\0")


def _environments(ranks: int) -> list[dict[str, str]]:
    if ranks == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": str(ranks)}
    return [meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _fork(trace: Path, faults: list[Fault], args: list[str], log: Path, environment: dict[str, str]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        die_with_parent()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.update(environment)
        said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        for stream in (1, 2):
            os.dup2(said, stream)
        run(trace, faults, args)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return 0
