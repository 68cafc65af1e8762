"""What can happen to a run, a function a kind: it makes one trial and returns its row."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mhcnb.durable import MANIFEST
from mhcnb.training.saver import FAILURES

from ..training.two_nodes import two_nodes
from .inject import EVERY, Fault
from .rows import Row
from .trial import INTERVAL, STEPS, Lab

INSIDE = ("saving", "weights", "filled", "manifest")
SAVES = (4, 6, 8, 12, 16)  # by count, and the best of the evaluations
SLOW = [Fault("slow", "step", EVERY, rank, 30.0) for rank in range(2)]  # so that there is time for a signal
REFUSED = 2  # exit code of an error in words


def kill_any_moment(lab: Lab, connection: str, ranks: int = 1) -> Row:
    """-9 to all processes at a moment of the run's whole time."""
    trial = lab.trial("kill -9, any moment", "any", connection, ranks)
    job = trial.start()
    moment = job.began + trial.rng.uniform(0, trial.seconds)
    while job.poll() and time.time() < moment:
        time.sleep(0.001)
    if job.poll():
        trial.struck("KILL")
        job.kill()
    if -signal.SIGKILL in job.wait():
        return trial.finish()
    shutil.rmtree(trial.folder)  # it was over before, or ended just then: no trial
    return kill_any_moment(lab, connection, ranks)


def kill_at(lab: Lab, fault: str, connection: str, point: str, ranks: int = 1, delay: float = 0.0) -> Row:
    """-9 to rank 0 at a named point of a save, at most `delay` ms later; the other ranks end by themselves."""
    trial = lab.trial(fault, point, connection, ranks)
    step = EVERY if point == "pruning" else trial.rng.choice(SAVES[:-1] if delay else SAVES)
    codes = trial.start(Fault("KILL", point, step, 0, trial.rng.uniform(0, delay))).wait()
    trial.demand(codes == [-signal.SIGKILL] + [REFUSED] * (ranks - 1), f"the ranks ended with {codes}")
    half_written = list((trial.path / "checkpoints").glob(".step-*"))
    if point in INSIDE and not half_written:
        trial.demand(delay, "the save was over")
        trial.row.fault, trial.row.point = "kill -9, any moment", "just after a save"
    return trial.finish()


def asked(lab: Lab, name: str, connection: str, ranks: int = 1, launched: bool = False) -> Row:
    """A signal to one process (with two ranks: rank 1), or to the launcher."""
    trial = lab.trial(f"{name} to the {'launcher' if launched else 'process'}", "step", connection, ranks, launched)
    if launched:
        job = trial.start(*SLOW)
        trial.await_update(trial.rng.randrange(3, 9))
        trial.struck(name)
        job.send(signal.Signals[name])
        job.wait()
        trial.trace.tell("noticed")  # ranks under torchrun leave without a word
    else:
        step = trial.rng.randrange(1, STEPS)
        codes = trial.start(Fault(name.removeprefix("SIG"), "step", step, ranks - 1)).wait()
        trial.demand(codes[-1] == 130, f"the ranks ended with {codes}")
        trial.demand(trial.run.status()["step"] == step, f"asked at step {step}, stopped after another")
    trial.demand_status("stopped", f"asked by {name}" if launched or ranks == 1 else "asked on another rank")
    return trial.finish()


def lost_rank(lab: Lab, connection: str, rank: int, what: str = "KILL") -> Row:
    """One of two ranks ends in the middle; the launcher starts both again, once."""
    fault = {"KILL": f"kill -9 of rank {rank}, torchrun", "raise": "exception on a rank, torchrun"}[what]
    trial = lab.trial(fault, "step", connection, 2, launcher=True)
    codes = trial.start(Fault(what, "step", trial.rng.randrange(2, STEPS), rank)).wait()
    attempts = max(told["attempt"] for told in trial.trace.told())
    trial.demand((codes, attempts) == ([0], 1), f"torchrun ended with {codes} after {attempts} restarts")
    return trial.finish()


def lost_launcher(lab: Lab, connection: str) -> Row:
    """-9 to torchrun; its ranks must be gone at once."""
    trial = lab.trial("kill -9 of the launcher", "any", connection, 2, launcher=True)
    job = trial.start(*SLOW)
    trial.await_update(trial.rng.randrange(3, 9))
    trial.struck("KILL")
    job.send(signal.SIGKILL)
    trial.await_that(lambda: not job.left(), 20)
    trial.trace.tell("noticed")
    job.wait()
    return trial.finish()


def hang(lab: Lab, connection: str, what: str) -> Row:
    """STOP: rank 1 is stopped and says nothing. hang: it sleeps; both leave their stacks."""
    name = {"STOP": "hang: rank 1 stopped", "hang": "hang: rank 1 asleep"}[what]
    trial = lab.trial(name, "step", connection, 2, launcher=True)
    trial.sign = "nothing has ended for"
    job = trial.start(Fault(what, "step", trial.rng.randrange(2, STEPS), 1), given=["train.timeout_s=8"])
    codes = job.wait(240)
    attempts = max(told["attempt"] for told in trial.trace.told())
    trial.demand((codes, attempts) == ([0], 1), f"torchrun ended with {codes} after {attempts} restarts")
    for rank in (0, 1) if what == "hang" else (0,):
        log = (trial.path / "logs" / f"rank{rank}.log").read_text()
        trial.demand("most recent call first" in log, f"no stacks of rank {rank}")
    return trial.finish()


def full_disk(lab: Lab, connection: str, passing: bool) -> Row:
    """A limit on the size of files. `passing`: space again after one save, and the run goes on; else it ends."""
    trial = lab.trial("disk full for a while" if passing else "disk full", "step", connection)
    trial.sign, trial.bound = "cannot save", (FAILURES + 1) * INTERVAL
    first, last = trial.rng.choice([(7, 12), (11, 16)])  # the save at 8 or 12, perhaps one before that, fails
    faults = [Fault("full", "step", first), *([Fault("free", "step", last)] if passing else [])]
    codes = trial.start(*faults).wait()
    trial.demand(codes == [0 if passing else REFUSED], f"ended with {codes}")
    trial.demand_status(*(("done",) if passing else ("failed", "Free some space")))
    return trial.finish()


class Skipped(Exception):
    """This machine does not let us make the fault; why."""


@contextmanager
def mounted(*args: object) -> Iterator[None]:
    """mount ARGS, the last of which is the place. Raises Skipped where one may not."""
    try:
        subprocess.run(["mount", *map(str, args)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skipped(f"needs mount: {str(getattr(error, 'stderr', None) or error).strip()}") from None
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(args[-1])], check=True, capture_output=True)


def full_filesystem(lab: Lab, connection: str) -> Row:
    """Somebody else fills the file system, but for 64 kB, and goes away before the run goes on. Root."""
    trial = lab.trial("file system full", "step", connection)
    trial.sign, trial.bound = "cannot save", (FAILURES + 1) * INTERVAL
    disk = trial.folder / "disk"
    disk.mkdir()
    trial.path = disk / "run"
    with mounted("-t", "tmpfs", "-o", "size=20m", "tmpfs", disk):
        job = trial.start(Fault("wait", "step", 9))
        trial.await_update(8)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 64_000))
        trial.struck("full")
        trial.go()
        codes = job.wait()
        trial.demand(codes == [REFUSED], f"ended with {codes}")
        trial.demand_status("failed", "Free some space")
        (disk / "filler").unlink()
        return trial.finish()


def read_only(lab: Lab, connection: str) -> Row:
    """The run folder turns read-only in the middle. Root, which no mode would keep from writing."""
    trial = lab.trial("folder turned read-only", "step", connection)
    job = trial.start(Fault("wait", "step", trial.rng.randrange(5, STEPS)))
    trial.await_that(lambda: bool(trial.trace.told("fault")), 30)
    with mounted("--bind", trial.path, trial.path):
        remount = ["mount", "-o", "remount,ro,bind", str(trial.path)]  # refused while a save is being written
        trial.await_that(lambda: subprocess.run(remount, capture_output=True).returncode == 0, 30)
        trial.struck("read-only")
        trial.go()
        codes = job.wait()
        trial.demand(codes == [REFUSED], f"ended with {codes}")
        refused = trial.resume()
        trial.demand(refused.wait() == [REFUSED], "a read-only folder was resumed")
    said = (trial.folder / "log.txt").read_text()
    trial.demand("Read-only file system" in said, "no word about a read-only file system")
    trial.row.restarts += 1
    return trial.finish()


def flipped_bit(lab: Lab, connection: str) -> Row:
    """One bit of the newest of two or more checkpoints, before the run goes on."""
    trial = lab.trial("bit flipped in a checkpoint", "any file", connection)
    trial.start(Fault("KILL", "step", trial.rng.randrange(9, STEPS))).wait()
    trial.sign = "set aside as"
    newest = trial.run.last_checkpoint()
    file = trial.rng.choice(sorted(newest.iterdir()))
    whole = bytearray(file.read_bytes())
    place, bit = trial.rng.randrange(len(whole)), trial.rng.randrange(8)
    harmless = file.name == MANIFEST and chr(whole[place]).isspace()  # may still be the same JSON
    whole[place] ^= 1 << bit
    file.write_bytes(whole)
    trial.row.point = file.name
    trial.sign = "" if harmless else trial.sign
    trial.trace.forget("fault")  # the kill is not what this trial is about
    trial.bound += INTERVAL
    trial.struck(f"flip {file.name}:{place}:{bit}")
    trial.row.restarts += 1
    trial.resume().wait()
    found = newest.with_name(f"bad-{newest.name}").exists()
    trial.demand(found or harmless, f"bit {bit} of byte {place} of {file.name} was not found")
    return trial.finish()


def poison(lab: Lab, connection: str, what: str, point: str, launched: bool = False) -> Row:
    """A loss or a gradient that is not finite, on rank 1 of 2. No rank updates."""
    trial = lab.trial(f"{what} in a {point} on rank 1", point, connection, 2, launched)
    step = trial.rng.randrange(6, STEPS)
    job = trial.start(Fault(what, point, step, 1), **({"restarts": 1} if launched else {}))
    codes = job.wait()
    trial.demand(all(codes), f"the ranks ended with {codes}")
    trial.demand_status("diverged", "from rank 1, rows 2-3 of the global batch")
    status = trial.run.status()
    saved = [folder.name for folder in trial.run.checkpoints()]
    named = re.search(r"last good checkpoint: ([\w-]+)", status["reason"])
    trial.demand(status["step"] == step, f"diverged at step {step}, status.json says {status['step']}")
    trial.demand(named and named[1] in saved, f"{saved} are there, {status['reason']}")
    trial.demand((trial.path / "diverged.json").exists(), "no diverged.json")
    made = max((told["step"] for told in trial.trace.told("update")), default=0)
    trial.demand(made == step - 1, f"an update was made at step {made}")
    return trial.finish()


def two_writers(lab: Lab, connection: str) -> Row:
    """A second process wants the same folder, by either command, while the first one trains."""
    trial = lab.trial("a second writer", "step", connection)
    first = trial.start(Fault("wait", "step", trial.rng.randrange(5, STEPS)))
    trial.await_that(lambda: bool(trial.trace.told("fault")), 30)
    trial.await_that(lambda: not list((trial.path / "checkpoints").glob(".*")), 30)  # its own last save is over
    trial.struck("second writer")
    before = _contents(trial.path)
    for second in (trial.resume(), trial.start()):
        trial.demand(second.wait() == [REFUSED], "the second writer was let in")
    trial.demand(_contents(trial.path) == before, "the second writer changed something")
    said = (trial.folder / "log.txt").read_text()
    trial.demand(f"is being written by process {first.pids[0]}" in said, "the second writer was not told by whom")
    trial.go()
    trial.demand(first.wait() == [0], "the first writer did not end well")
    return trial.finish()


def _contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def cut_link(lab: Lab, connection: str, seconds: float) -> Row:
    """The cable between two nodes is pulled, and plugged in again after a while. Root."""
    trial = lab.trial(f"link of two nodes cut for {seconds:g} s", "any", connection, 2)
    faults = [Fault("slow", "step", EVERY, rank, 100.0) for rank in range(2)]
    given = ["train", lab.params(connection), "train.timeout_s=8", "--out", trial.path]
    try:
        with two_nodes() as nodes:
            began = time.time()
            processes = nodes.start(*given, max_restarts=3, cwd=trial.folder, program=trial.command(*faults))
            trial.await_update(2 * INTERVAL + 2)
            nodes.cut()
            trial.struck("cut")
            time.sleep(seconds)
            nodes.heal()
            codes = [process.wait(180) for process in processes]
    except pytest.skip.Exception as without:
        raise Skipped(without) from None
    trial.jobs.append(_Nodes(began))
    trial.demand(codes == [0, 0], f"the launchers ended with {codes}")
    return trial.finish()


class _Nodes:
    """A job whose processes are gone with their nodes."""

    def __init__(self, began: float) -> None:
        self.began = began

    def left(self) -> list[int]:
        return []

    def kill(self) -> None:
        pass
