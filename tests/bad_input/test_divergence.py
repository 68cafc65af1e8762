"""Rows 54, 55 and 72: losses that are not finite, and memory that does not suffice."""

import json
import math
import time
from contextlib import nullcontext

import pytest
import torch

from mhcnb import durable
from mhcnb.errors import RunError
from mhcnb.objectives.lm import LM
from mhcnb.run import Run
from mhcnb.training import launch
from mhcnb.training.loop import train


@pytest.fixture
def each_step(monkeypatch):
    """each_step(change): change(step, out) takes the place of what the objective gives for a micro-batch."""

    def patch(change):
        step = LM.step

        def changed(self, model, batch, carry, clock):
            return change(clock.step, step(self, model, batch, carry, clock))

        monkeypatch.setattr(LM, "step", changed)

    return patch


@pytest.mark.parametrize("value", [math.nan, math.inf], ids="row54 {}".format)
def test_a_loss_that_is_not_finite(mhcnb, params, tmp_path, each_step, monkeypatch, value):
    """In the second micro-batch of step 5: the update is not applied, and the report says from where it came. The
    save of step 4 is still being written then; it counts all the same."""
    publish, seen = durable.publish, []
    monkeypatch.setattr(durable, "publish", lambda part, final: time.sleep(0.2) or publish(part, final))

    def poison(step, out):
        seen.append(step)
        bad = step == 5 and seen.count(5) % 2 == 0
        return out._replace(loss_sum=out.loss_sum * value) if bad else out

    each_step(poison)
    run = Run(tmp_path / "run")
    done = mhcnb("train", params(**{"train.accumulation": 2, "train.save_every": 2}), "--out", "run")
    assert done.exit_code == 2
    says = (
        f"RunError: run diverged: loss {value}, gradient norm nan at step 5: the update was not applied; from rank 0, "
        "rows 4-7 of the global batch; last good checkpoint: step-00000004; try a lower train.lr"
    )
    assert says in done.stderr
    assert run.status()["state"] == "diverged"
    assert run.status()["step"] == 5
    report = json.loads((run.path / "diverged.json").read_text())
    assert (report["step"], report["rows"], report["checkpoint"]) == (5, {"0": [[4, 7]]}, "step-00000004")
    assert 0 < report["lr"] <= 0.002
    assert [folder.name for folder in run.checkpoints()] == ["step-00000002", "step-00000004"]
    assert max(record["step"] for record in run.results("train")) == 4


@pytest.mark.parametrize("poisoned", [50, 51], ids="row55 {} in a row".format)
def test_a_scaler_that_keeps_leaving_out_updates(small, tmp_path, each_step, monkeypatch, poisoned):
    """float16 as on a GPU; its gradients overflow from the first step on."""
    monkeypatch.setattr(launch, "autocast_dtype", lambda config, device: torch.float16)

    def overflow(step, out):
        if step <= poisoned and out.loss_sum.requires_grad:
            out.loss_sum.register_hook(lambda gradient: gradient * math.inf)
        return out

    each_step(overflow)
    run = Run(tmp_path / "run")
    with nullcontext() if poisoned == 50 else pytest.raises(RunError, match="at step 51: the update was not"):
        train(small(**{"train.steps": 53, "train.eval_every": 53, "log.every": 53}), run.path)
    if poisoned == 50:
        assert run.status()["state"] == "done"
    else:
        assert run.status()["state"] == "diverged"
        assert "float16 left out 51 updates in a row, its scale is 5.8" in run.status()["reason"]


def test_row72_out_of_memory(mhcnb, params, tmp_path, each_step):
    """On a GPU: what was used, and what to try, the global batch being the same."""

    def exhausted(step, out):
        if step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total ...")
        return out

    each_step(exhausted)
    done = mhcnb("train", params(), "--out", "run")
    assert done.exit_code == 2, done.exception
    for text in (
        "RunError: out of memory at step 3: CUDA out of memory. Tried to allocate 2.00 GiB",
        "GB at most",
        "train.micro_batch=2 train.accumulation=2",
        "train.recompute=block",
    ):
        assert text in done.stderr
    assert Run(tmp_path / "run").status()["state"] == "failed"
