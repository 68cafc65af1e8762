"""One process: what a run leaves, and that it can be trusted."""

import gc
import json
import math
import signal
import threading

import pytest
import torch

from mhcnb import registry
from mhcnb.errors import CheckpointError, ConfigError, RunError
from mhcnb.objectives.lm import LM
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model
from mhcnb.training.evaluate import evaluate_run
from mhcnb.training.loop import train, train_steps

CONNECTIONS = sorted(registry.entries("connections"))


def losses(run, kind="train", key="loss"):
    return [record[key] for record in Run(run).results(kind)]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_run_learns_and_its_checkpoint_gives_the_final_loss_back(small, tmp_path, connection):
    config = small(**{"connection.name": connection, "train.steps": 60, "train.lr": 1e-2, "train.min_lr": 1e-3})
    summary = train(config, tmp_path / "run")
    assert summary["first_val_loss"] == pytest.approx(math.log(64), abs=0.1)
    assert summary["final_val_loss"] < summary["first_val_loss"] - 0.5
    found = evaluate_run(tmp_path / "run", {})
    assert found["loss"] == pytest.approx(summary["final_val_loss"], abs=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert 0 < found["accuracy"] <= found["top5_accuracy"] <= 1


def test_the_run_folder_is_what_the_contract_says(small, tmp_path):
    run = Run(tmp_path / "run")
    summary = train(small(), run.path)
    assert run.status()["state"] == "done"
    assert run.status()["step"] == summary["steps"] == 6
    assert run.config == small()
    assert [r["step"] for r in run.results("train")] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in run.results("eval")] == [0, 4, 6]
    assert set(run.results("train")[0]) >= {"type", "step", "time_s", "loss", "lr", "grad_norm", "tokens_per_s"}
    assert set(run.results("eval")[0]) >= {"type", "step", "time_s", "train_loss", "val_loss", "accuracy"}
    assert set(summary) == {
        "connection", "model", "preset", "seed", "steps", "first_val_loss", "final_val_loss", "final_train_loss",
        "tokens_per_s", "peak_memory_gb", "total_time_s", "params", "world_size",
    }  # fmt: skip
    model, config = load_model(run.path)
    assert summary["params"] == sum(p.numel() for p in model.parameters())
    assert config == small()
    assert run.env()["config_digest"] == small().digest()
    assert run.env()["data"]["format"] == "headered uint16"


def test_the_same_configuration_gives_the_same_bits(small, tmp_path):
    config = small(**{"model.dropout": 0.2})
    for name in "ab":
        train(config, tmp_path / name)
        torch.manual_seed(torch.seed())  # nothing may hang on the global generator
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    a, b = (load_model(tmp_path / name)[0].state_dict() for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_accumulation_gives_the_losses_of_the_whole_batch(small, tmp_path):
    train(small(**{"train.micro_batch": 8}), tmp_path / "whole")
    train(small(**{"train.micro_batch": 2, "train.accumulation": 4}), tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)


def test_ignored_targets_weigh_the_same_however_the_batch_is_cut(small, tmp_path, monkeypatch):
    """The loss is a sum over a count, both over all micro-batches: not a mean of means."""
    step = LM.step

    def some_ignored(self, model, batch, carry, clock):
        batch = batch | {"targets": batch["targets"].masked_fill(batch["inputs"] % 3 == 0, -100)}
        return step(self, model, batch, carry, clock)

    monkeypatch.setattr(LM, "step", some_ignored)
    train(small(**{"train.micro_batch": 8}), tmp_path / "whole")
    train(small(**{"train.micro_batch": 1, "train.accumulation": 8}), tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)


def test_a_stop_request_ends_the_run_at_a_step_boundary(small, tmp_path):
    run = Run(tmp_path / "run")
    for info in train_steps(small(**{"train.steps": 500}), run.path):
        if info.step == 3:
            run.request("stop")
    assert run.status() | {"state": "stopped", "step": 4, "reason": "asked by control/stop"} == run.status()
    assert evaluate_run(run.path, {})["loss"] == pytest.approx(losses(run.path, "eval", "val_loss")[-1], abs=1e-6)


def test_a_checkpoint_can_be_asked_for_while_it_trains(small, tmp_path):
    run = Run(tmp_path / "run")
    for info in train_steps(small(), run.path):
        if info.step == 2:
            run.request("checkpoint")
    assert [int(path.name[5:]) for path in run.checkpoints()] == [3, 4, 6]  # 4: the loss is lowest there
    assert not run.requested("checkpoint")
    load_model(run.checkpoints()[0])


def test_closing_the_generator_leaves_a_loadable_checkpoint_and_a_true_status(small, tmp_path):
    run, steps = Run(tmp_path / "run"), train_steps(small(**{"train.steps": 500}), tmp_path / "run")
    for info in steps:
        if info.step == 5:
            break
    steps.close()
    assert (run.status()["state"], run.status()["step"]) == ("stopped", 5)
    load_model(run.path)


def test_a_forgotten_generator_leaves_a_checkpoint_too(small, tmp_path):
    """In a cycle, as in the traceback of a failed notebook cell, it ends when the garbage is collected, its thread pool
    and its data with it."""
    steps = train_steps(small(**{"train.steps": 500}), tmp_path / "run")
    while next(steps).step < 5:
        pass
    cycle = [steps]
    cycle.append(cycle)
    del steps, cycle
    gc.collect()
    run = Run(tmp_path / "run")
    assert (run.status()["state"], run.status()["step"]) == ("stopped", 5)
    load_model(run.last_checkpoint())
    train(small(), tmp_path / "next")


def test_closed_in_another_thread_it_waits_for_nothing_and_gives_signals_back(small, tmp_path):
    before = signal.default_int_handler  # not what is inherited: in the background of a shell SIGINT is ignored
    signal.signal(signal.SIGINT, before)
    steps = train_steps(small(**{"train.steps": 500, "train.save_every": 2}), tmp_path / "run")
    while next(steps).step < 5:
        pass
    other = threading.Thread(target=steps.close)
    other.start()
    other.join(20)
    assert not other.is_alive()
    assert Run(tmp_path / "run").status()["state"] == "stopped"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_loss_that_is_not_finite_ends_the_run_before_the_update(small, tmp_path, monkeypatch):
    step = LM.step

    def poisoned(self, model, batch, carry, clock):
        out = step(self, model, batch, carry, clock)
        return out._replace(loss_sum=out.loss_sum * (math.nan if clock.step == 3 else 1.0))

    monkeypatch.setattr(LM, "step", poisoned)
    steps = train_steps(small(), tmp_path / "run")
    assert [next(steps).step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RunError, match="diverged: loss nan, gradient norm nan at step 3"):
        next(steps)
    assert Run(tmp_path / "run").status()["state"] == "diverged"


def test_what_fails_says_so_in_the_status(small, tmp_path, monkeypatch):
    monkeypatch.setattr(LM, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(small(), tmp_path / "run")
    status = Run(tmp_path / "run").status()
    assert status["state"] == "failed"
    assert "ZeroDivisionError" in status["reason"]


def test_a_folder_with_a_checkpoint_is_not_trained_in_again(small, tmp_path):
    train(small(), tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(RunError, match=r"holds a run with checkpoints \(state: done, step 6\); nothing was changed"):
        train(small(), tmp_path / "run")
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


@pytest.mark.parametrize("damage", ["truncate", "swap", "empty"])
def test_a_damaged_or_foreign_checkpoint_is_refused(small, tmp_path, damage):
    train(small(), tmp_path / "run")
    folder = Run(tmp_path / "run").last_checkpoint()
    for name in ("state.json", "manifest.json"):
        (folder / name).unlink()  # weights that somebody shared: nothing else tells that they are damaged
    weights = folder / "model.safetensors"
    if damage == "swap":
        train(small(**{"model.width": 32}), tmp_path / "other")
        weights.write_bytes((Run(tmp_path / "other").last_checkpoint() / "model.safetensors").read_bytes())
    else:
        weights.write_bytes(weights.read_bytes()[: 100 if damage == "truncate" else 0])
    with pytest.raises(CheckpointError, match=r"not those of the configuration|cannot be read"):
        load_model(folder)


def test_evaluate_takes_other_data_but_not_another_model(small, tmp_path, shards):
    train(small(), tmp_path / "run")
    whole = evaluate_run(tmp_path / "run", {"data": {"root": str(shards)}, "train.eval_batches": 1})
    assert whole["loss"] > 0
    with pytest.raises(ConfigError, match=r"not model\.width: the model is the run's own"):
        evaluate_run(tmp_path / "run", {"model.width": 8})


def test_a_run_without_a_checkpoint_says_what_it_is(small, tmp_path):
    run = Run.create(tmp_path / "run", small())
    run.release()
    with pytest.raises(CheckpointError, match=r"has no checkpoint \(state: starting\)"):
        load_model(run.path)


def test_bfloat16_trains_too(small, tmp_path):
    summary = train(small(**{"train.dtype": "bfloat16"}), tmp_path / "run")
    assert math.isfinite(summary["final_val_loss"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
