"""Each precision of the guide trains as float32 does, but for rounding; recomputation changes no bit of any."""

import pytest
import torch

from mhcnb.config import load_config
from mhcnb.run import Run
from mhcnb.training import launch
from mhcnb.training.loop import train

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture
def losses(params, tmp_path, monkeypatch):
    """losses(precision, checkpointing): of the updates of a small rlm with mhc, in the guide's names."""
    monkeypatch.setattr(launch, "autocast_dtype", lambda config, _: getattr(torch, config.train.dtype))  # fp16 on a CPU
    path = params(**{"model.name": "rlm", "model.layers": 2, "train.steps": 20, "train.eval_every": 20})

    def run(precision, checkpointing):
        given = {"training.mixed_precision": precision, "model.gradient_checkpointing": checkpointing}
        out = tmp_path / f"{precision}-{checkpointing}"
        config = load_config(path, given)
        assert getattr(torch, config.train.dtype) == DTYPES[precision]
        train(config, out)
        return [record["loss"] for record in Run(out).results("train")]

    return run


def test_precisions_agree_and_recomputation_is_exact(losses):
    exact = losses("fp32", False)
    assert exact[-1] < exact[0] - 0.1
    for precision in DTYPES:
        found = losses(precision, True)
        assert found == (exact if precision == "fp32" else losses(precision, False))
        assert found == pytest.approx(exact, abs={"fp32": 0, "bf16": 2e-2, "fp16": 2e-3}[precision])
        assert (found == exact) == (precision == "fp32")
