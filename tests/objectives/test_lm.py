"""The loss of language models is cross entropy; made by blocks of tokens from states and head, it keeps no logits."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mhcnb import build_model
from mhcnb.config import load_config
from mhcnb.models.base import Head, Output
from mhcnb.objectives import lm
from mhcnb.objectives.base import Clock
from mhcnb.objectives.lm import IGNORED, cross_entropy, head_cross_entropy

V, D = 11, 5
PARAMS = Path(__file__).parents[2] / "params"


def case(dtype=torch.float64, size=3.0):
    """hidden [3, 7, 5], weight [11, 5], targets with three to ignore."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((3, 7, D), (V, D)))
    targets = torch.randint(V, (3, 7), generator=generator)
    targets[1, 2:5] = IGNORED
    return (size * hidden).to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


@pytest.fixture(params=[1, 30, 10_000], ids=lambda size: f"block {size}")
def block(request, monkeypatch):
    """A row at a time, some, and all."""
    monkeypatch.setitem(lm.BLOCK, "cpu", request.param)


@pytest.mark.parametrize("size", [3.0, 1e4])
def test_value_and_gradients_by_torch(block, size):
    hidden, weight, targets = case(size=size)
    loss, count = head_cross_entropy(hidden, weight, targets)
    logits = (hidden @ weight.T).flatten(0, 1)
    plain = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
    assert count == 18
    torch.testing.assert_close(loss, plain, rtol=1e-13, atol=0)
    ours, theirs = (torch.autograd.grad(0.25 * x, (hidden, weight)) for x in (loss, plain))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    assert not ours[0][1, 2:5].any()


@pytest.mark.parametrize("frozen", [0, 1], ids=["states", "head"])
def test_one_of_the_two_may_be_frozen(block, frozen):
    """And without any gradient the value is the same."""
    inputs = case()
    whole = torch.autograd.grad(head_cross_entropy(*inputs)[0], inputs[:2])
    inputs[frozen].requires_grad_(False)
    loss, _ = head_cross_entropy(*inputs)
    assert torch.equal(torch.autograd.grad(loss, inputs[1 - frozen])[0], whole[1 - frozen])
    with torch.no_grad():
        assert torch.equal(head_cross_entropy(*inputs)[0], loss)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_rounds_the_product_and_nothing_after_it(block, dtype):
    """The loss is that of the rounded logits to float32; gradients are off by roundings of their factors."""
    hidden, weight, targets = case(torch.float32)
    with torch.autocast("cpu", dtype):
        loss, _ = head_cross_entropy(hidden, weight, targets)
        rounded = F.linear(hidden.detach(), weight.detach())
    assert loss.dtype == torch.float32
    exact, _ = cross_entropy(rounded.double(), targets)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    found = torch.autograd.grad(loss, (hidden, weight))
    plain = torch.autograd.grad(cross_entropy(hidden @ weight.T, targets)[0], (hidden, weight))
    assert [x.dtype for x in found] == [torch.float32] * 2
    for a, b in zip(found, plain, strict=True):
        assert (a - b).abs().max() < 3 * torch.finfo(dtype).eps * b.abs().max()


class Largest(TorchDispatchMode):
    """The most elements that any operation gave."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.most = max([self.most, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


def test_logits_never_exist_whole(monkeypatch):
    """In training and in evaluation: 1000 tokens of 64, by blocks of 640 logits; the states are 2000."""
    monkeypatch.setitem(lm.BLOCK, "cpu", 640)
    hidden, weight = torch.randn(10, 100, 2, requires_grad=True), torch.randn(64, 2, requires_grad=True)
    batch, output = {"targets": torch.randint(64, (10, 100))}, Output(hidden, Head(weight), {}, None)
    objective = lm.LM(lm.LMConfig())
    with Largest() as seen:
        objective.step(lambda *_: output, batch, None, Clock(0, 1)).loss_sum.backward()
        with torch.no_grad():
            objective.evaluate(lambda *_: output, batch)
    assert seen.most == 2000


def test_backward_comes_once():
    hidden, weight, targets = case()
    loss, _ = head_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="came before"):
        loss.backward()


SHAPE = {"width": 16, "layers": 1, "heads": 2, "block_size": 8, "vocab_size": 64}
CLOSE = {None: 1e-5, torch.bfloat16: 2e-2}  # of a gradient's largest entry


def gradients(model, loss_of, micro_batches, dtype):
    """Of the sum over micro-batches, by parameter."""
    model.zero_grad()
    for batch in micro_batches:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = loss_of(batch)
        (loss / 32).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_model_learns_from_two_micro_batches_as_from_its_whole_logits(tied, dtype, monkeypatch):
    """The gradient of a tied head adds to that of the embedding, and that of a micro-batch to the one before it."""
    monkeypatch.setitem(lm.BLOCK, "cpu", 5 * 64)
    overrides = {f"model.{name}": value for name, value in (SHAPE | {"tied": tied}).items()}
    config = load_config(PARAMS / "rlm" / "tiny.yaml", overrides | {"connection.name": "residual"})
    model, objective = build_model(config), lm.LM(lm.LMConfig())
    tokens = torch.randint(64, (2, 2, 2, 8), generator=torch.Generator().manual_seed(0))
    batches = [{"inputs": inputs, "targets": targets} for inputs, targets in tokens]
    batches[0]["targets"][0, 3:] = IGNORED

    def whole(batch):
        logits = model(batch).logits.flatten(0, 1).float()
        return F.cross_entropy(logits, batch["targets"].flatten(), ignore_index=IGNORED, reduction="sum")

    ours = gradients(model, lambda batch: objective.step(model, batch, None, Clock(0, 1)).loss_sum, batches, dtype)
    theirs = gradients(model, whole, batches, dtype)
    assert ("head.weight" in ours) is not tied
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() <= CLOSE[dtype] * gradient.abs().max(), name


def test_scores_of_an_evaluation_are_those_of_whole_logits(block):
    """Among the targets the most likely token, the second, and so on to the seventh."""
    hidden, weight, targets = case()
    logits = (hidden @ weight.T).detach()
    targets[0] = logits[0].argsort(descending=True).diagonal()
    output, flat, at = Output(hidden.detach(), Head(weight.detach()), {}, None), logits.flatten(0, 1), targets.flatten()
    found = lm.LM(lm.LMConfig()).evaluate(lambda batch: output, {"targets": targets})
    right = (flat.topk(5).indices == at.unsqueeze(-1)).sum(0)
    assert {count.item() for _, count in found.values()} == {18}
    assert found["accuracy"][0] == right[0]
    assert found["top5_accuracy"][0] == right.sum()
    plain = F.cross_entropy(flat.float(), at, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(found["loss"][0], plain, rtol=1e-6, atol=0)


def test_scores_of_an_evaluation_by_hand(block):
    """One of two is right, both are among the five most likely; the ignored third counts nowhere."""
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4], [3.0, 9, 8, 7, 0, 1], [9.0, 0, 0, 0, 0, 0]])
    output = Output(logits, Head(torch.eye(6)), {}, None)
    targets = torch.tensor([0, 0, IGNORED])
    found = lm.LM(lm.LMConfig()).evaluate(lambda batch: output, {"targets": targets})
    loss = -(torch.log_softmax(logits, -1)[[0, 1], [0, 0]]).sum()
    torch.testing.assert_close(found["loss"][0], loss)
    assert {name: (total.item(), count.item()) for name, (total, count) in found.items() if name != "loss"} == {
        "accuracy": (1, 2),
        "top5_accuracy": (2, 2),
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_of_logits_arithmetic_is_float32(dtype):
    logits, targets = torch.randn(3, 7, V, generator=torch.Generator().manual_seed(0)).to(dtype), case()[2]
    loss, count = cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    assert count == 18
    torch.testing.assert_close(loss.double(), cross_entropy(logits.double(), targets)[0], rtol=1e-6, atol=0)


def test_all_ignored(block):
    hidden, weight, targets = case()
    loss, count = head_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss == count == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()
