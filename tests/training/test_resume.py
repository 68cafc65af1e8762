"""A run that was interrupted ends as the undisturbed one: weights, optimizer, state, every metric, to the last bit."""

import json
import logging
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mhcnb import registry
from mhcnb.config import load_config
from mhcnb.errors import CheckpointError, RunError
from mhcnb.objectives.lm import LM
from mhcnb.run import Run
from mhcnb.training import distributed
from mhcnb.training.checkpoint import OPTIMIZER, WEIGHTS, load_model
from mhcnb.training.distributed import Share, World, share
from mhcnb.training.loop import train, train_steps
from mhcnb.training.track import merge, split

from ..faults.oracle import judge, same
from .killed import EVERY_STEP, killed_after

CONNECTIONS = sorted(registry.entries("connections"))


def assert_equal_runs(whole, run):
    """Records, weights, optimizer, state: see faults/oracle. And the figures of the summary."""
    assert judge(run, whole).wrong == ()
    kept = ("final_val_loss", "final_train_loss", "first_val_loss", "steps", "params")
    assert {key: Run(run).summary()[key] for key in kept} == {key: Run(whole).summary()[key] for key in kept}


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_resume_after_any_step_is_bit_equal(small, tmp_path, connection):
    config = small(**EVERY_STEP, **{"connection.name": connection, "model.dropout": 0.2})
    whole = tmp_path / "whole"
    train(config, whole)
    for step in range(1, 9) if connection == "mhc" else (1, 4, 7):
        left = killed_after(whole, step, tmp_path / f"after-{step}")
        torch.manual_seed(torch.seed())
        train(config.model_copy(update={"train": config.train.model_copy(update={"resume": "auto"})}), left)
        assert_equal_runs(whole, left)


def test_every_yielded_loss_is_equal_too(small, tmp_path):
    config = small(**EVERY_STEP)
    whole = {info.step: info.loss for info in train_steps(config, tmp_path / "whole")}
    left = killed_after(tmp_path / "whole", 3, tmp_path / "left")
    resumed = [(info.step, info.loss) for info in train_steps(small(**EVERY_STEP, **{"train.resume": "auto"}), left)]
    assert [step for step, _ in resumed] == [3, 4, 5, 6, 7, 8]
    assert all(torch.equal(loss, whole[step]) for step, loss in resumed[1:])


def test_carries_go_on(small, tmp_path, monkeypatch):
    """An objective whose carry weighs the next loss, two micro-batches an update."""
    step = LM.step

    def remembering(self, model, batch, carry, clock):
        before = carry["mean"] if carry else torch.zeros(len(batch["inputs"]))
        out = step(self, model, batch, None, clock)
        mean = 0.5 * before + out.loss_sum.detach() / out.count + torch.rand(len(before))
        return out._replace(loss_sum=out.loss_sum * (1 + 0.1 * before.mean()), carry={"mean": mean})

    monkeypatch.setattr(LM, "step", remembering)
    config = small(**EVERY_STEP, **{"train.accumulation": 2})
    train(config, tmp_path / "whole")
    left = killed_after(tmp_path / "whole", 5, tmp_path / "left")
    assert load_file(Run(left).last_checkpoint() / "carry.safetensors")["mean"].shape == (8,)
    train(small(**EVERY_STEP, **{"train.accumulation": 2, "train.resume": "auto"}), left)
    assert_equal_runs(tmp_path / "whole", left)


@pytest.mark.parametrize(("micro", "accumulation"), [(4, 1), (2, 4), (1, 12)])
def test_a_merged_carry_is_the_rows_of_the_global_batch_whatever_the_world(small, monkeypatch, micro, accumulation):
    config = small(**{"train.micro_batch": micro, "train.accumulation": accumulation})
    whole = {"z": torch.arange(micro * accumulation * 3.0).reshape(-1, 3)}
    for size in (1, 2, 4):
        shares = [share(config, World(rank, size)) for rank in range(size)]
        parts = [split(whole, part, torch.device("cpu")) for part in shares]
        sent = []
        monkeypatch.setattr(distributed, "gather", lambda value, sent=sent: sent.append(value) or [])
        for part, carries in zip(shares[1:], parts[1:], strict=True):  # the others' pieces reach rank 0
            assert merge(carries, part) == {}
        monkeypatch.setattr(distributed, "gather", lambda value, sent=sent: [value, *sent])
        assert torch.equal(merge(parts[0], shares[0])["z"], whole["z"])
    monkeypatch.undo()
    assert merge([None], Share(0, 4, 1, 4)) == {}


RANKS = """
import shutil, sys
from pathlib import Path
from types import SimpleNamespace
from mhcnb import registry
from mhcnb.config import load_config
from mhcnb.training.distributed import world_from_env
from mhcnb.training.rank import as_rank
from mhcnb.training.loop import train
sys.path.insert(0, sys.argv[1])
from killed import EVERY_STEP, killed_after
with as_rank():
    folder, leads = Path(sys.argv[2]), world_from_env().rank == 0
    for name in sorted(registry.entries("connections")):
        given = EVERY_STEP | {"connection.name": name, "model.dropout": 0.2}
        train(load_config(sys.argv[3], given), folder / name)
        if leads:
            killed_after(folder / name, 5, folder / f"{name}-left")
        train(load_config(sys.argv[3], given | {"train.resume": "auto"}), folder / f"{name}-left")
"""


def test_two_ranks_resume_bit_equal_with_every_connection_and_one_goes_on_with_the_same_samples(
    params, tmp_path, caplog
):
    (tmp_path / "ranks.py").write_text(RANKS)
    path = params()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "ranks.py"]
    arguments = [str(Path(__file__).parent), str(tmp_path), str(path)]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in CONNECTIONS:
        assert_equal_runs(tmp_path / name, tmp_path / f"{name}-left")
    left = killed_after(tmp_path / "mhc", 5, tmp_path / "alone")
    caplog.set_level(logging.INFO)
    given = {"connection.name": "mhc", "model.dropout": 0.0, "train.resume": "auto"}
    with pytest.raises(CheckpointError, match=r"model.dropout: 0.2 -> 0.0"):
        train(load_config(path, EVERY_STEP | given), left)
    train(load_config(path, EVERY_STEP | given | {"model.dropout": 0.2}), left)
    assert "processes 2 -> 1: the same samples in the same order, but not equal to the last bit" in caplog.text
    losses = [[r["loss"] for r in Run(run).results("train")] for run in (tmp_path / "mhc", left)]
    assert losses[0][:5] == losses[1][:5]


def test_another_number_of_processes_gives_the_same_losses_to_1e_4(params, tmp_path, mhcnb):
    """Without dropout, whose seeds follow the rows that a process takes at once."""
    path = params(**EVERY_STEP)
    train(load_config(path), tmp_path / "whole")
    left = killed_after(tmp_path / "whole", 4, tmp_path / "left")
    done = mhcnb("train", "--resume", left, ranks=2)
    assert done.returncode == 0, done.stderr
    assert "processes 1 -> 2: the same samples in the same order" in done.stderr
    losses = [[r["loss"] for r in Run(run).results("train")] for run in (tmp_path / "whole", left)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


# what a person does with it -------------------------------------------------------------------------------------------


def test_a_stop_leaves_no_trace_in_a_run_that_goes_on(small, tmp_path):
    """The evaluation that a stop makes is not one of the undisturbed run."""
    train(small(**EVERY_STEP), tmp_path / "whole")
    run = Run(tmp_path / "left")
    for info in train_steps(small(**EVERY_STEP), run.path):
        if info.step == 4:
            run.request("stop")
    assert run.results("eval")[-1]["on_stop"]
    assert run.status()["state"] == "stopped"
    train(small(**EVERY_STEP, **{"train.resume": "auto"}), run.path)
    assert_equal_runs(tmp_path / "whole", run.path)
    assert [json.loads(line)["step"] for line in (run.path / "results.1.jsonl").read_text().splitlines()] == [5]


def test_a_killed_run_says_what_it_repeats_and_keeps_the_old_lines(small, tmp_path, caplog):
    train(small(**EVERY_STEP), tmp_path / "whole")
    left = killed_after(tmp_path / "whole", 3, tmp_path / "left")
    results = left / "results.jsonl"
    results.write_text(results.read_text() + '{"type": "train", "st')  # the line that the kill tore
    caplog.set_level(logging.INFO)
    train(small(**EVERY_STEP, **{"train.resume": "auto"}), left)
    assert f"{left}: resumed at step 3 of 8, repeating 5 that came after it" in caplog.text
    assert_equal_runs(tmp_path / "whole", left)
    kept = (left / "results.1.jsonl").read_text().splitlines()
    assert kept[-1] == '{"type": "train", "st'
    assert [attempt["step"] for attempt in Run(left).env()["resumed"]] == [3]


def test_killed_between_the_last_checkpoint_and_the_summary(small, tmp_path):
    train(small(**EVERY_STEP), tmp_path / "whole")
    left = killed_after(tmp_path / "whole", 8, tmp_path / "left")
    train(small(**EVERY_STEP, **{"train.resume": "auto"}), left)
    assert_equal_runs(tmp_path / "whole", left)


def test_more_steps_follow_the_longer_schedule_from_there_on(small, tmp_path, caplog):
    train(small(), tmp_path / "run")
    caplog.set_level(logging.INFO)
    train(small(**{"train.steps": 9, "train.resume": "auto"}), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert [r["step"] for r in run.results("train")] == list(range(1, 10))
    rates = {r["step"]: r["lr"] for r in run.results("train")}
    assert rates[7] > rates[6]
    assert all(a > b for (s, a), (_, b) in pairwise(rates.items()) if s > 6)
    assert "train.steps: 6 -> 9" in caplog.text
    assert "schedule of the new train.steps" in caplog.text
    assert run.config.train.steps == 9


def test_the_newest_sound_checkpoint_is_used_and_the_damaged_one_kept_by_name(small, tmp_path, caplog):
    train(small(**EVERY_STEP), tmp_path / "whole")
    left = killed_after(tmp_path / "whole", 5, tmp_path / "left")
    weights = Run(left).last_checkpoint() / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    train(small(**EVERY_STEP, **{"train.resume": "auto"}), left)
    said = caplog.text
    assert "step-00000005/model.safetensors: its contents have changed: SHA-256" in said
    assert "set aside as bad-step-00000005; step-00000004 is used instead" in said
    assert (left / "checkpoints" / "bad-step-00000005" / WEIGHTS).read_bytes() == bytes(content)
    assert_equal_runs(tmp_path / "whole", left)


def test_reading_a_run_passes_over_a_damaged_checkpoint_and_changes_nothing(small, tmp_path, caplog):
    train(small(**EVERY_STEP), tmp_path / "run")
    run = Run(tmp_path / "run")
    (run.last_checkpoint() / OPTIMIZER).write_bytes(b"")
    names = [path.name for path in run.checkpoints()]
    model, _ = load_model(run.path)
    assert "step-00000007 is used instead" in caplog.text
    assert same(dict(model.state_dict()), load_file(run.checkpoints()[-2] / WEIGHTS))
    assert [path.name for path in run.checkpoints()] == names


@pytest.mark.parametrize("asked", [False, True])
def test_the_last_few_the_best_and_those_asked_for_are_kept(small, tmp_path, asked, monkeypatch):
    """The validation loss is lowest at step 4."""
    losses = iter([5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.5, 3.5, 3.6, 3.6])
    monkeypatch.setattr("mhcnb.training.loop.evaluate", lambda *_: {"loss": next(losses)})
    run = Run(tmp_path / "run")
    given = {"train.steps": 8, "train.eval_every": 2, "train.save_every": 1, "train.keep_last": 2}
    for info in train_steps(small(**given), run.path):
        if info.step == 2 and asked:
            run.request("checkpoint")
    kept = [int(path.name[5:]) for path in run.checkpoints()]
    assert kept == ([3] if asked else []) + [4, 7, 8]


def test_time_saves_too(small, tmp_path, monkeypatch):
    now = iter(range(0, 100_000, 20))  # each look at the clock comes 20 s after the last
    monkeypatch.setattr("mhcnb.training.saver.time", SimpleNamespace(monotonic=lambda: float(next(now))))
    given = {"train.steps": 12, "train.save_minutes": 1.0, "train.eval_every": 12, "train.keep_last": 9}
    train(small(**given), tmp_path / "run")
    assert [int(path.name[5:]) for path in Run(tmp_path / "run").checkpoints()] == [3, 6, 9, 12]


def test_a_plain_start_is_refused_and_names_resume(small, tmp_path):
    train(small(), tmp_path / "run")
    with pytest.raises(RunError, match=r"nothing was changed\. `mhcnb train --resume .*run` goes on with it"):
        train(small(), tmp_path / "run")


def test_a_run_from_weights_starts_with_their_loss_and_its_own_schedule(small, tmp_path):
    train(small(**{"train.lr": 1e-2, "train.steps": 40}), tmp_path / "first")
    train(small(**{"train.weights": str(tmp_path / "first"), "train.lr": 1e-4}), tmp_path / "second")
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    assert second.results("eval")[0]["val_loss"] == first.results("eval")[-1]["val_loss"]
    assert [r["step"] for r in second.results("train")] == [1, 2, 3, 4, 5, 6]
    assert second.results("train")[0]["lr"] == pytest.approx(1e-4 / 3)
    assert second.config.train.weights == str(tmp_path / "first")


SHAPES = {"connection.streams": 2, "model.width": 32, "model.layers": 2}


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_weights_of_each_connection_are_refused_under_another_one_n_or_shape(small, tmp_path, connection):
    own = {"connection.name": connection, "train.steps": 1}
    train(small(**own), tmp_path / "run")
    others = [{"connection.name": name} for name in CONNECTIONS if name != connection]
    others += [{key: value} for key, value in SHAPES.items() if connection != "residual" or key != "connection.streams"]
    for other in others:
        key, value = next(iter(other.items()))
        with pytest.raises(CheckpointError, match=rf"{key}: .*-> {value}"):
            train(small(**own | other | {"train.resume": "auto"}), tmp_path / "run")
        if connection == "residual" and key == "connection.name":
            continue  # its weights may become those of any: see test_upcycle
        with pytest.raises(
            CheckpointError, match=rf"{key} = .*says {value};|tensors are not those of the configuration"
        ):
            train(small(**own | other | {"train.weights": str(tmp_path / "run")}), tmp_path / "new")
    assert not (tmp_path / "new").exists()
