"""Both optimizers of the original HRM, its rates and its initial values, by its numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mhcnb.config import TrainConfig
from mhcnb.layers import linear
from mhcnb.layers.product import Product
from mhcnb.layers.table import Table
from mhcnb.models.hrm import HRMConfig
from mhcnb.training.adam_atan2 import AdamAtan2
from mhcnb.training.schedules import rate_at
from mhcnb.training.sign_sgd import SignSGD

GOLDEN = Path(__file__).parents[1] / "golden" / "hrm"


@pytest.fixture(scope="module")
def g():
    return {key: torch.from_numpy(np.asarray(x)) for key, x in np.load(GOLDEN / "helpers.npz").items()}


def test_ten_updates(g):
    p = nn.Parameter(g["atan2_init"].clone())
    optimizer = AdamAtan2([{"params": [p], "weight_decay": 0.1}], 1e-2, (0.9, 0.95))
    for grad, expected in zip(g["atan2_grads"], g["atan2_params"], strict=True):
        p.grad = grad.clone()
        optimizer.step()
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-6)


def test_a_sum_that_is_zero_only_decays_and_untouched_rows_stay(g):
    """In two micro-batches."""
    table = Table(*g["sign_w_before"].shape)
    table.rows.copy_(g["sign_w_before"])
    optimizer = SignSGD([table], {"weight_decay": 0.5}, 0.1)
    for part in (slice(0, 2), slice(2, 6)):
        (table(g["sign_ids"][part]) * g["sign_grads"][part]).sum().backward()
    optimizer.step()
    torch.testing.assert_close(table.rows, g["sign_w_after"], rtol=0, atol=1e-7)
    optimizer.zero_grad()
    optimizer.step()
    torch.testing.assert_close(table.rows, g["sign_w_after"], rtol=0, atol=1e-7)


def test_the_only_row_of_a_table_is_updated_as_one_of_several():
    grads, after = torch.randn(5, 3), []
    for size in (1, 2):
        table = Table(size, 3)
        table.rows.fill_(0.5)
        optimizer = SignSGD([table], {"weight_decay": 0.5}, 0.1)
        (table(torch.zeros(5, dtype=torch.int32)) * grads).sum().backward()
        optimizer.step()
        after.append(table.rows[0])
    assert torch.equal(*after)
    table.eval()
    assert not table(torch.tensor([0])).requires_grad


def test_a_table_that_no_optimizer_takes_keeps_nothing():
    table = Table(2, 3)
    assert not table(torch.tensor([0])).requires_grad
    assert table.looked_up is None


@pytest.mark.parametrize(
    ("name", "lr", "warmup", "least"),
    [("warm100_total1000_min0p1", 1e-3, 100, 0.1), ("warm100_total1000_min1", 1e-3, 100, 1.0),
     ("warm2000_total1000_min1", 1e-4, 2000, 1.0)],
)  # fmt: skip
def test_rates(g, name, lr, warmup, least):
    train = TrainConfig(steps=1000, lr=lr, min_lr=least * lr, warmup=warmup, schedule="hrm")
    for step, expected in zip(g["lr_steps"].tolist(), g[f"lr_{name}"].tolist(), strict=True):
        assert rate_at(train, step) == pytest.approx(expected, abs=1e-12)


def test_inner_widths(g):
    for width, expansion, inner in g["swiglu_inter_table"].tolist():
        assert HRMConfig(width=width, expansion=float(expansion), heads=1).ffn_dim == inner


def test_truncated_normal_has_the_deviation_that_is_asked_for(g, monkeypatch):
    assert pytest.approx(float(g["truncnorm_comp_std_factor"]), abs=1e-8) == linear.WIDENED
    x = g["truncnorm_u"].clone()
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, *_, **__: self)
    torch.testing.assert_close(linear.truncated(x, 1.0, torch.Generator()), g["truncnorm_x_std1"], rtol=0, atol=1e-9)
    monkeypatch.undo()
    drawn = linear.truncated(torch.empty(200_000), 0.3, torch.Generator().manual_seed(0))
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.01)
    assert float(drawn.abs().max()) <= 0.3 * 2 * linear.WIDENED * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (256, 32), (32, 256)], ids=str)
def test_a_product_is_a_linear_with_its_gradients(shape):
    layer, plain = Product(shape[1], shape[0], bias=False), nn.Linear(shape[1], shape[0], bias=False)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 7, shape[1])
    outs = []
    for each in (layer, plain):
        own = x.clone().requires_grad_()
        y = each(own)
        y.square().sum().backward()
        outs.append((y.detach(), own.grad, each.weight.grad))
    for ours, theirs in zip(*outs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), outs[1][0])


def test_a_product_is_a_plain_linear_where_the_operation_is_not_there(monkeypatch):
    layer, x = Product(5, 3, bias=False), torch.randn(2, 5)
    monkeypatch.setattr("mhcnb.layers.product._OP", None)
    y = layer(x)
    assert torch.equal(y, nn.functional.linear(x, layer.weight))
    assert "Product" not in type(y.grad_fn).__name__
