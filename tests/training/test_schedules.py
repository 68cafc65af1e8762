"""Every schedule is what torch's own scheduler gives, and a function of the update alone."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from mhcnb.config import TrainConfig
from mhcnb.training.schedules import rate_at

NAMES = ["cosine", "linear", "constant", "wsd"]
runs = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 60),
        "warmup": st.integers(0, 70),
        "lr": st.floats(1e-6, 10),
        "min_lr": st.floats(0, 1e-6),
        "decay": st.floats(0.01, 1),
    }
)


def rates(name, **fields):
    """Of all updates."""
    train = TrainConfig(schedule=name, **fields)
    return [rate_at(train, step) for step in range(1, train.steps + 1)]


def torch_rates(name, steps, warmup, lr, min_lr, decay):
    """The same by torch's schedulers, one after the other, step by step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    fall = steps - max(warmup, steps - round(decay * steps)) if name == "wsd" else steps - warmup
    end = {
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, fall, min_lr),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, 1.0, min_lr / lr, fall),
        "wsd": lambda: lr_scheduler.LinearLR(optimizer, 1.0, min_lr / lr, fall),
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, 1.0, 1),
    }
    parts, milestones = [], []
    if warmup:
        parts.append(lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup))
        milestones.append(warmup)
    if name == "wsd" and (stable := steps - fall) > warmup:
        parts.append(lr_scheduler.ConstantLR(optimizer, 1.0, 1))
        milestones.append(stable)
    scheduler = lr_scheduler.SequentialLR(optimizer, [*parts, end[name]()], milestones)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("warmup", [0, 7])
def test_rates_are_those_of_torch(name, warmup):
    fields = dict(steps=40, warmup=warmup, lr=0.3, min_lr=0.03, decay=0.25)
    assert rates(name, **fields) == pytest.approx(torch_rates(name, **fields), rel=1e-12)


@given(st.sampled_from(NAMES), runs)
def test_a_rate_rises_for_the_warmup_reaches_lr_and_never_rises_again(name, fields):
    found, warmup, lr = rates(name, **fields), fields["warmup"], fields["lr"]
    ramp = [lr * k / (warmup + 1) for k in range(1, warmup + 1)]
    assert found[:warmup] == pytest.approx(ramp[: len(found)], rel=1e-15)
    after = found[warmup:]
    assert after[:1] == pytest.approx([lr][: len(after)], rel=1e-15)
    assert all(a >= b for a, b in pairwise(after))
    assert all(rate >= min(fields["min_lr"], lr) for rate in after)


@given(runs)
def test_wsd_holds_lr_until_the_last_share_of_the_updates(fields):
    found, steps, lr = rates("wsd", **fields), fields["steps"], fields["lr"]
    falls = min(round(fields["decay"] * steps), max(0, steps - fields["warmup"]))
    assert found[fields["warmup"] : steps - falls] == [lr] * max(0, steps - falls - fields["warmup"])
    if fields["min_lr"] < lr * (1 - 1e-9):  # else there is nowhere to fall to, to rounding
        assert all(rate < lr for rate in found[steps - falls + 1 :])
    assert rates("constant", **fields)[fields["warmup"] :] == [lr] * max(0, steps - fields["warmup"])


def test_closed_forms():
    fields = dict(steps=100, warmup=10, lr=1.0, min_lr=0.1, decay=0.3)
    cosine, linear, wsd = (rates(name, **fields) for name in ("cosine", "linear", "wsd"))
    for done in range(10, 100):
        progress = (done - 10) / 90
        assert cosine[done] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2, rel=1e-15)
        assert linear[done] == pytest.approx(1 - 0.9 * progress, rel=1e-14)
        assert wsd[done] == pytest.approx(1 - 0.9 * max(0, done - 70) / 30, rel=1e-14)


@given(st.sampled_from(NAMES), st.integers(61, 10_000))
def test_what_comes_after_the_last_update_stays_at_the_end(name, step):
    train = TrainConfig(schedule=name, steps=60, warmup=5, lr=1.0, min_lr=0.1)
    assert rate_at(train, step) == pytest.approx(1.0 if name == "constant" else 0.1, rel=1e-12)
