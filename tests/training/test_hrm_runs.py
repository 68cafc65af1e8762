"""The guide's small HRM, begun by its own command: what it records, prints, keeps and costs."""

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.config import load_config, parse_overrides
from mhcnb.run import Run
from mhcnb.sweep.collect import collect, table
from mhcnb.training.footprint import checkpoint_bytes
from mhcnb.training.loggers import scalars_of

from ..faults.oracle import judge
from ..models.test_hrm_names import GUIDE
from .killed import killed_after

SMALL = Path(__file__).parents[2] / "params" / "hrm" / "small.yaml"
# two epochs of 100 puzzles, four at a time: 50 updates
BRIEF = ["epochs=2", "eval_interval=1", "train.eval_batches=2", "log.every=10", "lr_warmup_steps=10", "lr=1e-3"]
GIVEN = [word for word in GUIDE.split() if not word.startswith(("epochs", "eval_interval", "lr="))] + BRIEF


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """(run, what the command printed), and averages of weights beside."""
    folder = tmp_path_factory.mktemp("hrm")
    before = os.environ.get("MHCNB_CACHE")
    os.environ["MHCNB_CACHE"] = str(folder / "cache")
    try:
        words = [*GIVEN, "train.ema=0.9", "checkpoint_every_eval=true", "--out", str(folder / "run")]
        done = CliRunner().invoke(main, ["train", str(SMALL), *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        yield Run(folder / "run"), done.output
    finally:
        os.environ.pop("MHCNB_CACHE")
        os.environ |= {"MHCNB_CACHE": before} if before else {}


def test_its_length_is_in_updates_and_its_loss_begins_near_that_of_a_fresh_model_and_falls(begun):
    run, _ = begun
    assert (run.config.train.epochs, run.config.train.steps, run.config.train.eval_every) == (2, 50, 25)
    assert [record["step"] for record in run.results("eval")] == [0, 25, 50]
    assert [folder.name for folder in run.checkpoints()] == ["step-00000025", "step-00000050"]
    losses = [record["lm_loss"] for record in run.results("train")]
    assert 2.3 < run.results("eval")[0]["val_loss"] < 2.8
    assert losses[-1] < 2.0 < 2.2 < losses[0]


def test_loggers_get_the_originals_names(begun):
    run, _ = begun
    names = {name for record in run.results() for name in scalars_of(record)}
    assert {"train/lm_loss", "train/q_halt_loss", "train/q_continue_loss", "train/lr"} <= names
    assert {"train/exact_accuracy", "train/steps", "eval/exact_accuracy", "eval/blank_accuracy"} <= names


def test_blank_cells_are_told_beside_all_cells_wherever_it_is_summed_up(begun):
    run, said = begun
    last, summary = run.results("eval")[-1], run.summary()
    for name in ("accuracy", "blank_accuracy", "exact_accuracy"):
        assert summary[f"final_{name}"] == last[name]
    words = f"accuracy {last['accuracy']:.1%}, blank accuracy {last['blank_accuracy']:.1%}, exact accuracy "
    assert f"{words}{last['exact_accuracy']:.1%}" in said
    assert summary["final_accuracy"] > summary["final_blank_accuracy"] + 0.1  # the givens are easily copied
    heads, _, row = table(collect([run.path])).splitlines()
    assert "blank cells" in heads
    assert f"{summary['final_blank_accuracy']:.1%}" in row


def test_evaluate_gives_the_figures_of_the_summary(begun, caplog):
    run, _ = begun
    with caplog.at_level("INFO", "mhcnb"):
        done = CliRunner().invoke(main, ["evaluate", str(run.path)], catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["blank_accuracy"] == pytest.approx(run.summary()["final_blank_accuracy"], abs=1e-9)
    assert "perplexity" not in found
    assert f"blank accuracy {found['blank_accuracy']:.1%}" in caplog.text


def test_its_checkpoint_takes_the_space_that_was_said_with_carry_and_averages(begun):
    run, _ = begun
    written = sum(file.stat().st_size for file in run.last_checkpoint().iterdir())
    assert checkpoint_bytes(load_config(SMALL, parse_overrides([*GIVEN, "train.ema=0.9"]))) == pytest.approx(
        written, rel=0.02
    )
    assert (run.last_checkpoint() / "carry.safetensors").stat().st_size > 4 * 2 * 82 * 32 * 4


def test_it_goes_on_to_the_last_bit(begun, tmp_path):
    run, _ = begun
    left = killed_after(run.path, 25, tmp_path / "left")
    torch.manual_seed(torch.seed())
    done = CliRunner().invoke(main, ["train", "--resume", str(left)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert judge(left, run.path).wrong == ()


def test_its_plan_opens_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(main, ["plan", str(SMALL), "--no-measure"], catch_exceptions=False)
    assert "58,114: embeddings 352" in done.output
    assert "12,500 steps of 324" in done.output  # four rows of 81 cells
    assert not (tmp_path / "cache").exists()
