"""A model that answers in steps, watched: its answers after each step, when it would halt, how far its states move."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mhcnb.analysis.gains import Frame
from mhcnb.data.sudoku import IGNORED
from mhcnb.errors import DataError
from mhcnb.models.base import Batch, Model, evaluating

BINS = 10  # of blanks, where puzzles have more different numbers of them


class Reasoning(NamedTuple):
    """b puzzles of t cells through M steps of one model, on the CPU.

    givens, solutions [b, t] and answers [M, b, t]: tokens; solutions are -100 where nothing is asked.
    q_halt, q_continue [M, b]: logits; a model that does not learn q_continue compares with 0. moved_H, moved_L [M, b]:
    ‖z_k - z_{k-1}‖ / ‖z_{k-1}‖, z_0 the initial state.
    """

    givens: Tensor
    solutions: Tensor
    answers: Tensor
    q_halt: Tensor
    q_continue: Tensor
    moved_H: Tensor
    moved_L: Tensor

    @property
    def blanks(self) -> Tensor:
        """The cells to be filled, bool [b, t]."""
        return (self.givens != self.solutions) & (self.solutions != IGNORED)

    @property
    def right(self) -> Tensor:
        """The cells that are right, bool [M, b, t]."""
        return self.answers == self.solutions

    @property
    def solved(self) -> Tensor:
        """The puzzles of which every cell is right, bool [M, b]."""
        return (self.right | (self.solutions == IGNORED)).all(-1)

    @property
    def halts(self) -> Tensor:
        """The step [b], from 1, after which each row would halt in training without exploration."""
        would = self.q_halt > self.q_continue
        would[-1] = True
        return would.int().argmax(0) + 1


def reason(model: Model, batches: Iterable[Batch], steps: int | None = None) -> Reasoning:
    """Every puzzle of the batches through `steps` steps, the model's halt_max_steps if None, more if wanted; padding
    is left out. Raises DataError where nothing is left."""
    parts = [_reason(model, batch, steps) for batch in map(_real, batches) if len(batch["inputs"])]
    if not parts:
        raise DataError("no puzzles: every row is padding; give data with a validation split")
    rows = {name: 0 if name in ("givens", "solutions") else 1 for name in Reasoning._fields}
    return Reasoning(*(torch.cat([getattr(p, name) for p in parts], axis) for name, axis in rows.items()))


def _real(batch: Batch) -> Batch:
    kept = (batch["labels"] != IGNORED).any(1)
    return {name: values[kept] for name, values in batch.items()}


def _reason(model: Any, batch: Batch, steps: int | None) -> Reasoning:
    place = next(model.parameters()).device
    batch = {name: values.to(place) for name, values in batch.items()}
    seen: list[tuple[Tensor, ...]] = []
    with evaluating(model), torch.no_grad():
        carry, before = model.initial_carry(batch), (model.H_init, model.L_init)
        for _ in range(steps or model.config.halt_max_steps):
            out = model(batch, carry)
            states = out.carry.z_H, out.carry.z_L
            moved = (_moved(z, old) for z, old in zip(states, before, strict=True))
            q_halt, q_continue = (out.parts[name] for name in ("q_halt_logits", "q_continue_logits"))
            q_continue = q_continue if model.config.q_continue else torch.zeros_like(q_halt)
            seen.append(tuple(x.cpu() for x in (out.logits.argmax(-1), q_halt, q_continue, *moved)))
            # a row that has come to its last step would begin anew in the next
            carry, before = out.carry._replace(halted=torch.zeros_like(out.carry.halted)), states
    by_step = (torch.stack(values) for values in zip(*seen, strict=True))
    return Reasoning(batch["inputs"].cpu(), batch["labels"].cpu(), *by_step)


def _moved(z: Tensor, before: Tensor) -> Tensor:
    """‖z - before‖ / ‖before‖ [b] of states [b, t, d]; `before` may be one vector [d] for all."""
    before = before.expand_as(z).float()
    return (z.float() - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)


def by_step(r: Reasoning) -> Frame:
    """step (from 1), puzzles, and as an evaluation has them: accuracy (mean over puzzles of the share of right cells),
    blank_accuracy (share of all cells to be filled), exact_accuracy (share of puzzles)."""
    import pandas

    asked = r.solutions != IGNORED
    found = {
        "accuracy": ((r.right & asked).sum(-1) / asked.sum(-1)).double().mean(1),
        "blank_accuracy": (r.right & r.blanks).sum((1, 2)) / r.blanks.sum(),
        "exact_accuracy": r.solved.double().mean(1),
    }
    columns = {name: values.numpy() for name, values in found.items()}
    return pandas.DataFrame({"step": range(1, len(r.answers) + 1), "puzzles": len(r.givens), **columns})


def by_blanks(r: Reasoning) -> Frame:
    """low, high, puzzles, blank_accuracy, exact_accuracy after the last step: a row for each number of blanks, or where
    there are more than BINS for each of so many equal ranges."""
    import pandas

    counts, filled = r.blanks.sum(1).numpy(), (r.right[-1] & r.blanks).sum(1).numpy()
    solved, rows = r.solved[-1].numpy(), []
    for low, below in pairwise(_edges(counts)):
        own = (counts >= low) & (counts < below)
        if own.any():
            share = filled[own].sum() / max(counts[own].sum(), 1)
            rows.append((counts[own].min(), counts[own].max(), own.sum(), share, solved[own].mean()))
    return pandas.DataFrame(rows, columns=["low", "high", "puzzles", "blank_accuracy", "exact_accuracy"])


def _edges(counts: np.ndarray) -> list[int]:
    """Where ranges of whole numbers begin, and past the end of the last."""
    different, end = np.unique(counts), int(counts.max()) + 1
    if len(different) <= BINS:
        return [*different.tolist(), end]
    return np.linspace(counts.min(), end, BINS + 1).round().astype(int).tolist()


def halting(r: Reasoning) -> Frame:
    """step, right, wrong: how many puzzles would halt after each step, and whether all their cells are right then."""
    import pandas

    M, halts = len(r.answers), r.halts
    solved = r.solved.gather(0, halts[None] - 1)[0]
    right, wrong = (torch.bincount(halts[some] - 1, minlength=M).numpy() for some in (solved, ~solved))
    return pandas.DataFrame({"step": range(1, M + 1), "right": right, "wrong": wrong})


def distances(r: Reasoning) -> Frame:
    """level (H, L), step, low, median, high: how far states move in a step, relative to their size; the middle eight of
    ten puzzles lie between low and high."""
    import pandas

    frames = []
    for level, moved in (("H", r.moved_H), ("L", r.moved_L)):
        low, median, high = np.quantile(moved.double().numpy(), [0.1, 0.5, 0.9], axis=1)
        steps = range(1, len(moved) + 1)
        frames.append(pandas.DataFrame(dict(level=level, step=steps, low=low, median=median, high=high)))
    return pandas.concat(frames, ignore_index=True)
