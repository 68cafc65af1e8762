"""Deep supervision with adaptive halting, as HRM is trained (arXiv 2506.21734): every step of every row has a loss, and
a model that carries its state decides which rows it gives up for new ones."""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhcnb.models.base import Batch, Model, Output
from mhcnb.objectives.base import Clock, Objective, Step
from mhcnb.section import Named

IGNORED = -100
Pair = tuple[Tensor, Tensor]  # (sum, count)


class ACTConfig(Named):
    """The loss of a cell: cross entropy of stablemax, in float64 as the original has it or in float32, which every
    device knows; or of softmax."""

    name: str = "act"
    loss: Literal["stablemax", "stablemax32", "softmax"] = "stablemax"


class Scores(NamedTuple):
    """Of one step: sums of losses over all rows, and what became of each row: cells, right, and of these the blank
    ones [b]; solved [b]: all its cells are right."""

    lm_loss: Tensor
    q_halt_loss: Tensor
    q_continue_loss: Tensor | None
    cells: Tensor
    right: Tensor
    blanks: Tensor
    right_blanks: Tensor
    solved: Tensor


class ACT(Objective):
    """Σ over rows of the mean loss of a cell + ½ (that of halting + that of going on), over the number of rows.

    Halting is learned as whether all cells are right, going on as what the model says it is worth. A cell is blank
    where the input is not the answer. In evaluation each row makes all its steps, and the last one counts.
    """

    Config = ACTConfig
    metrics = ("loss", "accuracy", "blank_accuracy", "exact_accuracy", "q_halt_accuracy", "q_halt_loss", "steps")
    shown = ("accuracy", "blank_accuracy", "exact_accuracy")

    def step(self, model: Model, batch: Batch, carry: Any, clock: Clock) -> Step:
        drawn = exploration(clock, len(batch["inputs"]), getattr(model, "module", model).config)
        output = model(batch | {"min_halt_steps": drawn.to(batch["inputs"].device)}, carry)
        s = scores(output, self.config.loss)
        rows = torch.tensor(len(s.cells), device=s.cells.device)
        losses = {name: loss for name, loss in s._asdict().items() if name.endswith("_loss") and loss is not None}
        total = s.lm_loss + 0.5 * sum(loss for name, loss in losses.items() if name != "lm_loss")
        metrics = {name: (loss.detach(), rows) for name, loss in losses.items()}
        return Step(total, rows, metrics | halted_scores(output, s), output.carry)

    def evaluate(self, model: Model, batch: Batch) -> dict[str, Pair]:
        """Means over rows: loss (of the cells, that of halting apart), accuracy over cells, exact_accuracy (all cells
        right), q_halt_accuracy (its sign says so), steps; and blank_accuracy over all blank cells."""
        config: Any = model.config
        carry = None
        for _ in range(config.halt_max_steps):
            output = model(batch, carry)
            carry = output.carry
        s = scores(output, self.config.loss)
        found = halted_scores(output, s)
        rows = found["accuracy"][1]
        return {"loss": (s.lm_loss, rows), "q_halt_loss": (s.q_halt_loss, rows)} | found


def exploration(clock: Clock, rows: int, config: Any) -> Tensor:
    """int32 [rows]: the step before which a row may not halt by its own will, uniform in 2 .. halt_max_steps, drawn for
    halt_exploration of the rows and 0 for others: a pure function of (seed, step, index in the global batch)."""
    generator = torch.Generator().manual_seed((clock.seed * 1_000_003 + clock.step) % 2**63)
    drawn = torch.rand(clock.row + rows, 2, generator=generator)[clock.row :]  # a row's do not depend on those after it
    least = 2 + (drawn[:, 1] * (config.halt_max_steps - 1)).int()
    return least.masked_fill_(drawn[:, 0] >= config.halt_exploration, 0)


def scores(output: Output, loss: str) -> Scores:
    """Of a step's output against the labels [b, t] that its carry holds."""
    data, parts, logits = output.carry.data, output.parts, output.logits
    labels = data["labels"].long()
    valid = labels != IGNORED
    cells = valid.sum(-1)
    per_cell = LOSSES[loss](logits, labels.clamp_min(0)).masked_fill(~valid, 0)
    lm_loss = (per_cell.sum(-1) / cells.clamp_min(1)).sum()
    right = valid & (logits.detach().argmax(-1) == labels)
    blank = valid & (data["inputs"] != labels)
    solved = right.sum(-1) == cells
    halt, going_on = parts["q_halt_logits"], parts["q_continue_logits"]
    target = parts.get("target_q_continue")
    q_halt_loss = F.binary_cross_entropy_with_logits(halt, solved.to(halt), reduction="sum")
    q_continue_loss = None
    if target is not None:
        q_continue_loss = F.binary_cross_entropy_with_logits(going_on, target, reduction="sum")
    known = (cells, right.sum(-1), blank.sum(-1), (right & blank).sum(-1), solved)
    return Scores(lm_loss, q_halt_loss, q_continue_loss, *known)


def halted_scores(output: Output, s: Scores) -> dict[str, Pair]:
    """Over the rows that have halted and have any cells."""
    counted = output.carry.halted & (s.cells > 0)
    rows = counted.sum()
    decided = (output.parts["q_halt_logits"] >= 0) == s.solved
    return {
        "accuracy": ((counted * s.right / s.cells.clamp_min(1)).sum(), rows),
        "blank_accuracy": ((counted * s.right_blanks).sum(), (counted * s.blanks).sum()),
        "exact_accuracy": ((counted & s.solved).sum(), rows),
        "q_halt_accuracy": ((counted & decided).sum(), rows),
        "steps": ((counted * output.carry.steps).sum(), rows),
    }


def stablemax(v: Tensor) -> Tensor:
    """What takes the exponential's place: 1 + v, and 1/(1 - v) below 0. Each branch is cut where the other begins, so
    that no gradient of it can overflow there."""
    return F.relu(v) + (1 - v.clamp(max=0)).reciprocal()


def stablemax_cross_entropy(logits: Tensor, labels: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """-log(s(logits)[label] / Σ s(logits)) of logits [*b, v] and labels [*b], in `dtype` at least."""
    s = stablemax(logits.to(torch.promote_types(logits.dtype, dtype)))
    return s.sum(-1).log() - s.gather(-1, labels.unsqueeze(-1)).squeeze(-1).log()


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The usual one, in float32 at least; [*b]."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)
    return F.cross_entropy(wide, labels.flatten(), reduction="none").view_as(labels)


def _stablemax32(logits: Tensor, labels: Tensor) -> Tensor:
    return stablemax_cross_entropy(logits, labels, torch.float32)


LOSSES = {"stablemax": stablemax_cross_entropy, "stablemax32": _stablemax32, "softmax": softmax_cross_entropy}
