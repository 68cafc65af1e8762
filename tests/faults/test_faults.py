"""The short set of faults, and that the oracle that judges them sees what is wrong. `make faults`: the long set."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mhcnb import durable
from mhcnb.run import Run
from mhcnb.training.checkpoint import OPTIMIZER, STATE, WEIGHTS
from mhcnb.training.loop import train

from . import rows
from .oracle import judge
from .rows import SKIPPED, SURVIVED, Row

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """The rows of the short set. In a process of its own: a fork of this one would have its threads' locks."""
    path = tmp_path_factory.mktemp("faults") / "rows.jsonl"
    command = [sys.executable, "-m", "tests.faults", "short", "--rows", str(path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False, timeout=240)
    return rows.read(path)


def test_every_run_survives_and_ends_as_the_undisturbed_one(trials):
    assert {row.fault: row.outcome for row in trials if row.outcome != SURVIVED} == {}
    assert len(trials) == 15
    assert all(row.bit_equal and not row.torn and not row.doubled for row in trials)


def test_the_short_set_has_every_point_and_every_method(trials):
    killed = [row for row in trials if row.fault.startswith("kill -9")]
    assert len(killed) == 12
    assert {row.point for row in killed} >= {"any", "saving", "weights", "filled", "manifest", "renamed", "pruning"}
    assert len({row.connection for row in killed}) == 7


def test_a_killed_rank_is_back_at_the_first_restart(trials):
    (row,) = [row for row in trials if row.fault.endswith("torchrun")]
    assert (row.ranks, row.restarts) == (2, 1)
    assert row.detected_s < row.recovered_s


# the oracle -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def run(small, whole, tmp_path):
    """A run that equals the undisturbed one `whole`, to be spoilt."""
    if not whole.exists():
        train(small(**{"train.steps": 4, "train.save_every": 2}), whole)
    shutil.copytree(whole, tmp_path / "run")
    return Run(tmp_path / "run")


def in_manifest(folder):
    """A wrong file is none that was damaged later: the oracle alone may see it."""
    (folder / durable.MANIFEST).unlink()
    durable.write_manifest(folder)


def other_weights(run):
    path = run.last_checkpoint() / WEIGHTS
    weights = load_file(path)
    tensor = next(iter(weights.values()))
    tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], torch.tensor(9.0))
    save_file(weights, path)
    in_manifest(path.parent)


def other_moment(run):
    path = run.last_checkpoint() / OPTIMIZER
    state = torch.load(path, weights_only=True)
    state["state"][0]["exp_avg"].view(-1)[0] += 1e-3
    torch.save(state, path)
    in_manifest(path.parent)


def other_random_state(run):
    path = run.last_checkpoint() / STATE
    state = json.loads(path.read_text())
    state["rng"] = []
    path.write_text(json.dumps(state))
    in_manifest(path.parent)


def edited(change):
    """The lines of results.jsonl changed."""

    def spoil(run):
        lines = run.records.path.read_text().splitlines(keepends=True)
        change(lines)
        run.records.path.write_text("".join(lines))

    return spoil


def other_loss(lines):
    record = json.loads(lines[2])
    lines[2] = json.dumps(record | {"loss": record.get("loss", 0.0) + 1e-7}) + "\n"


SPOILT = {
    "weights differ": other_weights,
    "optimizers differ": other_moment,
    "state.json differs in rng": other_random_state,
    "2 records, not the": edited(lambda lines: lines.__delitem__(slice(2, None))),
    "records, not the": edited(other_loss),
    "1 doubled lines": edited(lambda lines: lines.insert(3, lines[2])),
    "1 torn lines": edited(lambda lines: lines.append(lines[-1][:9])),
    "left over: .step-00000004": lambda run: (run.path / "checkpoints" / ".step-00000004").mkdir(),
    "status.json says": lambda run: run.set_status("running", 4),
    "its contents have changed": lambda run: (run.checkpoints()[0] / OPTIMIZER).write_bytes(
        random.Random(0).randbytes((run.checkpoints()[0] / OPTIMIZER).stat().st_size)
    ),
    "last checkpoint step-00000002": lambda run: shutil.rmtree(run.last_checkpoint()),
}


def test_equal_runs_pass_the_oracle(run, whole):
    assert judge(run.path, whole) == (True, 0, 0, ())


@pytest.mark.parametrize("words", SPOILT)
def test_the_oracle_sees_what_is_wrong(run, whole, words):
    SPOILT[words](run)
    assert words in "; ".join(judge(run.path, whole).wrong)


def test_the_table_counts(tmp_path):
    """Two of three survived, one was skipped, one of two known ends bit-equal; medians and maxima of the times."""
    path = tmp_path / "rows.jsonl"
    for outcome, equal, seconds, lost in ((SURVIVED, True, 1.0, 3), ("lost", False, 4.0, 0), (SURVIVED, None, None, 5)):
        rows.append(path, Row("a fault", "step", 1, "hc", 0, 0.5, seconds, 2.0, lost, bit_equal=equal, outcome=outcome))
    rows.append(path, Row("a fault", "step", 1, "hc", 0, outcome=f"{SKIPPED}not here"))
    rows.append(path, Row("another", "step", 2, "hc", 0, torn=1, doubled=1, bit_equal=True, outcome=SURVIVED))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows.table(rows.read(path)).splitlines()]
    assert cells[2] == ["a fault", "3 (1 skipped)", "2", "1 of 2", "0", "2.50 / 4.00", "2.00 / 2.00", "5"]
    assert cells[3] == ["another", "1", "1", "1 of 1", "2", "-", "-", "-"]
    assert cells[4][:5] == ["all", "4 (1 skipped)", "3", "2 of 3", "2"]
