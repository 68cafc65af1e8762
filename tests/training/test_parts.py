"""Schedule, shares, devices, gradients: each against what it claims."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mhcnb.errors import ConfigError
from mhcnb.models.base import build_model
from mhcnb.training import launch
from mhcnb.training.distributed import World, share, world_from_env
from mhcnb.training.optim import build_optimizer, scale_and_clip, set_rate
from mhcnb.training.schedules import rate_at


def test_rate_rises_for_warmup_updates_then_falls_as_half_a_cosine(small):
    train = small(**{"train.steps": 100, "train.warmup": 10, "train.lr": 1.0, "train.min_lr": 0.1}).train
    rates = [rate_at(train, step) for step in range(1, 101)]
    assert np.allclose(np.diff(rates[:10]), 1 / 11)
    assert rates[10] == 1.0
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[55] == pytest.approx(0.55)  # half way
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_a_warmup_longer_than_the_run_stays_on_its_ramp_and_is_a_warning(small):
    train = small(**{"train.steps": 5, "train.warmup": 10}).train
    assert [rate_at(train, s) for s in (1, 5)] == pytest.approx([train.lr / 11, train.lr * 5 / 11])
    assert any("train.warmup 10 > train.steps 5" in warning for warning in train.warnings())


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12))
def test_the_shares_of_all_ranks_are_the_global_batch_once(world, per_rank, micro):
    config = _batch(micro, world * per_rank)
    rows = [row for rank in range(world) for row in _rows(share(config, World(rank, world, rank)))]
    assert sorted(rows) == list(range(micro * world * per_rank))


def test_a_single_micro_batch_is_sliced():
    rows = [_rows(share(_batch(6, 1), World(rank, 3, rank))) for rank in range(3)]
    assert rows == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("micro", "accumulation", "world", "nearest"),
    [
        (5, 1, 2, "train.micro_batch: 4 or 6"),
        (4, 3, 2, "train.accumulation: 2 or 4"),
        (2, 1, 3, "train.micro_batch: 3"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused_with_the_nearest_that_can(micro, accumulation, world, nearest):
    with pytest.raises(ConfigError, match=nearest) as error:
        share(_batch(micro, accumulation), World(0, world, 0))
    assert all(str(number) in str(error.value) for number in (micro, accumulation, world))


def _batch(micro, accumulation):
    from types import SimpleNamespace

    return SimpleNamespace(train=SimpleNamespace(micro_batch=micro, accumulation=accumulation))


def _rows(part):
    return [part.first + i * part.stride + row for i in range(part.steps) for row in range(part.size)]


def test_half_a_rank_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="RANK=0 is set but WORLD_SIZE, LOCAL_RANK is not"):
        world_from_env()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without an accelerator")
def test_a_device_that_is_not_there_is_refused(small):
    with pytest.raises(ConfigError, match=r"train\.device is cuda, but this process sees no such device"):
        launch.choose_device(small(**{"train.device": "cuda"}), World())


def test_more_ranks_than_devices_are_refused(small, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"local rank 2 has no device: 2 cuda device\(s\) are visible"):
        launch.choose_device(small(), World(2, 3, 2))


def test_float16_on_a_cpu_is_refused_and_bfloat16_is_not(small):
    cpu = torch.device("cpu")
    with pytest.raises(ConfigError, match="float16 needs CUDA; on a CPU use float32 or bfloat16"):
        launch.autocast_dtype(small(**{"train.dtype": "float16"}), cpu)
    assert launch.autocast_dtype(small(**{"train.dtype": "bfloat16"}), cpu) == torch.bfloat16
    assert launch.autocast_dtype(small(), cpu) == torch.float32


@given(st.floats(0.01, 10), st.sampled_from([0.0, 0.5, 100.0]), st.integers(0, 1000))
def test_scaling_and_clipping_in_one_pass_is_scaling_then_clipping(factor, clip, seed):
    torch.manual_seed(seed)
    ours, theirs = ([torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5))] for _ in range(2))
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad * factor
    norm = scale_and_clip(ours, torch.tensor(factor), clip)
    expected = torch.nn.utils.clip_grad_norm_(theirs, clip or math.inf)
    assert float(norm) == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def names_by_group(model, optimizer):
    names = {id(p): name for name, p in model.named_parameters()}
    return {group["name"]: {names[id(p)] for p in group["params"]} for group in optimizer.param_groups}


@pytest.mark.parametrize(("connection", "reduce"), [("mhc", "mean"), ("hc", "head"), ("residual", None)])
def test_connections_may_have_a_rate_of_their_own(small, connection, reduce):
    """Else the groups are those of always, so that the optimizers of earlier runs still fit."""
    given = {"connection.name": connection} | ({"connection.reduce": reduce} if reduce == "head" else {})
    given |= {"connection.init": "method"} if reduce == "head" else {}
    model = build_model(small(**given))
    plain = build_optimizer(model, small(**given).train)
    apart = build_optimizer(model, small(**given, **{"train.connection_lr": 0.25}).train)
    before, after = names_by_group(model, plain), names_by_group(model, apart)
    assert list(before) == ["matrices", "vectors"]
    theirs = {name for name, _ in model.named_parameters() if ".connection." in name or ".ends." in name}
    assert bool(theirs) == (connection != "residual")
    assert any(".ends." in name for name in theirs) == (reduce == "head")
    for kind in before:
        assert after[kind] == before[kind] - theirs
        assert after.get(f"{kind} of connections", set()) == before[kind] & theirs
    set_rate(apart, 0.4)
    for group in apart.param_groups:
        own = group["name"].endswith("of connections")
        assert group["lr"] == (0.1 if own else 0.4)
        assert group["weight_decay"] == (0.1 if group["name"].startswith("matrices") else 0.0)


def test_rates_follow_the_groups_multipliers(small):
    config = small()
    optimizer = build_optimizer(build_model(config), config.train)
    optimizer.param_groups[0]["lr_mult"] = 0.5
    set_rate(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"matrices": config.train.weight_decay, "vectors": 0.0}
