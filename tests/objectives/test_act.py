"""Losses of a cell by the original's numbers and by their definition; exploration; what is counted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mhcnb.models.base import Head, Output
from mhcnb.models.hrm import Carry, HRMConfig
from mhcnb.objectives.act import LOSSES, exploration, halted_scores, scores, stablemax
from mhcnb.objectives.base import Clock

GOLDEN = Path(__file__).parents[1] / "golden" / "hrm"


@pytest.fixture(scope="module")
def g():
    return {key: torch.from_numpy(np.asarray(x)) for key, x in np.load(GOLDEN / "helpers.npz").items()}


@pytest.mark.parametrize(("loss", "atol"), [("stablemax", 1e-9), ("stablemax32", 2e-6), ("softmax", 1e-5)])
def test_losses_of_the_original(g, loss, atol):
    """A logit of exactly 1 is among them, where float32 in two branches has a gradient of NaN."""
    logits, labels = g["stablemax_logits"].clone().requires_grad_(), g["stablemax_labels"]
    ce = LOSSES[loss](logits, labels.clamp_min(0)).masked_fill(labels < 0, 0)
    expected = g["softmax_ce" if loss == "softmax" else "stablemax_ce"]
    torch.testing.assert_close(ce.detach().to(expected), expected, rtol=0, atol=atol)
    ce.sum().backward()
    if loss != "softmax":
        torch.testing.assert_close(logits.grad, g["stablemax_ce_grad"], rtol=0, atol=1e-6)


def test_stablemax_by_its_definition_and_smooth_at_zero(g):
    torch.testing.assert_close(stablemax(g["stablemax_x"]), g["stablemax_s"], rtol=0, atol=1e-12)
    v = torch.tensor([-1e6, -2.0, -1e-9, 0.0, 1e-9, 1.0, 1e6], dtype=torch.float64, requires_grad=True)
    stablemax(v).sum().backward()
    expected = [1 if x >= 0 else 1 / (1 - x) ** 2 for x in v.tolist()]
    torch.testing.assert_close(v.grad, torch.tensor(expected, dtype=torch.float64))


def test_exploration_is_a_function_of_seed_step_and_row():
    config = HRMConfig(halt_max_steps=5, halt_exploration=0.3, vocab_size=6, seq_len=16, puzzles=1)
    whole = exploration(Clock(3, 7), 64, config)
    for first, rows in ((0, 1), (5, 3), (32, 32)):
        assert torch.equal(exploration(Clock(3, 7, first), rows, config), whole[first : first + rows])
    assert not torch.equal(exploration(Clock(3, 8), 64, config), whole)
    assert not torch.equal(exploration(Clock(4, 7), 64, config), whole)
    many = torch.cat([exploration(Clock(2**63 - 1, step), 1000, config) for step in range(20)])
    shares = [float((many == k).float().mean()) for k in range(6)]
    assert shares == pytest.approx([0.7, 0, 0.075, 0.075, 0.075, 0.075], abs=0.01)


def test_what_is_counted():
    """Four rows of three cells: solved; one blank wrong; padding; not halted."""
    labels = torch.tensor([[2, 3, 4], [2, 3, 4], [-100, -100, -100], [2, 3, 4]])
    inputs = torch.tensor([[2, 1, 1], [2, 1, 1], [0, 0, 0], [2, 1, 1]])
    said = torch.tensor([[2, 3, 4], [2, 3, 5], [2, 2, 2], [2, 2, 2]])
    halted, data = torch.tensor([True, True, True, False]), {"inputs": inputs, "labels": labels}
    carry = Carry(torch.zeros(4), torch.zeros(4), torch.tensor([1, 4, 4, 2]), halted, data)
    halt = torch.tensor([0.5, 0.5, -1.0, -1.0])
    hidden = torch.nn.functional.one_hot(said, 6).double()
    output = Output(
        hidden, Head(torch.eye(6, dtype=torch.float64)), dict(q_halt_logits=halt, q_continue_logits=halt), carry
    )
    s = scores(output, "stablemax")
    found = {name: (float(a), int(b)) for name, (a, b) in halted_scores(output, s).items()}
    assert found == {
        "accuracy": (pytest.approx(5 / 3), 2), "blank_accuracy": (3, 4), "exact_accuracy": (1, 2),
        "q_halt_accuracy": (1, 2), "steps": (5, 2),
    }  # fmt: skip
    right, wrong = np.log(7 / 2), np.log(7)  # s of a chosen logit is 2, of the five others 1
    assert float(s.lm_loss) == pytest.approx(right + (2 * right + wrong) / 3 + (right + 2 * wrong) / 3)
    assert s.q_continue_loss is None
