from pathlib import Path

import pytest

from mhcnb import load_config
from mhcnb.analysis.comparable import cautions, filtered, incomparable
from mhcnb.analysis.compare import read
from mhcnb.run import Run, find_runs

TINY = Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml"


def members(folder, *runs, env=None):
    """Members read off folders with these overrides, named a, b, ..."""
    for name, overrides in zip("abcdef", runs, strict=False):
        run = Run.create(folder / name, load_config(TINY, {"model.vocab_size": 64, "train.steps": 10} | overrides))
        run.write_env((env or {}).get(name, {}))
        run.set_status("done", 10)
        run.release()
    return read(find_runs(folder))[0]


def test_runs_of_several_connections_and_seeds_need_no_caution(tmp_path):
    runs = [{"connection.name": name, "seed": k} for name in ("residual", "hc", "mhc_lite") for k in (1, 2)]
    assert cautions(members(tmp_path, *runs)) == []


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("connection.dialect", ["paper", "mhc_lite"], "conventions differ"),
        ("connection.init", ["exact_residual", "method"], "do not start from the same function"),
        ("connection.decay_static", [False, True], "static maps shrink"),
        ("connection.order", ["rows", "columns"], "exact side"),
        ("train.weight_decay", [0.1, 0.0], "decay acts"),
        ("train.dtype", ["float32", "bfloat16"], "rounding differs"),
        ("data.root", ["embedded", "elsewhere"], "not trained and evaluated on the same data"),
        ("model.vocab_size", [64, 128], "losses do not compare"),
        ("train.lr", [1e-3, 2e-3], "the recipe differs"),
    ],
)
def test_a_field_that_differs_is_named_with_its_values_runs_and_meaning(tmp_path, key, values, said):
    words = cautions(members(tmp_path, *({"connection.name": "mhc", key: value} for value in values)))
    (line,) = [word for word in words if word.startswith(f"{key} differs")]
    assert f"{values[0]} (a), {values[1]} (b)" in line
    assert said in line


def test_tokens_text_and_device_are_compared_though_no_field_names_them(tmp_path):
    env = {
        "a": {"device": "cpu", "data": {"files": {"val": [{"digest": "0123456789"}]}}},
        "b": {"device": "cuda", "data": {"files": {"val": [{"digest": "abcdef0123"}]}}},
    }
    words = "\n".join(cautions(members(tmp_path, {}, {"train.steps": 20}, env=env)))
    assert "validation text differs: 01234567 (a), abcdef01 (b)" in words
    assert "device differs: cpu (a), cuda (b)" in words
    assert "train.steps differs: 10 (a), 20 (b); not trained on the same number of tokens" in words


def test_settings_without_a_partner_are_said(tmp_path):
    runs = members(tmp_path, {"connection.name": "hc"}, {"connection.name": "mhc", "train.lr": 1e-4})
    assert "No two methods share a setting" in incomparable(runs)[0]
    assert incomparable([]) == []


def test_filters_take_names_and_patterns_and_say_what_they_miss(tmp_path):
    runs = members(tmp_path, *({"connection.name": name} for name in ("residual", "hc", "mhc", "mhc_lite")))
    kept, words = filtered(runs, methods="mhc*, residual")
    assert {m.method for m in kept} == {"residual", "mhc", "mhc_lite"}
    assert words == []
    kept, words = filtered(runs, methods="hyper", presets="tiny")
    assert kept == []
    assert words == ["methods: 'hyper' matches none of hc, mhc, mhc_lite, residual"]
    assert filtered(runs) == (runs, [])
