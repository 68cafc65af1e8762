"""What is healthy is said of the very figures that loggers have, and of one that is not finite, too."""

import math

import pytest

from mhcnb.analysis.healthy import amax_of, ranges, say_amax
from mhcnb.config import LogConfig

LIMITS = LogConfig(warn_gain=3.0, warn_grad_norm=7.0)


def maps(**of):
    return {"type": "maps", "step": 0, "amax": {f"main.{name.replace('_', '.')}": value for name, value in of.items()}}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (maps(), ""),
        ({"type": "maps", "step": 0, "gains": {}}, ""),  # of a run before amax was recorded
        ({"type": "train", "step": 0, "amax": {"main.0.attn": 1.0}}, ""),
        (maps(**{"0_attn": 1.25, "1_attn": 1.0, "0_mlp": 3.0}), "attention 1.25, MLP 3, healthy (below 3)"),
        (maps(**{"0_attn": 1.0, "0_mlp": 3.01}), "attention 1, MLP 3.01, NOT healthy, above 3"),
        (maps(**{"0_attn": math.nan, "1_attn": 1.0}), "attention nan, NOT healthy, above 3"),
        (maps(**{"0_ssm": 9.0, "0_mlp": 1.0}), "MLP 1, healthy (below 3)"),
    ],
)
def test_the_verdict(record, says):
    assert say_amax(record, LIMITS) == (f"largest gain of a single map: {says}" if says else "")


def test_the_table_names_what_loggers_have_with_the_limits_of_the_run():
    rows = {name: healthy for name, _, healthy in ranges(LIMITS)}
    assert {"mhc/amax_pre", "mhc/amax_post"} == amax_of(maps(**{"0_attn": 1.0, "0_mlp": 1.0})).keys()
    assert list(rows) == ["train/loss", "train/lr", "grad_norm", "mhc/amax_pre", "mhc/amax_post"]
    assert rows["grad_norm"] == "below 7 (log.warn_grad_norm)"
    assert rows["mhc/amax_pre"].startswith("below 3 (log.warn_gain)")
