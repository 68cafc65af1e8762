"""What a training says of its connections, and that saying it changes nothing."""

import logging
import math

import pytest
import torch

from mhcnb import build_model, registry
from mhcnb.analysis.gains import gains
from mhcnb.analysis.measure import measure
from mhcnb.analysis.record import record
from mhcnb.config import LogConfig
from mhcnb.errors import ConfigError
from mhcnb.layers.site import probing, sites
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model
from mhcnb.training.loop import train, train_steps
from mhcnb.training.monitoring import as_record, words_of, words_of_gradient, words_of_maps
from mhcnb.training.setup import open_source

LIMITS = LogConfig()


def maps_of(model):
    return measure(model, [{"inputs": torch.arange(8).unsqueeze(0)}]).maps


def words(model, scale=1.0):
    """What is said of a model whose residual maps are multiplied by `scale`."""
    connection = next(iter(sites(model).values())).connection
    with probing(model, lambda _, maps: maps._replace(res=maps.res * scale)):
        return words_of_maps(maps_of(model), connection, LIMITS)


def test_records_come_at_their_steps_and_hold_the_gains_of_the_final_checkpoint(small, tmp_path):
    config = small(**{"log.maps_every": 3, "train.lr": 1e-2, "train.warmup": 0})
    train(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    records = run.results("maps")
    assert [r["step"] for r in records] == [0, 3, 6]
    model, config = load_model(run.path)
    batch = open_source(config)[0].evaluation_batch("val", 0, 8, 8)  # 8 windows of 8 tokens is all there are
    frame = gains(record(model, batch))
    last = records[-1]
    assert last["tokens"] == 64
    names = ["main.0.attn", "main.0.mlp"]
    for side, scope in (("forward", "prefix"), ("backward", "suffix")):
        single = frame[frame["scope"] == "single"].set_index("site")[side]
        composite = frame[frame["scope"] == scope].set_index("site")[side]
        assert {name: gain[side] for name, gain in last["gains"].items()} == pytest.approx(single.to_dict(), abs=1e-6)
        assert last["composite"][side] == pytest.approx(composite.to_dict(), abs=1e-6)
        assert list(last["gains"]) == list(last["composite"][side]) == names
    for r in record(model, batch):
        larger = [max(P.sum(1).abs().max(), P.sum(0).abs().max()) for P in r.maps.res.double().flatten(end_dim=-3)]
        assert last["amax"][r.site] == pytest.approx(sum(map(float, larger)) / 64, abs=1e-6)
    assert list(last["log_range"]) == list(last["lambda2"]) == list(last["gate_res"]) == names
    assert list(last["cosine"]) == [*names, "main.exit"]
    assert last["min_column_sum"] != records[0]["min_column_sum"]
    assert words_of(run) == run.status()["words"] == []


@pytest.mark.parametrize("connection", ["hc", "mhc"])
def test_bits_of_a_training_are_equal_with_and_without_records(small, tmp_path, connection):
    common = {"connection.name": connection, "model.dropout": 0.2}
    train(small(**common), tmp_path / "without")
    train(small(**common, **{"log.maps_every": 1}), tmp_path / "with")
    kinds = [[r["loss"] for r in Run(tmp_path / name).results("train")] for name in ("without", "with")]
    assert kinds[0] == kinds[1]
    a, b = (load_model(tmp_path / name)[0].state_dict() for name in ("without", "with"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_none_is_written_unless_asked_for_and_less_than_none_is_refused(small, tmp_path):
    train(small(), tmp_path / "run")
    assert Run(tmp_path / "run").results("maps") == []
    with pytest.raises(ConfigError, match=r"log.maps_every = -1 \(int\); expected greater than or equal to 0"):
        small(**{"log.maps_every": -1})


def test_two_ranks_write_one_record_and_learn_the_same(params, tmp_path, mhcnb):
    assert mhcnb("train", params(), "--out", tmp_path / "without", ranks=2).returncode == 0
    done = mhcnb("train", params(), "log.maps_every=2", "--out", tmp_path / "with", ranks=2)
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "with")
    assert [r["step"] for r in run.results("maps")] == [0, 2, 4, 6]
    without = [r["loss"] for r in Run(tmp_path / "without").results("train")]
    assert [r["loss"] for r in run.results("train")] == without


@pytest.mark.parametrize("connection", sorted(registry.entries("connections")))
def test_nothing_is_said_of_a_fresh_model(small, connection):
    assert words(build_model(small(**{"connection.name": connection, "model.layers": 3}))) == {}


def test_a_single_gain_above_two_is_named_with_its_bound(small):
    found = words(build_model(small(**{"connection.name": "mhc_lite"})), 2.5)
    text = "gain forward of main.0.attn is 2.5, above 2 (log.warn_gain); mhc_lite bounds it by 1"
    assert found["single forward"] == text
    assert found["single backward"] == text.replace("forward", "backward")


def test_a_composite_above_its_bound_is_named(small):
    lite = words(build_model(small(**{"connection.name": "mhc_lite"})), 1.1)
    assert set(lite) == {"composite forward", "composite backward"}
    assert "from entry to main.0.mlp is 1.21 for a token, above 1, the bound of mhc_lite" in lite["composite forward"]
    mhc = words(build_model(small(**{"connection.name": "mhc"})), 1.1)
    assert set(mhc) == {"composite forward"}  # rows are the exact side; columns may reach n
    mhc = words(build_model(small(**{"connection.name": "mhc", "connection.order": "columns"})), 2.1)
    assert "above 4, the bound of mhc (exact columns)" in mhc["composite forward"]
    assert "above 1, the bound" in mhc["composite backward"]


def test_a_bound_holds_for_every_token_and_not_for_their_mean(small):
    model = build_model(small(**{"connection.name": "mhc_lite"}))
    connection = next(iter(sites(model).values())).connection
    scale = torch.tensor([1.2, *[0.9] * 7]).view(1, 8, 1, 1)
    with probing(model, lambda _, maps: maps._replace(res=maps.res * scale)):
        found = words_of_maps(maps_of(model), connection, LIMITS)
    assert "is 1.44 for a token, above 1" in found["composite forward"]


def test_of_hc_a_growing_gain_is_a_finding_and_not_an_error(small):
    found = words(build_model(small(**{"connection.name": "hc"})), 2.1)
    assert set(found) == {"single forward", "single backward", "composite forward", "composite backward"}
    assert "is 4.41, above n = 4" in found["composite forward"]
    assert all("a finding, not an error, for hc does not bound its gains" in text for text in found.values())


def test_nan_does_not_go_unsaid(small):
    assert set(words(build_model(small()), math.nan)) >= {"single forward", "composite backward"}
    assert words_of_gradient(math.nan, LIMITS)


def test_a_gradient_norm_above_ten_is_named():
    assert words_of_gradient(10.0, LIMITS) == {}
    assert words_of_gradient(12.5, LIMITS) == {"grad_norm": "gradient norm 12.5, above 10 (log.warn_grad_norm)"}


def test_words_reach_the_log_once_and_every_status(small, tmp_path, caplog):
    config = small(**{"log.maps_every": 2, "log.warn_gain": 0.5, "log.warn_grad_norm": 1e-6})
    run = Run(tmp_path / "run")
    with caplog.at_level(logging.WARNING, "mhcnb.training.monitoring"):
        for info in train_steps(config, run.path):
            assert all(word in run.status()["words"] for word in words_of(run))
            assert len(words_of(run)) == (2 if info.step == 0 else 3)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["step 0", "step 0", "step 1"]
    assert "above 0.5 (log.warn_gain); mhc bounds it by 4" in caplog.text
    assert run.status()["state"] == "done"
    assert [word.split(":")[0] for word in words_of(run)] == ["step 6"] * 3


def test_a_residual_run_has_a_record_too(small):
    found = as_record(
        measure(build_model(small(**{"connection.name": "residual"})), [{"inputs": torch.ones(1, 8).long()}])
    )
    assert found["composite"]["forward"] == {"main.0.attn": 1.0, "main.0.mlp": 1.0}
    assert "log_range" not in found
