"""The one loop: a generator of updates that serves every model, connection and objective.

It knows steps, micro-batches, one carry per micro-batch, clocks and optimizers, and nothing about losses.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mhcnb.config import RunConfig
from mhcnb.data.prefetch import Plan, prefetch
from mhcnb.errors import RunError
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.run import Run
from mhcnb.training import distributed, launch
from mhcnb.training.checkpoint import save
from mhcnb.training.evaluate import evaluate
from mhcnb.training.monitoring import Monitor
from mhcnb.training.optim import scale_and_clip, set_rate
from mhcnb.training.progress import Meter, Progress
from mhcnb.training.schedules import cosine
from mhcnb.training.setup import Session, session
from mhcnb.training.stopping import Stopper


class StepInfo(NamedTuple):
    """What one update gave. `train` and `evaluation` are the records written at this step, if any."""

    step: int
    loss: Tensor
    grad_norm: Tensor
    rate: float
    train: dict[str, Any] | None
    evaluation: dict[str, Any] | None


def train(config: RunConfig, out: Path) -> dict[str, Any]:
    """Runs the loop to its end and returns the summary; {} where it was stopped before."""
    for _ in train_steps(config, out):
        pass
    return Run(out).summary()


def train_steps(config: RunConfig, out: Path) -> Iterator[StepInfo]:
    """Trains in `out`, yielding after each update (and once before the first, at step 0).

    Leaves a loadable checkpoint and a true status.json when it ends, is stopped, or is closed early.
    """
    with session(config, out) as s, Stopper(s.run) as stopper, Progress(s) as progress:
        meter = Meter(s)
        monitor = Monitor(s, meter)
        first = _evaluate(s, 0, meter)
        monitor.follow(0, None)
        progress.show(0, None, first)
        yield StepInfo(0, torch.tensor(float("nan")), torch.tensor(float("nan")), 0.0, None, first)
        carries: list[Any] = [None] * s.share.steps
        latest = first
        for step, batches in _updates(s):
            loss, norm, rate = _update(s, step, batches, carries)
            line = meter.line(step, loss, norm, rate)
            monitor.follow(step, line)
            asked = distributed.any_rank(stopper.asked())
            last = step == s.config.train.steps or asked
            evaluation = None
            if last or step % s.config.train.eval_every == 0:
                latest = evaluation = _evaluate(s, step, meter)
            progress.show(step, line, evaluation)
            if last:
                _finish(s, step, stopper.reason if asked else "", meter, first, latest)
            elif s.leads and s.run.requested("checkpoint"):
                save(s.run, step, s.model, s.config)
                s.run.granted("checkpoint")
            try:
                yield StepInfo(step, loss, norm, rate, line, evaluation)
            except GeneratorExit:
                if not last:
                    latest = _evaluate(s, step, meter)
                    _finish(s, step, "closed by its caller", meter, first, latest)
                raise
            if last:
                break
    stopper.pass_on()


def _updates(s: Session) -> Iterator[tuple[int, list[Batch]]]:
    """(step, this process's micro-batches), read ahead in the background."""
    part, steps = s.share, range(1, s.config.train.steps + 1)
    plans = (Plan(step, part.first + i * part.stride, part.size) for step in steps for i in range(part.steps))
    with closing(prefetch(s.source, s.config.seed, plans, s.device)) as batches:
        for step in steps:
            yield step, [next(batches) for _ in range(part.steps)]


def _update(s: Session, step: int, batches: list[Batch], carries: list[Any]) -> tuple[Tensor, Tensor, float]:
    """Forward and backward of all micro-batches, one optimizer step. Returns (mean loss, gradient norm, rate)."""
    clock, part = Clock(s.config.seed, step), s.share
    rate = cosine(s.config.train, step)
    set_rate(s.optimizer, rate)
    sums = torch.zeros(2, device=s.device)
    nominal = float(batches[0]["inputs"].numel() * len(batches) * s.world.size)  # keeps float16 gradients in range
    for i, batch in enumerate(batches):
        torch.manual_seed(_dropout_seed(clock, part.first + i * part.stride))
        batch = {name: value.to(s.device, non_blocking=True) for name, value in batch.items()}
        with s.without_sync(last=i == len(batches) - 1):
            with s.autocast():
                out = s.objective.step(s.wrapped, batch, carries[i], clock)  # type: ignore[arg-type]
            s.scaler.scale(out.loss_sum / nominal).backward()
        carries[i] = out.carry
        sums += torch.stack([out.loss_sum.detach(), out.count.to(out.loss_sum.dtype)])
    total, count = distributed.sum_over_ranks(sums)
    s.scaler.unscale_(s.optimizer)
    # DDP gives the mean over ranks of gradients of sums: undo both, then divide by what was counted
    norm = scale_and_clip(list(s.model.parameters()), s.world.size * nominal / count, s.config.train.clip)
    _require_finite(s, step, total / count, norm)
    s.scaler.step(s.optimizer)
    s.scaler.update()
    s.optimizer.zero_grad(set_to_none=True)
    s.objective.after_update(clock)
    return total / count, norm, rate


def _dropout_seed(clock: Clock, row: int) -> int:
    """A function of (seed, step, first row): neither rank nor history decides what is dropped."""
    return (clock.seed * 1_000_003 + clock.step) * 1_000_003 + row


def _require_finite(s: Session, step: int, loss: Tensor, norm: Tensor) -> None:
    """Ends the run before a damaged update. All ranks see the same sums, so all end. float16's scaler skips its own
    overflows of the gradient."""
    if bool(torch.isfinite(loss)) and (bool(torch.isfinite(norm)) or s.scaler.is_enabled()):
        return
    reason = f"loss {float(loss):g}, gradient norm {float(norm):g} at step {step}: the update was not applied"
    if s.leads:
        s.run.set_status("diverged", step, reason)
    raise RunError(
        f"{s.run.path} diverged: {reason}; try a lower train.lr, a longer train.warmup or train.dtype=float32"
    )


def _evaluate(s: Session, step: int, meter: Meter) -> dict[str, Any]:
    """The eval record of a step: both splits."""
    with meter.paused():
        of = {
            split: evaluate(s.model, s.objective, s.source, split, s.config, s.device, s.world, s.dtype)
            for split in ("train", "val")
        }
        rest = {name: value for name, value in of["val"].items() if name != "loss"}
    record = {"type": "eval", "step": step, "time_s": meter.elapsed()}
    record |= {"train_loss": of["train"]["loss"], "val_loss": of["val"]["loss"], **rest}
    if s.leads:
        s.run.append(record)
        s.run.set_status("running", step)
    return record


def _finish(s: Session, step: int, reason: str, meter: Meter, first: dict, last: dict) -> None:
    """The last checkpoint, the summary and the state, in this order: done means that all of it is there."""
    if s.leads:
        save(s.run, step, s.model, s.config)
        s.run.write_summary(
            {
                "connection": s.config.connection.name,
                "model": s.config.model.name,
                "preset": s.config.preset,
                "seed": s.config.seed,
                "steps": step,
                "first_val_loss": first["val_loss"],
                "final_val_loss": last["val_loss"],
                "final_train_loss": last["train_loss"],
                "tokens_per_s": meter.mean_speed(),
                "peak_memory_gb": launch.peak_memory_gb(s.device),
                "total_time_s": time.monotonic() - meter.begun,
                "params": sum(p.numel() for p in s.model.parameters()),
                "world_size": s.world.size,
            }
        )
        s.run.set_status("stopped" if reason else "done", step, reason)
    distributed.barrier()
