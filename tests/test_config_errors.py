"""Every wrong configuration is refused with what, where, got, expected and a remedy."""

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


@pytest.fixture
def tiny(tmp_path):
    """tiny(text, **sections): a copy of tiny.yaml, one key a line, with sections replaced and lines added."""

    def tiny(text="", **sections):
        values = yaml.safe_load(TINY.read_text(encoding="utf-8"))
        values["train"]["lr"] = 0.002
        values |= sections
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False, default_flow_style=False) + text, encoding="utf-8")
        return path

    return tiny


def refused(match, path=TINY, overrides=None):
    with pytest.raises(ConfigError, match=match) as error:
        load_config(path, overrides)
    return str(error.value)


# known cases ----------------------------------------------------------------------------------------------------------


def test_25_unknown_key(tiny):
    path = tiny("extra: 1\n")
    line = len(path.read_text().splitlines())
    assert refused("unknown key extra", path).startswith(f"{path}:{line}: unknown key extra")
    path = tiny(train={"steps": 1, "lr": 0.1, "warmpu": 2})
    line = path.read_text().splitlines().index("  warmpu: 2") + 1
    refused(rf"mine.yaml:{line}: unknown key train.warmpu; did you mean warmup\? known: .*steps", path)
    refused(r"override: unknown key train.wramup; did you mean warmup\?", overrides={"train.wramup": 3})
    refused(r"override: unknown key trian; did you mean train\?", overrides={"trian.steps": 3})
    refused(r"unknown key connection.stream; did you mean streams\?", overrides={"connection.stream": 3})
    refused(r"unknown key model.dim", overrides={"model.dim": 3})


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("train.lr", "fast", r"train.lr = 'fast' \(str\); expected a valid number"),
        ("train.lr", "1e-3", r"train.lr = '1e-3' \(str\)"),
        ("train.lr", True, r"train.lr = True \(bool\)"),
        ("train.steps", True, r"train.steps = True \(bool\); expected a valid integer"),
        ("train.steps", 1.5, r"train.steps = 1.5 \(float\)"),
        ("train.steps", 2.0, r"train.steps = 2.0 \(float\)"),
        ("train.steps", "10", r"train.steps = '10' \(str\)"),
        ("train.steps", None, r"train.steps = None"),
        ("train.compile", 1, r"train.compile = 1 \(int\)"),
        ("train.betas", [0.9], r"train.betas"),
        ("train.betas", 0.9, r"train.betas = 0.9"),
        ("train.dtype", "fp8", r"train.dtype = 'fp8' .*'bfloat16'"),
        ("model.bias", "no", r"model.bias = 'no'"),
        ("model.vocab_size", "big", r"model.vocab_size = 'big'"),
        ("model.vocab_size", True, r"model.vocab_size = True"),
        ("connection.dialect", "papre", r"connection.dialect = 'papre' .*'paper', 'mhc_lite' or 'deepseek_v4'"),
        ("connection.dialect", ["paper"], r"connection.dialect = \['paper'\]"),
        ("connection.streams", 4.0, r"connection.streams = 4.0"),
        ("train", 3, r"train = 3 \(int\)"),
        ("connection", 3, r"connection = 3 \(int\)"),
        ("seed", True, r"seed = True \(bool\)"),
    ],
)
def test_26_wrong_type(key, value, text):
    refused(text, overrides={key: value})


def test_26_numbers(tiny):
    path = tiny()
    path.write_text(path.read_text().replace("lr: 0.002\n", "lr: 1e-3\n", 1))
    assert load_config(path).train.lr == 1e-3
    assert load_config(path, {"train.lr": 1}).train.lr == 1.0
    path.write_text(path.read_text().replace("lr: 1e-3\n", "lr: fast\n", 1))
    line = path.read_text().splitlines().index("  lr: fast") + 1
    refused(f"mine.yaml:{line}: train.lr = 'fast'", path)


def test_27_duplicate_key(tiny):
    path = tiny("seed: 2\n")
    lines = path.read_text().splitlines()
    refused(f"mine.yaml:{len(lines)}: 'seed' stands twice, first on line {lines.index('seed: 1') + 1}", path)


def test_28_tags_and_what_is_not_a_mapping(tiny, tmp_path):
    refused("the tag 'tag:yaml.org,2002:python/object", tiny("x: !!python/object/apply:os.system [ls]\n"))
    other = tmp_path / "list.yaml"
    other.write_text("- 1\n")
    refused("list.yaml:1: expected a mapping", other)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", 0),
        ("train.steps", -1),
        ("train.micro_batch", 0),
        ("train.accumulation", 0),
        ("train.lr", 0.0),
        ("train.lr", -1e-3),
        ("train.lr", float("nan")),
        ("train.lr", float("inf")),
        ("train.min_lr", -1.0),
        ("train.warmup", -1),
        ("train.weight_decay", -0.1),
        ("train.clip", -1.0),
        ("train.betas", [0.9, 1.0]),
        ("train.betas", [-0.1, 0.9]),
        ("train.betas", [float("nan"), 0.9]),
        ("train.eval_every", 0),
        ("train.eval_batches", 0),
        ("log.every", 0),
        ("seed", -1),
        ("seed", 2**63),
        ("model.layers", 0),
        ("model.dropout", 1.0),
        ("model.dropout", -0.5),
        ("model.vocab_size", 0),
        ("connection.norm_eps", 0.0),
        ("connection.iterations", 0),
        ("connection.eps", -1e-6),
    ],
)
def test_29_out_of_range(key, value):
    text = refused(key, overrides={key: value})
    assert str(value[0] if isinstance(value, list) else value) in text


def test_30_heads_that_do_not_divide_the_width():
    refused("width 128 is not divisible by heads 5; nearest widths: 125 and 130", overrides={"model.heads": 5})
    refused("width 2 is not divisible by heads 4; nearest widths: 4 and 4|4", overrides={"model.width": 2})


def test_31_streams():
    refused("connection.streams: at least 2 streams; 1 is the connection residual", overrides={"connection.streams": 1})
    refused("connection.streams = 0", overrides={"connection.streams": 0})
    refused("unknown key connection.streams", overrides={"connection.name": "residual", "connection.streams": 1})


def test_32_too_many_permutations():
    seven = {"connection.name": "mhc_lite", "connection.streams": 7}
    refused(r"n! = 5040 permutations at n = 7, \+27 M parameters per sublayer at width 768", overrides=seven)
    assert load_config(TINY, {"connection.name": "mhc_lite", "connection.streams": 6}).connection.streams == 6


def test_33_unknown_names():
    name = {"connection.name": "mhclite"}
    refused(r"no connection is called 'mhclite'; did you mean mhc_lite\? known: ", overrides=name)
    refused("connection.name is missing or not a name; known: .*mhc", overrides={"connection.name": 3})
    for section in ("model", "data", "objective"):
        refused("is called 'nothing'", overrides={f"{section}.name": "nothing"})


def test_36_is_a_warning():
    config = load_config(TINY, {"train.steps": 50, "train.warmup": 60, "train.eval_every": 70, "train.min_lr": 1.0})
    text = "\n".join(config.train.warnings())
    for words in ("train.warmup 60 > train.steps 50: the rate stays on its ramp", "eval_every 70", "min_lr 1 "):
        assert words in text
    assert load_config(TINY).train.warnings() == []


def test_a_missing_section_or_field(tmp_path):
    values = yaml.safe_load(TINY.read_text())
    for section in ("connection", "model", "data", "objective", "train"):
        path = tmp_path / "part.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if k != section}))
        refused(f"{section} is missing", path)
    del values["train"]["steps"]
    path.write_text(yaml.safe_dump(values))
    refused(r"part.yaml:\d+: train.steps is missing", path)


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
