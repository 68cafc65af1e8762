"""The names of another project's guide give what ours give, wherever they stand, and never anything else unsaid."""

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb import load_config, renames, yamlfile
from mhcnb.config import as_dict, build_config, flatten
from mhcnb.errors import ConfigError
from mhcnb.models.rlm_names import RENAMES
from mhcnb.sweep.plan import plan

PARAMS = Path(__file__).parents[1] / "params"
RLM, GPT = PARAMS / "rlm" / "tiny.yaml", PARAMS / "gpt" / "tiny.yaml"

SAME = {  # their name and a value that no preset has -> the same in ours
    "model.hidden_dim": (48, {"model.width": 48}),
    "model.num_layers": (3, {"model.layers": 3}),
    "model.num_heads": (2, {"model.heads": 2}),
    "model.max_seq_len": (24, {"model.block_size": 24}),
    "model.mhc_enabled": (False, {"connection.name": "residual"}),
    "model.mhc_flows": (2, {"connection.streams": 2}),
    "model.mhc_sinkhorn_iters": (5, {"connection.iterations": 5}),
    "model.gradient_checkpointing": (True, {"train.recompute": "block"}),
    "data.train_path": ("a.jsonl", {"data.root": "a.jsonl"}),
    "data.max_length": (24, {"model.block_size": 24}),
    "training.optimizer.type": ("adamw", {}),
    "training.optimizer.lr": (5e-5, {"train.lr": 5e-5}),
    "training.optimizer.weight_decay": (0.3, {"train.weight_decay": 0.3}),
    "training.optimizer.betas": ([0.8, 0.9], {"train.betas": [0.8, 0.9]}),
    "training.batch_size": (6, {"train.micro_batch": 6}),
    "training.gradient_accumulation_steps": (4, {"train.accumulation": 4}),
    "training.max_steps": (7, {"train.steps": 7}),
    "training.max_grad_norm": (0.5, {"train.clip": 0.5}),
    "training.mixed_precision": ("fp16", {"train.dtype": "float16"}),
    "training.gradient_checkpointing": (True, {"train.recompute": "block"}),
    "training.scheduler.type": ("wsd", {"train.schedule": "wsd"}),
    "training.scheduler.warmup_steps": (3, {"train.warmup": 3}),
    "training.scheduler.min_lr_ratio": (0.25, {"train.min_lr": 0.25 * 2e-3}),
    "training.save_steps": (9, {"train.save_every": 9}),
    "training.logging_steps": (8, {"log.every": 8}),
    "training.wandb.project": ("p", {"log.wandb": "p"}),
    "training.wandb.entity": ("me", {"log.wandb_entity": "me"}),
}
OTHERS = [  # further values of theirs
    ("model.mhc_enabled", True, {"connection.name": "mhc"}),
    ("model.gradient_checkpointing", False, {"train.recompute": "none"}),
    ("training.mixed_precision", "bf16", {"train.dtype": "bfloat16"}),
    ("training.mixed_precision", "fp32", {"train.dtype": "float32"}),
    *[("training.scheduler.type", name, {"train.schedule": name}) for name in ("cosine", "linear", "constant")],
    ("training.wandb.entity", None, {}),
]
CASES = [(name, *pair) for name, pair in SAME.items()] + OTHERS


def refused(overrides, path=RLM):
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return str(error.value)


@pytest.fixture
def written(tmp_path):
    """written({dotted: value}, drop=[dotted]): rlm/tiny.yaml with some keys put in and some left out, as a file."""

    def write(keys, drop=(), name="mine.yaml"):
        flat = {key: value for key, value in flatten(yamlfile.read_mapping(RLM)[0]).items() if key not in drop}
        tree = {}
        for key, value in (flat | keys).items():
            *path, last = key.split(".")
            place = tree
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
        (tmp_path / name).write_text(yamlfile.dump(tree))
        return tmp_path / name

    return write


# each name -----------------------------------------------------------------------------------------------------------


def test_the_table_below_holds_every_name():
    assert set(SAME) == {rename.theirs for rename in RENAMES}


@pytest.mark.parametrize(("theirs", "value", "ours"), CASES)
def test_a_name_gives_what_ours_gives_as_an_override_and_in_a_file(theirs, value, ours, written):
    expected = load_config(RLM, ours)
    assert load_config(RLM, {theirs: value}) == expected
    *sections, last = theirs.split(".")
    nested = {last: value}
    for section in reversed(sections):
        nested = {section: nested}
    assert load_config(RLM, nested) == expected
    path = written({theirs: value}, drop=["connection.name" if theirs == "model.mhc_enabled" else "", *ours])
    assert load_config(path) == expected


GUIDE = """\
preset: tiny
seed: 1
model:
  name: rlm
  hidden_dim: 128
  num_layers: 4
  num_heads: 4
  max_seq_len: 128
  vocab_size: auto
  mhc_enabled: true
  mhc_flows: 4
data: {name: shards, train_path: embedded, max_length: 128}
objective: {name: lm}
training:
  optimizer: {type: adamw, lr: 2e-3, betas: [0.9, 0.95]}
  scheduler: {type: cosine, warmup_steps: 20, min_lr_ratio: 0.1}
  batch_size: 16
  max_steps: 300
  gradient_checkpointing: false
  wandb: {entity: null}
train: {eval_every: 50, eval_batches: 8}
"""


def test_a_file_in_their_names_is_the_preset_and_is_written_in_ours(tmp_path):
    path = tmp_path / "guide.yaml"
    path.write_text(GUIDE)
    config, preset = load_config(path), load_config(RLM)
    assert config.train.min_lr == pytest.approx(preset.train.min_lr, rel=1e-15)
    close = {"train": preset.train.model_copy(update={"min_lr": config.train.min_lr}), "log": config.log}
    assert config == preset.model_copy(update=close)
    kept = as_dict(config)
    assert "training" not in kept
    assert not {rename.theirs for rename in RENAMES} & flatten(kept).keys()
    path.write_text(yamlfile.dump(kept))
    assert load_config(path) == config


# what follows from more than one value -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "over", "expected"),
    [
        ("residual", {"model.mhc_enabled": True}, "mhc"),
        ("hc", {"model.mhc_enabled": True}, "hc"),
        ("mhc_lite", {"model.mhc_enabled": False}, "residual"),
        ("residual", {"model.mhc_enabled": False}, "residual"),
        ("residual", {"model.mhc_enabled": True, "connection.name": "kromhc"}, "kromhc"),
        ("hc", {"connection.name": "residual", "model.mhc_enabled": False}, "residual"),
    ],
)
def test_enabled_turns_streams_on_and_off_and_leaves_a_choice_alone(written, file, over, expected):
    assert load_config(written({"connection.name": file}), over).connection.name == expected


@pytest.mark.parametrize("named", ["residual", "hc", "mhc", None])
@pytest.mark.parametrize("enabled", [True, False])
def test_an_override_beats_what_a_file_says_in_either_language(written, named, enabled):
    """But enabled: true is no choice among those that have streams."""
    path = written({"model.mhc_enabled": enabled}, drop=["connection.name"])
    overrides = {"connection.name": named} if named else {}
    assert load_config(path, overrides).connection.name == (named or ("mhc" if enabled else "residual"))
    overrides = {"model.mhc_enabled": not enabled}
    assert load_config(path, overrides).connection.name == ("residual" if enabled else "mhc")


def test_the_least_rate_is_a_share_of_the_rate_that_the_run_has(written):
    ratio, rate = "training.scheduler.min_lr_ratio", "training.optimizer.lr"
    path = written({ratio: 0.5}, drop=["train.min_lr"])
    for overrides in ({rate: 1e-2}, {"train.lr": 1e-2}):
        assert load_config(path, overrides).train.min_lr == pytest.approx(5e-3)
    assert load_config(path).train.min_lr == pytest.approx(1e-3)
    assert load_config(path, {rate: 1e-2, ratio: 0.1}).train.min_lr == pytest.approx(1e-3)
    assert load_config(path, {"train.min_lr": 7e-6}).train.min_lr == 7e-6
    assert load_config(written({rate: 1e-2}, drop=["train.lr"]), {ratio: 0.1}).train.min_lr == pytest.approx(1e-3)


def test_flows_of_a_model_without_streams_are_dropped_and_said(caplog):
    off = {"model.mhc_enabled": False, "model.mhc_flows": 4, "model.mhc_sinkhorn_iters": 20}
    with caplog.at_level(logging.WARNING, "mhcnb"):
        assert load_config(RLM, off) == load_config(RLM, {"connection.name": "residual"})
    dropped = [message for message in caplog.messages if "is false, and is dropped" in message]
    assert [message.split()[1] for message in dropped] == ["model.mhc_flows", "model.mhc_sinkhorn_iters"]
    assert "unknown key connection.streams (given as model.mhc_flows)" in refused(
        {"connection.name": "residual", "model.mhc_flows": 4}
    )


# what is refused -----------------------------------------------------------------------------------------------------


BOTH = "model.gradient_checkpointing", "training.gradient_checkpointing"


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"train.steps": 4, "training.max_steps": 5}, "train.steps and training.max_steps = 5 are one setting"),
        ({"data.max_length": 8, "model.max_seq_len": 16}, "model.max_seq_len and data.max_length = 8 are one setting"),
        (
            {"model.mhc_enabled": False, "connection.name": "mhc"},
            "(connection.name), but say 'mhc' and 'residual'",
        ),
        ({"model.mhc_enabled": True, "connection.name": "residual"}, "but say 'residual' and 'mhc'; give one of them"),
        ({"train.min_lr": 1.0, "training.scheduler.min_lr_ratio": 0.1}, "(train.min_lr), but say 1.0 and 0.0002; give"),
        (dict(zip(BOTH, (True, False), strict=True)), f"{BOTH[0]} and {BOTH[1]} = False are one setting (train.recomp"),
    ],
)
def test_two_names_with_different_values_are_refused(over, says, written):
    path = written(over, drop=["connection.name", "model.block_size"])
    for said, place in ((refused(over), "override: "), (refused({}, path), f"{path}:")):
        assert said.startswith(place)
        assert says in said


def test_two_names_with_one_value_are_one(written):
    assert load_config(RLM, {"train.steps": 4, "training.max_steps": 4}) == load_config(RLM, {"train.steps": 4})
    assert load_config(RLM, dict.fromkeys(BOTH, True)) == load_config(RLM, {"train.recompute": "block"})


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"training.optimizer.type": "sgd"}, "override: training.optimizer.type = 'sgd' (str); expected adamw"),
        ({"training.mixed_precision": "fp8"}, "= 'fp8' (str); expected bf16 or fp16 or fp32"),
        ({"training.gradient_checkpointing": 1}, "= 1 (int); expected true or false"),
        ({"training.scheduler.min_lr_ratio": 10**400}, "expected a number, the share of train.lr (0.002) that is left"),
        ({"model.mhc_enabled": "false"}, "= 'false' (str); expected true or false"),
        ({"training.scheduler.min_lr_ratio": "x"}, "= 'x' (str); expected a number, the share of train.lr (0.002)"),
        (
            {"training.scheduler.type": "step"},
            "train.schedule (given as training.scheduler.type) = 'step' (str); expec",
        ),
        ({"training.optimizer.lr": -1}, "override: train.lr (given as training.optimizer.lr) = -1 (int); expected gre"),
        ({"training.optimizer.betas": [0.9, 2]}, "train.betas (given as training.optimizer.betas): both must lie in"),
        ({"model.hiden_dim": 8}, "override: unknown key model.hiden_dim; did you mean hidden_dim? known: block_size"),
        ({"training.max_stps": 8}, "unknown key training.max_stps; did you mean training.max_steps? known: training."),
        ({"training.lr": 8}, "override: unknown key training.lr; did you mean train.lr? known: training.batch_size"),
        ({"training": 3}, "override: unknown key training; did you mean train? known: connection, data"),
        ({"+resume_from_checkpoint": "x"}, "is an argument of `mhcnb train` alone, not a setting"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_whoever_wrote_it(over, says):
    assert says in refused(over)


def test_errors_of_a_file_name_its_lines(tmp_path):
    path = tmp_path / "guide.yaml"
    for old, new, says in [
        ("max_steps: 300", "max_steps: 1.5", "18: train.steps (given as training.max_steps) = 1.5 (float); expected"),
        ("max_steps: 300", "max_stps: 300", "18: unknown key training.max_stps; did you mean training.max_steps?"),
        ("type: adamw", "type: lion", "15: training.optimizer.type = 'lion' (str); expected adamw"),
    ]:
        path.write_text(GUIDE.replace(old, new))
        assert f"guide.yaml:{says}" in refused({}, path)
    path.write_text(GUIDE)
    assert refused({"train.steps": -1}, path).startswith("override: train.steps = -1 (int)")


@pytest.mark.parametrize("theirs", SAME)
def test_a_model_without_such_a_guide_says_whose_name_it_is(theirs):
    ours = next(rename.ours for rename in RENAMES if rename.theirs == theirs) or "nothing like it"
    said = refused({theirs: SAME[theirs][0]}, GPT)
    assert said == f"override: unknown key {theirs}: a name that model rlm knows; model gpt has {ours}"


def test_an_entity_without_a_project_is_hardly_meant():
    says = "log.wandb_entity me does nothing without log.wandb, the project"
    assert load_config(RLM, {"training.wandb.entity": "me"}).warnings() == [says]
    assert load_config(RLM, {"training.wandb.entity": "me", "training.wandb.project": "p"}).warnings() == []


def test_a_change_of_the_model_brings_its_names():
    config = load_config(GPT, {"model.name": "rlm", "model.hidden_dim": 64})
    assert (config.model.name, config.model.width) == ("rlm", 64)


odd = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([[], {}, "mhc"])


@given(st.dictionaries(st.sampled_from([*SAME, "training", "train", "model.name", "train.lr"]), odd, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_values_give_a_configuration_or_a_config_error(overrides):
    try:
        config = load_config(RLM, overrides)
    except ConfigError:
        return
    assert build_config(as_dict(config), "again") == config


def test_the_argument_is_taken_out_of_the_overrides():
    for name in ("resume_from_checkpoint", "+resume_from_checkpoint"):
        given = {name: "a/b", "train.lr": 1}
        assert renames.checkpoint_in(given) == "a/b"
        assert given == {"train.lr": 1}
    assert renames.checkpoint_in({"train.lr": 1}) is None
    for value in (None, 3, ""):
        with pytest.raises(ConfigError, match="expected the path of one run or checkpoint"):
            renames.checkpoint_in({"+resume_from_checkpoint": value})


# sweeps, and the table for people ------------------------------------------------------------------------------------


def test_sweeps_take_them_in_the_file_and_over_it(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"base: {RLM}\ngrid: {{model.mhc_enabled: [true, false], training.optimizer.lr: [1e-3, 2e-3]}}\n"
        "overrides: {training: {scheduler: {min_lr_ratio: 0.5}}, model.mhc_flows: 2}\n"
    )
    cells = plan(path, {"training.max_steps": 5}, tmp_path / "out").cells
    found = [(c.config.connection.name, c.config.train.lr, c.config.train.min_lr, c.config.train.steps) for c in cells]
    assert found == [(name, lr, lr / 2, 5) for name in ("mhc", "residual") for lr in (1e-3, 2e-3)]
    assert [getattr(cell.config.connection, "streams", None) for cell in cells] == [2, 2, 1, 1]
    with pytest.raises(ConfigError, match=r"train.lr and training.optimizer.lr = 0.001 are one setting"):
        plan(path, {"train.lr": 3e-3}, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"override: unknown key training.max_stps; did you mean training.max_steps"):
        plan(path, {"training.max_stps": 5}, tmp_path / "out")


def test_the_rows_are_the_table():
    rows = {theirs: (ours, words) for theirs, ours, words in renames.rows("rlm")}
    assert rows.keys() == {*SAME, "+resume_from_checkpoint"}
    assert rows["training.mixed_precision"] == ("train.dtype", "bf16: bfloat16, fp16: float16, fp32: float32")
    assert rows["model.gradient_checkpointing"] == ("train.recompute", "true: block, false: none")
    assert rows["training.optimizer.type"][0] == "-"
    assert renames.rows("gpt") == []
