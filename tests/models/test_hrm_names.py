"""The names of the original HRM and its guide give what ours give: its commands work as they stand."""

from pathlib import Path

import pytest

from mhcnb import load_config, renames
from mhcnb.config import parse_overrides
from mhcnb.errors import ConfigError
from mhcnb.models.hrm_names import RENAMES

PARAMS = Path(__file__).parents[2] / "params"
SMALL, GPT = PARAMS / "hrm" / "small.yaml", PARAMS / "gpt" / "tiny.yaml"

SAME = {  # their name and a value that the preset has not -> the same in ours
    "data_path": ("data/mine", {"data.root": "data/mine"}),
    "epochs": (60, {"train.epochs": 60}),
    "eval_interval": (20, {"data.epochs_per_iteration": 20}),
    "global_batch_size": (8, {"train.micro_batch": 8}),
    "lr": (7e-5, {"train.lr": 7e-5}),
    "lr_min_ratio": (0.5, {"train.min_lr": 5e-5}),
    "lr_warmup_steps": (7, {"train.warmup": 7}),
    "weight_decay": (0.3, {"train.weight_decay": 0.3}),
    "puzzle_emb_lr": (2e-4, {"train.puzzle_lr": 2e-4}),
    "puzzle_emb_weight_decay": (0.2, {"train.puzzle_weight_decay": 0.2}),
    "checkpoint_every_eval": (True, {"train.save_evaluated": True}),
    "arch.hidden_size": (48, {"model.width": 48}),
    "arch.H_layers": (2, {"model.H_layers": 2}),
    "arch.L_layers": (3, {"model.L_layers": 3}),
    "arch.H_cycles": (3, {"model.H_cycles": 3}),
    "arch.L_cycles": (4, {"model.L_cycles": 4}),
    "arch.num_heads": (2, {"model.heads": 2}),
    "arch.expansion": (8, {"model.expansion": 8}),
    "arch.pos_encodings": ("learned", {"model.positions": "learned"}),
    "arch.rope_theta": (500, {"model.rope_theta": 500}),
    "arch.rms_norm_eps": (1e-6, {"model.norm_eps": 1e-6}),
    "arch.puzzle_emb_ndim": (0, {"model.puzzle_width": 0}),
    "arch.halt_max_steps": (8, {"model.halt_max_steps": 8}),
    "arch.halt_exploration_prob": (0.2, {"model.halt_exploration": 0.2}),
    "arch.forward_dtype": ("float32", {"train.dtype": "float32"}),
    "arch.loss.loss_type": ("softmax_cross_entropy", {"objective.loss": "softmax"}),
}
GUIDE = """epochs=500 eval_interval=100 global_batch_size=4 lr=1e-4 puzzle_emb_lr=1e-4 weight_decay=1.0
puzzle_emb_weight_decay=1.0 arch.hidden_size=32 arch.H_layers=1 arch.L_layers=1 arch.num_heads=1 arch.expansion=2"""
SMALLER = """epochs=1000 eval_interval=200 global_batch_size=2 arch.hidden_size=16"""


def test_the_table_above_holds_every_name():
    assert set(SAME) == {rename.theirs for rename in RENAMES}


@pytest.mark.parametrize("theirs", SAME)
def test_a_name_gives_what_ours_gives(theirs):
    value, ours = SAME[theirs]
    found, default = load_config(SMALL, {theirs: value}), load_config(SMALL)
    assert found == load_config(SMALL, ours) != default


def test_the_guides_commands_are_the_presets():
    assert load_config(SMALL, parse_overrides(GUIDE.split())) == load_config(SMALL)
    smaller = load_config(SMALL, {"preset": "ultra-small", "train.eval_batches": 50} | parse_overrides(SMALLER.split()))
    assert smaller == load_config(SMALL.with_name("ultra-small.yaml"))


def test_a_global_batch_is_shared_by_its_micro_batches():
    assert load_config(SMALL, {"global_batch_size": 12, "train.accumulation": 3}).train.micro_batch == 4
    for rows in (10, 0, True, "x"):
        with pytest.raises(ConfigError, match=r"global_batch_size = .*expected a number of rows divisible by train.a"):
            load_config(SMALL, {"global_batch_size": rows, "train.accumulation": 3})


def test_a_ratio_is_one():
    for ratio in (2, -1, None, 10**400):
        with pytest.raises(ConfigError, match=r"lr_min_ratio = .*expected a number from 0 to 1"):
            load_config(SMALL, {"lr_min_ratio": ratio})


def test_they_are_no_names_of_another_model():
    with pytest.raises(ConfigError, match=r"unknown key lr: a name that model hrm knows; model gpt has train.lr"):
        load_config(GPT, {"lr": 1e-3})
    with pytest.raises(ConfigError, match=r"unknown key arch.hiden_size; did you mean arch.hidden_size\?"):
        load_config(SMALL, {"arch.hiden_size": 8})
    assert renames.rows("hrm")[0][:2] == ("data_path", "data.root")
