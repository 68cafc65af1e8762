"""A length in epochs is a number of updates when a run starts, and never another one than steps say."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhcnb import load_config, yamlfile
from mhcnb.config import as_dict
from mhcnb.errors import ConfigError
from mhcnb.training.epochs import with_known_updates, with_updates
from mhcnb.training.launch import heeding_environment

TINY = Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml"
SMALL = TINY.parents[1] / "hrm" / "small.yaml"
few = st.integers(1, 50)


@given(few, few, few, st.integers(1, 4))
def test_every_update_has_its_rows_and_less_than_one_is_left_over(epochs, rows, micro, accumulation):
    given = {"train.epochs": epochs, "train.micro_batch": micro, "train.accumulation": accumulation}
    batch = micro * accumulation
    if epochs * rows < batch:
        with pytest.raises(ConfigError, match=rf"is less than one update of {batch} rows .*; give \d+ epochs or more"):
            with_updates(load_config(TINY, given), rows)
        return
    steps = with_updates(load_config(TINY, given), rows).train.steps
    assert steps * batch <= epochs * rows < (steps + 1) * batch


def test_the_published_sudoku_runs():
    """20000 epochs of 1000 puzzles, 768 and 384 rows a batch: 26041 and 52083 updates."""
    for batch, steps in ((768, 26041), (384, 52083)):
        config = load_config(TINY, {"train.epochs": 20000, "train.micro_batch": batch})
        assert config.train.steps == 0
        assert with_updates(config, 1000).train.steps == steps


def test_an_override_of_one_length_takes_the_place_of_the_other(tmp_path, caplog):
    path = tmp_path / "epochs.yaml"
    path.write_text(TINY.read_text().replace("steps: 300", "epochs: 3"))
    with caplog.at_level(logging.WARNING, "mhcnb"):
        assert load_config(path, {"train.steps": 7}).train.epochs == 0
        assert load_config(TINY, {"train.epochs": 2}).train.steps == 0
    assert caplog.messages == [f"train.{name} no longer applies and is dropped" for name in ("epochs", "steps")]


def test_a_run_keeps_both_and_goes_on_from_either(tmp_path):
    """Its config.yaml, that of a run of 3 epochs of 32 rows, 16 a batch, loads to the same length again."""
    begun = with_updates(load_config(TINY, {"train.epochs": 3}), 32)
    path = tmp_path / "config.yaml"
    path.write_text(yamlfile.dump(as_dict(begun)))
    assert (begun.train.epochs, begun.train.steps) == (3, 6)
    assert with_updates(load_config(path), 32) == begun
    longer = with_updates(load_config(path, {"train.epochs": 4}), 32).train
    assert (longer.epochs, longer.steps) == (4, 8)
    longer = with_updates(load_config(path, {"train.steps": 9}), 32).train
    assert (longer.epochs, longer.steps) == (0, 9)
    with pytest.raises(ConfigError, match=r"train.steps = 6 and train.epochs = 3, which is 12 updates of 16 rows with"):
        with_updates(load_config(path), 64)


def test_evaluation_after_each_iteration_of_the_data():
    """Of the guide's small configuration: 100 epochs of 100 puzzles, four at a time."""
    config = load_config(SMALL)
    assert config.train.eval_every == 0
    assert with_updates(config, 100).train.eval_every == 2500
    assert with_updates(load_config(SMALL, {"train.eval_every": 7}), 100).train.eval_every == 7
    with pytest.raises(ConfigError, match=r"train.eval_every = 0 is after each .*data shards have none"):
        with_updates(load_config(TINY, {"train.eval_every": 0}), None)
    untouched = load_config(TINY)
    assert with_updates(untouched, 100) is untouched


def test_what_is_generated_is_known_before_it_is_made():
    assert with_known_updates(load_config(SMALL)) == with_updates(load_config(SMALL), 100)
    unknown = load_config(SMALL, {"data.root": "data/mine"})
    assert with_known_updates(unknown) is unknown


@pytest.mark.parametrize("value", ["1", "0", ""])
def test_disable_compile_is_heeded_whatever_its_value_and_said(value, monkeypatch, caplog):
    plain, compiled = load_config(TINY), load_config(TINY, {"train.compile": True})
    monkeypatch.delenv("DISABLE_COMPILE", raising=False)
    assert heeding_environment(compiled) is compiled
    monkeypatch.setenv("DISABLE_COMPILE", value)
    with caplog.at_level(logging.INFO, "mhcnb"):
        assert heeding_environment(compiled) == plain
        assert heeding_environment(plain) is plain
    assert caplog.messages == ["DISABLE_COMPILE is set: train.compile is off"]
