"""The catalogue of bad input: each row by the door a user would use, refused in words, with nothing changed.

The id of a case, or the name of a test, begins with its row: `pytest tests/bad_input -k row03`.
"""

from contextlib import contextmanager

import pytest
import torch
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.run import Run
from mhcnb.training.loop import train_steps

# taking a device, meeting other processes, building a model
SLOW = (
    (torch.accelerator, "set_device_index"),
    (torch.distributed, "init_process_group"),
    (torch.nn.Module, "__init__"),
)


def tree(folder):
    """{path: (time of change, content)} of all files and folders below; of locks, which hold nothing, only that."""
    return {
        str(path.relative_to(folder)): path.name == ".lock"
        or (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def unchanged(tmp_path):
    """with unchanged(): nothing under the test's folder is made, removed, renamed or written meanwhile."""

    @contextmanager
    def watch(folder=tmp_path):
        before = tree(folder)
        yield
        assert tree(folder) == before

    return watch


@pytest.fixture
def mhcnb(tmp_path, monkeypatch):
    """mhcnb("train", path, ...): the command line, in this process and in the test's folder; click's result."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run


@pytest.fixture
def refused(mhcnb, unchanged, monkeypatch):
    """refused(DataError, "train", path, ..., says=[...]): the command ends with status 2 and a message that begins
    with the error's name and holds each text of `says`; nothing was changed, and nothing slow begun (but for building
    a model, where `model`). The message."""

    def run(kind, *args, says, model=False):
        with unchanged(), monkeypatch.context() as forbidden:
            for owner, name in SLOW[: -1 if model else None]:
                forbidden.setattr(owner, name, lambda *_, name=name, **__: pytest.fail(f"{name} before the refusal"))
            done = mhcnb(*args)
        assert done.exit_code == 2, done.output or done.exception
        name, _, said = done.stderr.partition(": ")
        assert name == kind.__name__, done.stderr
        assert [text for text in says if text not in said] == [], said
        return said.strip()

    return run


@pytest.fixture
def train_to(small):
    """train_to(3, out, **overrides): a training after its third step, to be gone on with; closed after the test."""
    opened = []

    def start(step, out, **overrides):
        opened.append(train_steps(small(**overrides), out))
        while next(opened[-1]).step < step:
            pass
        return opened[-1]

    yield start
    for steps in opened:
        steps.close()


@pytest.fixture
def begun(train_to, params, tmp_path):
    """A run of 8 steps, closed after the sixth, with checkpoints at 2, 4 and 6; its params file is small.yaml."""
    config = {"train.steps": 8, "train.save_every": 2}
    params(**config)
    train_to(6, tmp_path / "run", **config).close()
    return Run(tmp_path / "run")
