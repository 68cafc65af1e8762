"""Whatever a configuration holds, it is one or a ConfigError. The known cases are in tests/bad_input."""

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb import load_config, yamlfile
from mhcnb.config import RunConfig, as_dict, build_config, flatten
from mhcnb.errors import ConfigError

TINY = Path(__file__).parents[1] / "params" / "gpt" / "tiny.yaml"


def refused(match, path=TINY, overrides=None):
    with pytest.raises(ConfigError, match=match) as error:
        load_config(path, overrides)
    return str(error.value)


def test_a_missing_section_or_field(tmp_path):
    values = yaml.safe_load(TINY.read_text())
    for section in ("connection", "model", "data", "objective", "train"):
        path = tmp_path / "part.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if k != section}))
        refused(f"{section} is missing", path)
    del values["train"]["steps"]
    path.write_text(yaml.safe_dump(values))
    refused(r"part.yaml:\d+: train: give steps, the number of updates, 1 or more, or epochs", path)


def test_all_errors_at_once():
    text = refused("train.stpes", overrides={"train.stpes": 3, "model.bais": True, "connection.strems": 2})
    assert all(word in text for word in ("model.bais", "connection.strems"))


# whatever a file holds -----------------------------------------------------------------------------------------------

KEYS = [*flatten(as_dict(load_config(TINY))), "connection", "model", "data", "objective", "train", "x", "train.x.y"]
NAMES = ["mhc", "hc", "residual", "mhc_lite", "paper", "auto"]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
odd = st.sampled_from([*NAMES, 10**30, -1, 0, 1.0, [], {}, {"name": "mhc"}])
values = st.recursive(
    scalars | odd, lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=4), x, max_size=2)
)


def outcome(*args):
    """A configuration that survives being written, or a ConfigError."""
    try:
        config = load_config(*args)
    except ConfigError:
        return
    assert isinstance(config, RunConfig)
    assert build_config(as_dict(config), "again") == config


@given(st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3))
@settings(max_examples=250, deadline=None)
def test_any_overrides_give_a_configuration_or_a_config_error(overrides):
    outcome(TINY, overrides)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_file_gives_a_configuration_or_a_config_error(tmp_path_factory, data):
    """tiny.yaml with a few values replaced, as YAML; then with a few characters replaced, as text."""
    tree = as_dict(load_config(TINY))
    for key in data.draw(st.lists(st.sampled_from(list(flatten(tree))), max_size=3)):
        *path, last = key.split(".")
        place = tree
        for name in path:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = data.draw(values)
    text = yamlfile.dump(tree)
    shuffled = random.Random(data.draw(st.integers(0, 10**6)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = shuffled.randrange(len(text))
        text = text[:at] + data.draw(st.sampled_from(list(": \n{}[]!&*'\"-#?|>%@e1\t"))) + text[at + 1 :]
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    outcome(path)
