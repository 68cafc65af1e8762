"""What a YAML text says is what a run gets, or an error with the line."""

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb import yamlfile
from mhcnb.errors import ConfigError


def value(text):
    return yamlfile.parse(text, "f.yaml")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 1e-3),
        ("-2E+4", -2e4),
        ("2.5e3", 2.5e3),
        (".5e1", 5.0),
        ("6e-4", 6e-4),
        ("1.5", 1.5),
        ("3", 3),
        ("-7", -7),
        ("true", True),
        ("null", None),
        ("", None),
        ("auto", "auto"),
        ("'1e-3'", "1e-3"),
        ("e-3", "e-3"),
        ("1e3k", "1e3k"),
        ("[1, 2e0]", [1, 2.0]),
        ("{a: {b: 1e-2}}", {"a": {"b": 0.01}}),
        (".inf", math.inf),
    ],
)
def test_values(text, expected):
    got = value(text)
    assert got == expected
    assert type(got) is type(expected)


def test_lines_of_keys():
    _, lines = yamlfile.parse("a: 1\nb:\n  c: 2\n  d: [3, {e: 4}]\n")
    assert lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "d"): 4, ("b", "d", 1, "e"): 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: 'a' stands twice, first on line 1"),
        ("s:\n  x: 1\n\n  x: 2", "f.yaml:4: 'x' stands twice, first on line 2"),
        ("a: !!python/object/apply:os.system [ls]", r"f.yaml:1: the tag 'tag:yaml.org,2002:python/object"),
        ("a: 1\nb: !mine 2", "f.yaml:2: the tag '!mine'"),
        ("a: !!bool maybe", "f.yaml:1: the tag"),
        ("a: !!timestamp now", "f.yaml:1: the tag"),
        ("a: &x 1\nb: *x", "f.yaml:2: aliases"),
        ("yes: 1\ntrue: 2", "f.yaml:1: a key must be text, got yes"),
        ("1: 2", "f.yaml:1: a key must be text, got 1"),
        ("<<: {a: 1}", "f.yaml:1: a key must be text"),
        ("? [a, b]\n: 1", "f.yaml:1: a key must be text"),
        ("a: [1, 2", "f.yaml:1:9: not valid YAML"),
        ("a: b: c", "f.yaml:1:5: not valid YAML"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: not valid YAML"),
        ("a: 2001-13-45", "month must be in"),
        ("a: \x00", "not valid YAML"),
        ("[" * 1000 + "]" * 1000, "nested too deeply"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        value(text)


words = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)  # no line separators
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
trees = st.recursive(plain, lambda x: st.lists(x, max_size=3) | st.dictionaries(words, x, max_size=3))


@given(st.dictionaries(words, trees, max_size=4))
@settings(max_examples=150, deadline=None)
def test_what_is_dumped_reads_back(tree):
    assert value(yamlfile.dump(tree)) == tree


@given(st.text(alphabet="ab1:-[]{}!&*?'\"\n #<=|>%@.,e~\t\\0x_", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_a_config_error(text):
    with contextlib.suppress(ConfigError):
        value(text)


def test_files(tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text("a: 1\n")
    assert yamlfile.read_mapping(good) == ({"a": 1}, {("a",): 1})
    with pytest.raises(ConfigError, match=r"no such file: .*god.yaml; YAML files in .*: good.yaml"):
        yamlfile.read_mapping(tmp_path / "god.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        yamlfile.read_mapping(tmp_path / "nowhere" / "a.yaml")
    for text, kind in {"- a\n": "list", "just words\n": "str", "": "NoneType", "3": "int"}.items():
        good.write_text(text)
        with pytest.raises(ConfigError, match=f"good.yaml:1: expected a mapping.*got {kind}"):
            yamlfile.read_mapping(good)
    good.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 3"):
        yamlfile.read_mapping(good)
    good.write_text("a: 1\n" + "#" * yamlfile.LARGEST)
    with pytest.raises(ConfigError, match="1,000,005 bytes; a configuration has at most 1,000,000"):
        yamlfile.read_mapping(good)
