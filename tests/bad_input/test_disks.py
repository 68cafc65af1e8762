"""Rows 50-52: folders that take nothing, and disks that are full for a while."""

import errno
import os
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from mhcnb.durable import verify
from mhcnb.errors import RunError
from mhcnb.run import Run
from mhcnb.training import checkpoint
from mhcnb.training.loop import train

resource = pytest.importorskip("resource", reason="limits of file size are POSIX")


@contextmanager
def full(size):
    """No file may grow beyond `size` bytes: what the kernel then says is dealt with as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_row50_a_file_in_the_way(refused, params, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/run"):
        says = [f"cannot write to {out}: ", "(errno ", "give another --out"]
        refused(RunError, "train", params(), "--out", out, says=says, model=True)


def refuse(number):
    def raising(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return raising


REFUSALS = {  # root is refused nothing, so the calls are
    "row50 read-only": (os, "mkdir", errno.EROFS),
    "row50 not allowed": (os, "mkdir", errno.EACCES),
    "row50 full": (Path, "write_bytes", errno.ENOSPC),
}


@pytest.mark.parametrize(("owner", "name", "number"), REFUSALS.values(), ids=REFUSALS)
def test_a_folder_that_cannot_be_written(refused, params, monkeypatch, owner, name, number):
    path = params()
    monkeypatch.setattr(owner, name, refuse(number))
    says = [f"cannot write to run: {os.strerror(number)} (errno {number}); give another --out"]
    refused(RunError, "train", path, "--out", "run", says=says, model=True)


@pytest.fixture
def full_at(monkeypatch):
    """full_at(steps): the disk is full while checkpoints of these steps are written, whenever their thread gets to."""
    write = checkpoint.write

    def at(steps):
        def writing(run, snapshot):
            with full(20_000) if snapshot.step in steps else nullcontext():
                return write(run, snapshot)

        monkeypatch.setattr(checkpoint, "write", writing)

    return at


def test_row51_a_disk_that_is_full_for_two_saves(full_at, small, tmp_path, caplog):
    """Training goes on, and the save after them is there."""
    run = Run(tmp_path / "run")
    full_at([4, 6])
    train(small(**{"train.steps": 9, "train.save_every": 2}), run.path)
    assert run.status()["state"] == "done"
    assert [folder.name for folder in run.checkpoints()] == ["step-00000002", "step-00000008", "step-00000009"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for step, text in zip((4, 6), told, strict=True):
        assert f"cannot save {run.path}/checkpoints/step-{step:08d}: " in text
        assert os.strerror(errno.EFBIG) in text
        assert "MB are free there. Free some space" in text
        assert "training goes on, the next save is tried in its turn" in text


def test_row51_a_disk_that_stays_full(full_at, small, tmp_path):
    """Three saves in a row: the run ends, its checkpoint is sound, and nothing half-made is left; then it goes on."""
    run = Run(tmp_path / "run")
    config = {"train.steps": 9, "train.save_every": 2, "train.resume": "auto"}
    full_at(range(4, 10))
    with pytest.raises(RunError, match=r"cannot save .*step-00000008: .*MB are free there"):
        train(small(**config), run.path)
    assert run.status()["state"] == "failed"
    assert "cannot save" in run.status()["reason"]
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000002"]
    verify(run.last_checkpoint())
    full_at([])
    train(small(**config), run.path)
    assert run.status()["state"] == "done"
    assert [record["step"] for record in run.results("train")] == list(range(1, 10))


def test_row52_records_wait_for_space_and_none_is_torn_or_lost(train_to, small, tmp_path, caplog):
    train(small(), tmp_path / "undisturbed")
    run = Run(tmp_path / "run")
    steps = train_to(2, run.path)
    written = (run.path / "results.jsonl").read_bytes()
    with full(len(written) + 5):
        while next(steps).step < 5:
            assert (run.path / "results.jsonl").read_bytes() == written
    list(steps)
    told = [record.getMessage() for record in caplog.records if record.name == "mhcnb.records"]
    assert told == [f"{run.path}/results.jsonl: {os.strerror(errno.ENOSPC)}; records wait in memory for space"]
    own, other = (
        [(record["type"], record["step"], record.get("loss"), record.get("val_loss")) for record in found]
        for found in (run.results(), Run(tmp_path / "undisturbed").results())
    )
    assert own == other
