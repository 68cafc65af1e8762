"""What an update of the public guide's small HRM costs, beside the original's where its checkout is given."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mhcnb.bench.hrm_peer import original
from mhcnb.bench.measure import Timing, side_by_side
from mhcnb.bench.place import one_thread
from mhcnb.config import RunConfig, build_config
from mhcnb.models.base import Batch, build_model
from mhcnb.objectives.act import ACT
from mhcnb.objectives.base import Clock
from mhcnb.training.optim import build_optimizer

ROWS, UPDATES, BATCHES = 4, 20, 16
SIZES: dict[str, Any] = {"width": 32, "H_layers": 1, "L_layers": 1, "heads": 1, "expansion": 2.0}
CELLS = {"vocab_size": 11, "seq_len": 81, "puzzles": 1}


def hrm(peer: Path | None = None, rounds: int = 15) -> list[Timing]:
    """20 updates (forward, pass for the target, backward, both optimizers) of 4 rows of a 9x9 Sudoku: hidden 32, a
    layer in each level, one head, float32, one CPU thread; in seconds of
    that CPU. Raises ConfigError where `peer` is no checkout."""
    contenders = {}
    config, batches = configuration("residual"), _batches()
    if peer is not None:
        train: Any = config.train
        update = original(peer, config.model, ROWS, train.lr, train.weight_decay)  # type: ignore[arg-type]
        contenders["original: residual"] = _each(batches, lambda batch, step: update(batch))
    contenders = {name: _each(batches, _ours(configuration(name))) for name in ("residual", "mhc")} | contenders
    with one_thread():
        return side_by_side("hrm", contenders, rounds, time.process_time)


def configuration(connection: str) -> RunConfig:
    """That shape with a connection."""
    train = {"steps": 1, "lr": 1e-4, "weight_decay": 1.0, "clip": 0.0}
    rest = {"data": {"name": "sudoku"}, "objective": {"name": "act"}, "train": train}
    model = {"name": "hrm"} | SIZES | CELLS
    return build_config({"connection": {"name": connection}, "model": model, **rest}, "bench hrm")


def _ours(config: RunConfig) -> Callable[[Batch, int], None]:
    model, objective = build_model(config), ACT(config.objective)
    optimizer = build_optimizer(model, config.train)
    carry: Any = None

    def update(batch: Batch, step: int) -> None:
        nonlocal carry
        out = objective.step(model, batch, carry, Clock(0, step))
        (out.loss_sum / ROWS).backward()
        optimizer.step()
        optimizer.zero_grad()
        carry = out.carry

    return update


def _each(batches: list[Batch], update: Callable[[Batch, int], None]) -> Callable[[], None]:
    """UPDATES of them; the batches come round."""
    done = 0

    def run() -> None:
        nonlocal done
        for _ in range(UPDATES):
            update(batches[done % len(batches)], done)
            done += 1

    return run


def _batches() -> list[Batch]:
    """Boards of random digits of which 30 are given: what is learned from them does not matter here."""
    generator = torch.Generator().manual_seed(0)
    answers = torch.randint(2, 11, (BATCHES, ROWS, 81), generator=generator, dtype=torch.int32)
    given = torch.rand(answers.shape, generator=generator) < 30 / 81
    ids = torch.zeros(ROWS, dtype=torch.int32)
    return [
        {"inputs": torch.where(shown, board, 1), "labels": board, "puzzle_identifiers": ids}
        for board, shown in zip(answers, given, strict=True)
    ]
