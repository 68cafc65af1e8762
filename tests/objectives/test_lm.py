"""The loss of language models is cross entropy; its hand-written form keeps less."""

import pytest
import torch
import torch.nn.functional as F

from mhcnb.objectives import lm
from mhcnb.objectives.lm import IGNORED, cross_entropy


def case(dtype=torch.float64, size=3.0):
    generator = torch.Generator().manual_seed(0)
    logits = (size * torch.randn(3, 7, 11, dtype=torch.float64, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(11, (3, 7), generator=generator)
    targets[1, 2:5] = IGNORED
    return logits, targets


@pytest.fixture(params=[1, 30, 10_000], ids=lambda size: f"block {size}")
def block(request, monkeypatch):
    """A row at a time, some, and all."""
    monkeypatch.setattr(lm, "BLOCK", request.param)


@pytest.mark.parametrize("size", [3.0, 1e4])
def test_value_and_gradient_by_torch(block, size):
    logits, targets = case(size=size)
    loss, count = cross_entropy(logits, targets)
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    assert count == 18
    torch.testing.assert_close(loss, plain, rtol=1e-13, atol=0)
    ours, theirs = (torch.autograd.grad(0.25 * x, logits)[0] for x in (loss, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)
    assert not ours[1, 2:5].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_arithmetic_is_float32_and_the_gradient_has_the_type_of_the_logits(block, dtype):
    logits, targets = case(dtype)
    loss, _ = cross_entropy(logits, targets)
    exact = logits.detach().double().requires_grad_()
    plain, _ = cross_entropy(exact, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), plain, rtol=1e-6, atol=0)
    loss.backward()
    plain.backward()
    assert logits.grad.dtype == dtype
    assert torch.equal(logits.grad, exact.grad.to(dtype))


def test_nothing_but_the_logits_is_kept():
    (logits, targets), kept = case(torch.bfloat16), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        cross_entropy(logits, targets)
    assert {x.data_ptr() for x in kept} == {logits.data_ptr(), targets.data_ptr()}


def test_all_ignored():
    logits, targets = case()
    loss, count = cross_entropy(logits, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss == count == 0
    assert not logits.grad.any()


@pytest.mark.parametrize(("block", "rows"), [(1, [1] * 7), (30, [2, 2, 2, 1]), (10_000, [7])])
def test_a_block_has_so_many_logits(monkeypatch, block, rows):
    monkeypatch.setattr(lm, "BLOCK", block)
    logits, targets = torch.zeros(7, 11), torch.zeros(7)
    assert [(len(part), len(at)) for part, at in lm._blocks(logits, targets)] == [(n, n) for n in rows]
