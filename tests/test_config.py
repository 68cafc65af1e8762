"""A configuration is what was asked for, or an error that says what, where and what to do instead."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from mhcnb import load_config, registry, yamlfile
from mhcnb.config import as_dict, flatten, parse_overrides
from mhcnb.errors import ConfigError

TINY = Path(__file__).parents[1] / "params" / "gpt" / "tiny.yaml"
DIALECTS = ["paper", "mhc_lite", "deepseek_v4"]
CONNECTIONS = list(registry.entries("connections"))


def refused(match, path=TINY, overrides=None):
    with pytest.raises(ConfigError, match=match) as error:
        load_config(path, overrides)
    return str(error.value)


# overrides -----------------------------------------------------------------------------------------------------------


def test_overrides_by_dots_and_by_mappings_are_one():
    dotted = load_config(TINY, {"connection.name": "hc", "connection.streams": 3, "train.lr": 1e-3})
    assert dotted == load_config(TINY, {"connection": {"name": "hc", "streams": 3}, "train": {"lr": 1e-3}})
    assert (dotted.connection.name, dotted.connection.streams, dotted.train.lr) == ("hc", 3, 1e-3)
    assert dotted.train.steps == load_config(TINY).train.steps
    assert flatten({"a": {"b": {"c": 1}}, "d.e": 2}) == {"a.b.c": 1, "d.e": 2}


def test_a_section_that_the_file_lacks_may_be_overridden():
    assert load_config(TINY, {"log.every": 3}).log.every == 3


def test_parse_overrides():
    parsed = parse_overrides(["train.lr=1e-3", "train.steps=5", "a=true", "b={c: 1}", "d=x=y", "e="])
    assert parsed == {"train.lr": 1e-3, "train.steps": 5, "a": True, "b": {"c": 1}, "d": "x=y", "e": None}
    for pairs, match in [
        (["train.steps"], "expected key=value"),
        (["=3"], "expected key=value"),
        (["a=1", "a=2"], "a is given twice: 1 and '2'"),
        (["a=[1"], "a=.1:.*not valid YAML"),
    ]:
        with pytest.raises(ConfigError, match=match):
            parse_overrides(pairs)


def test_keys_that_lead_nowhere():
    refused("train.lr.x: lr is a plain value", overrides={"train.lr.x": 1})
    refused("is dotted text", overrides={3: 1})
    refused("unknown key", overrides={"": 1})


# dialects, names and what they drop ----------------------------------------------------------------------------------


def test_a_dialect_fills_what_is_not_given():
    config = load_config(TINY, {"connection.dialect": "mhc_lite", "connection.norm_eps": 1e-3}).connection
    assert (config.norm, config.norm_eps, config.norm_weight) == ("l2", 1e-3, True)
    assert (config.reduce, config.order, config.init) == ("norm_sum", "columns", "method")
    config = load_config(TINY).connection
    assert (config.norm, config.norm_eps, config.norm_weight) == ("rms", 1e-6, False)
    assert (config.reduce, config.order, config.init) == ("mean", "rows", "exact_residual")


@pytest.mark.parametrize("new", CONNECTIONS)
@pytest.mark.parametrize("old", CONNECTIONS)
def test_a_new_name_takes_only_fields_it_has(old, new, tmp_path, caplog):
    """From a config.yaml, which writes out every field of the old method."""
    path = tmp_path / "config.yaml"
    path.write_text(yamlfile.dump(as_dict(load_config(TINY, {"connection.name": old}))))
    with caplog.at_level(logging.WARNING, "mhcnb.config"):
        config = load_config(path, {"connection.name": new})
    assert config == load_config(TINY, {"connection.name": new})
    fields = [set(registry.load("connections", name).Config.model_fields) for name in (old, new)]
    assert {record.args[0] for record in caplog.records} == {f"connection.{field}" for field in fields[0] - fields[1]}


def test_a_new_dialect_gives_its_own_fields(tmp_path, caplog):
    path = tmp_path / "config.yaml"
    path.write_text(yamlfile.dump(as_dict(load_config(TINY, {"connection.streams": 3, "connection.iterations": 7}))))
    with caplog.at_level(logging.WARNING, "mhcnb.config"):
        config = load_config(path, {"connection.dialect": "mhc_lite"})
    assert config == load_config(
        TINY, {"connection.streams": 3, "connection.iterations": 7, "connection.dialect": "mhc_lite"}
    )
    assert "connection.reduce no longer applies and is dropped" in caplog.text
    caplog.clear()
    assert load_config(path, {"connection.dialect": "paper"}).connection.iterations == 7
    assert not caplog.records


def test_an_override_beats_the_new_dialect():
    config = load_config(TINY, {"connection.dialect": "mhc_lite", "connection.order": "rows"})
    assert config.connection.order == "rows"


# the object ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_config_yaml_reloads_to_an_equal_object(connection, dialect, tmp_path):
    fields = registry.load("connections", connection).Config.model_fields
    overrides = {"connection.name": connection, "train.lr": 1 / 3, "train.min_lr": 1e-7, "model.vocab_size": 64}
    config = load_config(TINY, overrides | ({"connection.dialect": dialect} if "dialect" in fields else {}))
    path = tmp_path / "config.yaml"
    path.write_text(yamlfile.dump(as_dict(config)))
    again = load_config(path)
    assert again == config
    assert again.digest() == config.digest()
    assert type(again.connection) is type(config.connection)
    assert path.read_text() == yamlfile.dump(as_dict(again))


def test_digest_sees_every_difference():
    changes = [{}, {"seed": 2}, {"train.lr": 0.5}, {"connection.streams": 3}, {"model.bias": True}, {"log.every": 1}]
    assert len({load_config(TINY, change).digest() for change in changes}) == len(changes)
    assert load_config(TINY).digest() == load_config(TINY).digest()


def test_frozen():
    config = load_config(TINY)
    with pytest.raises(ValueError, match="frozen"):
        config.train.steps = 3
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_preset_is_the_name_of_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TINY.read_text().replace("preset: tiny\n", ""))
    assert load_config(path).preset == "mine"
    assert load_config(TINY).preset == "tiny"


def test_every_params_file_loads():
    files = list(TINY.parents[1].glob("*/*.yaml"))
    models = [file for file in files if file.parent.name != "sweeps"]
    assert len(models) >= 4
    for file in models:
        assert load_config(file).preset == file.stem


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, mhcnb; print([m for m in ('torch', 'pydantic', 'pandas', 'papermill') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
