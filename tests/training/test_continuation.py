"""+resume_from_checkpoint goes on, to the last bit, with what it may, starts anew from the weights of all else, and
says which of them it did."""

import logging
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.config import as_dict
from mhcnb.data.shardfile import ShardWriter
from mhcnb.errors import CheckpointError, ConfigError, RunError
from mhcnb.run import Run
from mhcnb.training import launch
from mhcnb.training.continuation import go_on
from mhcnb.training.evaluate import evaluate_run
from mhcnb.training.loop import train
from mhcnb.yamlfile import dump

from ..bad_input.conftest import tree
from ..faults.oracle import judge
from .killed import EVERY_STEP, killed_after

RLM = {**EVERY_STEP, "model.name": "rlm", "model.kv_heads": 1, "model.dropout": 0.2}
RLM |= {"train.schedule": "wsd", "train.connection_lr": 3.0}


@pytest.fixture
def whole(small, tmp_path, caplog):
    """An undisturbed run of rlm with mhc."""
    caplog.set_level(logging.INFO, "mhcnb.training.continuation")
    train(small(**RLM), tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def left(whole, tmp_path):
    """The same, killed after step 5."""
    return killed_after(whole, 5, tmp_path / "left")


def checkpoint(run, step):
    return run / "checkpoints" / f"step-{step:08d}"


def files(run):
    """All there is, but for the time at which somebody looked."""
    return {name: value for name, value in tree(run).items() if name not in (".", ".lock")}


@pytest.mark.parametrize("named", ["the run", "its newest checkpoint"])
def test_what_has_not_changed_goes_on_in_its_run_and_ends_as_the_undisturbed_one(small, whole, left, named, caplog):
    path = left if named == "the run" else checkpoint(left, 5)
    config, out = go_on(small(**RLM), str(path), None)
    assert out == left
    assert f"going on with {left} at step 5, in {left}" in caplog.text
    train(config, out)
    assert judge(left, whole).wrong == ()


def test_in_another_folder_it_goes_on_from_any_checkpoint_and_leaves_the_run_alone(small, whole, tmp_path):
    before = files(whole)
    for source in (checkpoint(whole, 3), shutil.copytree(checkpoint(whole, 3), tmp_path / "alone")):
        config, out = go_on(small(**RLM), str(source), tmp_path / f"from-{source.name}")
        train(config, out)
        verdict = judge(out, whole)
        alone = source.name == "alone"  # what its run had recorded did not come with it
        assert verdict.wrong == () or (alone and all(text.startswith("results.jsonl") for text in verdict.wrong))
    assert files(whole) == before


def test_an_older_checkpoint_is_not_gone_on_with_where_later_ones_would_be_lost(small, whole):
    before = files(whole)
    with pytest.raises(RunError, match=r"not the newest checkpoint of its run.*step-00000008.*another --out"):
        go_on(small(**RLM), str(checkpoint(whole, 3)), None)
    assert files(whole) == before


@pytest.mark.parametrize(
    "free", [{"train.steps": 11}, {"log.every": 2, "train.recompute": "block"}, {"train.eval_every": 4}]
)
def test_what_may_change_on_resume_does_not_keep_it_from_going_on(small, whole, free):
    config, out = go_on(small(**RLM | free), str(whole), None)
    assert (config.train.resume, config.train.weights, out) == ("auto", None, whole)


def test_a_run_that_was_itself_begun_from_weights_goes_on_without_naming_them(small, whole, tmp_path):
    train(small(**RLM, **{"train.weights": str(whole)}), tmp_path / "second")
    config, out = go_on(small(**RLM | {"train.steps": 9}), str(tmp_path / "second"), None)
    assert (config.train.resume, config.train.weights, out) == ("auto", str(whole), tmp_path / "second")
    train(config, out)
    assert Run(out).status()["step"] == 9


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"train.lr": 1e-5}, "train.lr 0.002 -> 1e-05"),
        ({"train.steps": 7}, "train.steps 8 -> 7"),
        ({"train.schedule": "linear", "seed": 2}, "seed 1 -> 2, train.schedule wsd -> linear"),
        ({"connection.iterations": 3}, "connection.iterations 20 -> 3"),
    ],
)
def test_any_other_change_starts_a_new_run_from_the_weights_and_is_named(small, whole, tmp_path, changed, says, caplog):
    config, out = go_on(small(**RLM | changed), str(whole), tmp_path / "new")
    assert (config.train.resume, config.train.weights, out) == ("never", str(whole), tmp_path / "new")
    assert f"a new run from the weights of {checkpoint(whole, 8)}; it cannot be gone on with: {says}" in caplog.text
    assert config == small(**RLM | changed, **{"train.weights": str(whole)})


def test_other_data_start_a_new_run_which_begins_at_the_loss_of_the_old(small, whole, shards, tmp_path, caplog):
    moved = shutil.copytree(shards, tmp_path / "moved")
    assert go_on(small(**RLM, **{"data.root": str(moved)}), str(whole), None)[1] == whole  # the same data elsewhere
    with ShardWriter(moved / "train.bin") as writer:
        writer.append(np.arange(60))
    given = {"data.root": str(moved), "train.lr": 1e-4}
    config, out = go_on(small(**RLM, **{"data.root": str(moved)}), str(whole), tmp_path / "tuned")
    assert "it cannot be gone on with: the data are others" in caplog.text
    train(small(**RLM | given, **{"train.weights": config.train.weights}), out)
    assert Run(out).results("eval")[0]["val_loss"] == Run(whole).results("eval")[-1]["val_loss"]
    assert Run(out).results("train")[0]["step"] == 1


def test_weights_alone_start_a_new_run(small, whole, tmp_path, caplog):
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        shutil.copy(checkpoint(whole, 8) / name, shared)
    assert go_on(small(**RLM), str(shared), tmp_path / "new")[0].train.weights == str(shared)
    assert "it cannot be gone on with: it holds weights alone" in caplog.text


def test_rank_0_alone_copies_and_a_restart_by_the_launcher_does_not_copy_again(small, whole, tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    decided = go_on(small(**RLM), str(checkpoint(whole, 3)), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name)
    assert go_on(small(**RLM), str(checkpoint(whole, 3)), tmp_path / "copy") == decided
    monkeypatch.setattr(launch, "job", lambda: "job-1")
    run = Run(tmp_path / "copy")
    with pytest.raises(RunError, match="holds a run with checkpoints"):
        go_on(small(**RLM), str(checkpoint(whole, 3)), run.path)
    run.write_env({"job": "job-1"})
    assert go_on(small(**RLM), str(checkpoint(whole, 3)), run.path) == decided
    assert [path.name for path in run.checkpoints()] == ["step-00000003"]


def test_no_checkpoint_no_continuation(small, whole, tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        go_on(small(**RLM), str(tmp_path / "nowhere"), None)
    weights = checkpoint(whole, 8) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="contents have changed"):
        go_on(small(**RLM), str(checkpoint(whole, 8)), None)


# on the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_goes_on_and_tunes(small, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tmp_path / "params.yaml"
    params.write_text(dump(as_dict(small(**RLM))))

    def run(*arguments):
        return CliRunner().invoke(main, ["train", str(params), *map(str, arguments)])

    done = run(f"+resume_from_checkpoint={whole}", "training.max_steps=9")
    assert done.exit_code == 0, done.output
    assert f"done: {whole}" in done.output
    assert [record["step"] for record in Run(whole).results("train")] == list(range(1, 10))
    tuned = tmp_path / "tuned"
    done = run(f"+resume_from_checkpoint={whole}", "training.max_steps=2", "training.optimizer.lr=1e-5", "--out", tuned)
    assert done.exit_code == 0, done.output
    assert Run(tuned).config.train.weights == str(whole)
    assert [record["step"] for record in Run(tuned).results("train")] == [1, 2]
    ours, theirs = {"train.micro_batch": 2, "data.root": None}, {"training.batch_size": 2, "data.train_path": None}
    monkeypatch.setenv("DATA_ROOT", str(Run(tuned).config.data.root))
    assert evaluate_run(tuned, theirs) == evaluate_run(tuned, ours)
    with pytest.raises(ConfigError, match=r"evaluate takes .*, not training.max_steps: the model is the run's own"):
        evaluate_run(tuned, {"training.max_steps": 3})
    done = run(f"+resume_from_checkpoint={whole}", "--from", tuned)
    assert (done.exit_code, "goes without --resume and --from" in done.output) == (2, True)
