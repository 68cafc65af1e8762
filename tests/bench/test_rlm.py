"""The benchmarks of the RLM run, small; what they time is the same work."""

import importlib.util

import pytest

from mhcnb.bench import generate, rlm


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"VOCABULARY": 64, "WIDTH": 16, "LAYERS": 2, "HEADS": 2, "TOKENS": 8}.items():
        monkeypatch.setattr(rlm, name, value)
    monkeypatch.setattr(generate, "TOKENS", 16)
    monkeypatch.setattr(generate, "WINDOW", 4)


def test_updates_beside_those_of_llama():
    timings = rlm.rlm(rounds=2)
    assert [t.name for t in timings] == ["llama of transformers", "residual", "mhc"]
    assert timings[0].ratio == 1
    assert all(t.median_s > 0 for t in timings)


def test_without_transformers_the_rest_is_timed(monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [t.name for t in rlm.rlm(rounds=2)] == ["residual", "mhc"]
    assert "pip install transformers" in caplog.text


def test_a_text_in_quarters():
    timings = generate.generate(rounds=2)
    assert [t.name for t in timings] == [f"{c}: to token {k}" for c in ("residual", "mhc") for k in (4, 8, 12, 16)]
    assert [t.ratio for t in timings if t.name.endswith("token 4")] == [1, 1]
