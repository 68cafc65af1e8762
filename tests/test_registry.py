"""Names are read off the folder; an unknown one is answered with the known."""

import ast
from pathlib import Path

import pytest

import mhcnb
from mhcnb import registry
from mhcnb.errors import ConfigError, nearest


def test_the_entries():
    assert {"residual", "hc", "mhc", "mhc_lite"} <= set(registry.entries("connections"))
    assert "gpt" in registry.entries("models")
    assert "shards" in registry.entries("data")
    assert "lm" in registry.entries("objectives")


@pytest.mark.parametrize("axis", registry.AXES)
def test_every_entry_is_a_class_of_its_axis_with_a_config(axis):
    base = getattr(__import__(f"mhcnb.{axis}.base", fromlist=["x"]), registry.AXES[axis])
    for name in registry.entries(axis):
        cls = registry.load(axis, name)
        assert issubclass(cls, base)
        assert cls is not base
        assert "name" in cls.Config.model_fields


@pytest.mark.parametrize("axis", registry.AXES)
def test_every_file_of_an_axis_that_defines_an_entry_is_found(axis):
    """By the syntax tree, where the registry reads text."""
    found = set()
    for file in (Path(mhcnb.__file__).parent / axis).glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and registry.AXES[axis] in [ast.unparse(b) for b in node.bases]:
                found.add(file.stem)
    assert found == set(registry.entries(axis))


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"no connection is called 'mch'; did you mean mhc.* known: .*residual"):
        registry.load("connections", "mch")
    with pytest.raises(ConfigError, match="no model is called 'zzz'; known: "):
        registry.load("models", "zzz")


def test_nearest():
    assert nearest("learning", ["lr", "earning"]) == "; did you mean earning? known: earning, lr"
    assert nearest("x", []) == "; known: none"
