"""Averages over the updates are what is evaluated and kept, and a run that goes on has them and its weights again."""

import pytest
import torch
from safetensors.torch import load_file

from mhcnb.models.base import build_model
from mhcnb.training.averages import TRAINED
from mhcnb.training.checkpoint import OPTIMIZER, WEIGHTS
from mhcnb.training.evaluate import evaluate_run
from mhcnb.training.loop import train

from ..faults.oracle import judge
from .killed import EVERY_STEP, killed_after

EMA = 0.7


def stored(run, step):
    """(weights, and what optimizer.pt holds) of a checkpoint."""
    folder = run / "checkpoints" / f"step-{step:08}"
    return load_file(folder / WEIGHTS), torch.load(folder / OPTIMIZER, weights_only=True)


def test_a_checkpoint_has_the_average_of_all_weights_so_far_and_its_summary_is_of_that(small, tmp_path):
    """Brute force: Σ (1 - e) e^(T-t) w_t + e^T w_0, of the weights w that the same run without averages keeps."""
    every = EVERY_STEP | {"train.steps": 4}
    train(small(**every), tmp_path / "plain")
    summary = train(small(**every, **{"train.ema": EMA}), tmp_path / "averaged")
    weights = [build_model(small()).state_dict(), *(stored(tmp_path / "plain", step)[0] for step in range(1, 5))]
    means, optimizer = stored(tmp_path / "averaged", 4)
    for name, mean in means.items():
        expected = EMA**4 * weights[0][name].double()
        for step in range(1, 5):
            expected += (1 - EMA) * EMA ** (4 - step) * weights[step][name].double()
        torch.testing.assert_close(mean.double(), expected, rtol=0, atol=1e-6)
        assert torch.equal(optimizer[TRAINED][name], weights[4][name])
    assert summary["final_val_loss"] == pytest.approx(evaluate_run(tmp_path / "averaged", {})["loss"], abs=1e-6)
    assert summary["final_val_loss"] > evaluate_run(tmp_path / "plain", {})["loss"] + 1e-3


def test_resume_after_any_step_is_bit_equal(small, tmp_path):
    config = small(**EVERY_STEP, **{"train.ema": EMA})
    whole = tmp_path / "whole"
    train(config, whole)
    for step in (1, 4, 7):
        left = killed_after(whole, step, tmp_path / f"after-{step}")
        train(config.model_copy(update={"train": config.train.model_copy(update={"resume": "auto"})}), left)
        assert judge(left, whole).wrong == ()
