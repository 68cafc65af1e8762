"""The HRM's sizes, and its cycles, its target and its departures written out by hand."""

import pytest
import torch

from mhcnb import registry
from mhcnb.connections.residual import ResidualConfig
from mhcnb.layers.rope import Rotation
from mhcnb.models.hrm import DRAWN, HRM, HRMConfig
from mhcnb.objectives.act import ACT, ACTConfig
from mhcnb.objectives.base import Clock

BOARD = {"vocab_size": 11, "seq_len": 81, "puzzles": 1}
GUIDE = {"H_layers": 1, "L_layers": 1, "heads": 1, "expansion": 2.0}
TINY = {"width": 8, "heads": 2, "H_layers": 1, "L_layers": 1, "vocab_size": 6, "seq_len": 5, "puzzles": 2}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [({}, 27_275_266), (GUIDE | {"width": 32}, 58_114), (GUIDE | {"width": 16}, 27_010)],
    ids=["default", "small", "ultra-small"],
)
def test_parameters_are_as_many_as_the_originals(sizes, expected):
    with torch.device("meta"):
        model = HRM(HRMConfig(**BOARD, **sizes), ResidualConfig(), torch.Generator())
    assert sum(p.numel() for p in model.parameters()) == expected


def tiny(connection="residual", **fields):
    """In float64, with opinions on halting."""
    cls = registry.load("connections", connection)
    generator = torch.Generator().manual_seed(0)
    model = HRM(HRMConfig(**TINY | fields), cls.Config(name=connection), generator).double()
    with torch.no_grad():
        model.q_head.weight.normal_(generator=generator)
        for name, parameter in model.named_parameters():
            if ".connection." in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def batch(rows=3):
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randint(1, 6, (2, rows, 5), generator=generator)
    return {"inputs": inputs, "labels": labels, "puzzle_identifiers": torch.arange(rows) % 2}


def levels(model):
    """L and H as functions of a state and what is added to it."""
    rope = Rotation(model.cos, model.sin)
    return (lambda z, u, level=level: level(z + u, lambda x: x, rope=rope) for level in (model.L, model.H))


def by_hand(model, x, z_H, z_L, free):
    """Three cycles of two calls of L and one of H, those numbered in `free` with gradients."""
    L, H = levels(model)
    for call in range(9):
        with torch.set_grad_enabled(call in free):
            if call % 3 == 2:
                z_H = H(z_H, z_L)
            else:
                z_L = L(z_L, z_H + x)
    return z_H


def gradients(model, logits, q):
    found = torch.autograd.grad(logits.square().sum() + q.sum(), list(model.parameters()))
    return dict(zip(dict(model.named_parameters()), found, strict=True))


def test_gradients_go_through_all_cycles_or_through_the_last_calls():
    """Which differ."""
    found, data, start = {}, batch(), torch.zeros(3, 6, 8, dtype=torch.float64)
    for gradient, free in (("full", range(9)), ("last", (7, 8))):
        model = tiny(gradient=gradient, H_cycles=3, L_cycles=2)
        z_H = by_hand(model, model._embedded(data), start + model.H_init, start + model.L_init, free)
        expected = gradients(model, model.head(z_H[:, 1:]), model.q_head(z_H[:, 0]))
        output = model(data)
        q = torch.stack([output.parts["q_halt_logits"], output.parts["q_continue_logits"]])
        found[gradient] = gradients(model, output.logits, q)
        for name, x in found[gradient].items():
            torch.testing.assert_close(x, expected[name], msg=name)
    name = "L.0.mlp.branch.down.weight"
    assert (found["full"][name] - found["last"][name]).abs().max() > 1e-3 * found["full"][name].abs().max()


@pytest.mark.parametrize("connection", ["residual", "mhc"])
def test_the_target_is_the_better_of_the_next_steps_two_and_halting_at_the_last(connection):
    """As a whole pass from the states that are carried on gives them."""
    model, data, carry = tiny(connection, halt_max_steps=3, H_cycles=3, L_cycles=2), batch(), None
    for left in (2, 1, 0):
        output = model(data | {DRAWN: torch.full((3,), 3)}, carry)  # which keeps all rows going
        carry = output.carry
        with torch.no_grad():
            z_H = by_hand(model, model._embedded(data), carry.z_H, carry.z_L, ())
            halt, going_on = model.q_head(z_H[:, 0]).T
        expected = torch.maximum(halt, going_on) if left else halt
        torch.testing.assert_close(output.parts["target_q_continue"], expected.sigmoid())
        assert carry.halted.all() == (left == 0)


@pytest.mark.parametrize("q_continue", [True, False])
def test_without_q_continue_there_is_one_pass_no_second_loss_and_halting_by_its_sign(q_continue):
    """While going on is always worth more, so that with it no row would halt."""
    model, calls = tiny(q_continue=q_continue, halt_exploration=0.0, H_cycles=1, L_cycles=1), []
    model.L.register_forward_hook(lambda *_: calls.append(0))
    with torch.no_grad():
        model.q_head.weight.zero_()
        model.q_head.bias.copy_(torch.tensor([1.0, 5.0]))
    step = ACT(ACTConfig()).step(model, batch(), None, Clock(0, 1))
    assert len(calls) == 1 + q_continue
    assert step.carry.halted.tolist() == [not q_continue] * 3
    losses = {name: float(total) for name, (total, _) in step.metrics.items() if name.endswith("_loss")}
    assert ("q_continue_loss" in losses) == q_continue
    lm_loss = losses.pop("lm_loss")
    assert step.loss_sum.item() == pytest.approx(lm_loss + 0.5 * sum(losses.values()))
