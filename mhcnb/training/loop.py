"""The one loop: a generator of updates that serves every model, connection and objective.

It knows steps, micro-batches, one carry per micro-batch, clocks and optimizers, and nothing about losses.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mhcnb.config import RunConfig
from mhcnb.data.prefetch import Plan, prefetch
from mhcnb.errors import DataError
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.run import Run
from mhcnb.training import distributed, launch
from mhcnb.training.divergence import require_finite
from mhcnb.training.evaluate import evaluate
from mhcnb.training.monitoring import Monitor
from mhcnb.training.optim import scale_and_clip, set_rate
from mhcnb.training.progress import Meter, Progress
from mhcnb.training.resume import Finished
from mhcnb.training.saver import Saver
from mhcnb.training.schedules import rate_at
from mhcnb.training.session import Session
from mhcnb.training.setup import session
from mhcnb.training.stopping import Stopper
from mhcnb.training.track import Track, rows
from mhcnb.training.watchdog import Watchdog

log = logging.getLogger(__name__)


class StepInfo(NamedTuple):
    """What one update gave. `train` and `evaluation` are the records written at this step, if any."""

    step: int
    loss: Tensor
    grad_norm: Tensor
    rate: float
    train: dict[str, Any] | None
    evaluation: dict[str, Any] | None


def train(config: RunConfig, out: Path) -> dict[str, Any]:
    """Runs the loop to its end and returns the summary; {} where the run was stopped before it had one."""
    for _ in train_steps(config, out):
        pass
    return Run(out).summary()


def train_steps(config: RunConfig, out: Path) -> Iterator[StepInfo]:
    """Trains in `out`, yielding after each update, and once before the first: at step 0, or where a run goes on.

    Leaves a loadable checkpoint and a true status.json when it ends, is stopped, or is closed early. A run that is
    done already is left as it is.
    """
    try:
        with session(config, out) as s:
            yield from _steps(s)
    except Finished as done:
        log.info("%s", done)


def _steps(s: Session) -> Iterator[StepInfo]:
    logs = Watchdog(s.run.path / "logs", s.world.rank, s.config.train.timeout_s)
    with logs as watchdog, Stopper(s.run) as stopper, Progress(s) as progress, Saver(s) as saver:
        meter, track, steps = Meter(s), s.track, s.config.train.steps
        monitor = Monitor(s, meter)
        if not track.first:
            track.first = track.latest = _evaluate(s, 0, meter)
            monitor.follow(0, None)
        progress.show(track.step, None, track.latest)
        yield StepInfo(track.step, torch.tensor(float("nan")), torch.tensor(float("nan")), 0.0, None, track.latest)
        if track.step == steps:  # killed between its last checkpoint and its summary
            _finish(s, meter, "")
        for step, batches in _updates(s):
            loss, norm, rate = _update(s, step, batches)
            watchdog.beat(step)
            line = meter.line(step, loss, norm, rate)
            monitor.follow(step, line)
            stop, save = distributed.agree([stopper.asked(), saver.due(step)])
            evaluation, last = None, step == steps
            if last or step % s.config.train.eval_every == 0:
                track.latest = evaluation = _evaluate(s, step, meter)
                save |= _is_best(track, evaluation) or s.config.train.save_evaluated
            progress.show(step, line, evaluation)
            if last or stop or save:
                saver.save(step, wait=last or stop)
            if last or stop:
                _finish(s, meter, stopper.why() if stop and not last else "")
            try:
                yield StepInfo(step, loss, norm, rate, line, evaluation)
            except GeneratorExit:
                if not (last or stop) and saver.here():
                    saver.save(step, wait=True)
                    with suppress(DataError):  # collected as garbage it may have lost its data before
                        _finish(s, meter, "closed by its caller")
                raise
            if stop:
                break
    stopper.pass_on()


def _updates(s: Session) -> Iterator[tuple[int, list[Batch]]]:
    """(step, this process's micro-batches), read ahead in the background."""
    part, steps = s.share, range(s.track.step + 1, s.config.train.steps + 1)
    plans = (Plan(step, row, part.size) for step in steps for row in rows(part))
    with closing(prefetch(s.source, s.config.seed, plans, s.device)) as batches:
        for step in steps:
            yield step, [next(batches) for _ in range(part.steps)]


def _update(s: Session, step: int, batches: list[Batch]) -> tuple[Tensor, Tensor, float]:
    """Forward and backward of all micro-batches, one optimizer step. Returns (mean loss, gradient norm, rate)."""
    clock, before = Clock(s.config.seed, step), s.track.carries
    rate = rate_at(s.config.train, step)
    set_rate(s.optimizer, rate)
    sums, after, names = torch.zeros((), device=s.device), [], []
    for row, batch, carry in zip(rows(s.share), batches, before, strict=True):
        out = s.forward_backward(batch, carry, clock, row, sync=len(after) == len(batches) - 1)
        after.append(out.carry)
        names = [name for name in out.metrics if name != "loss"]
        pairs = [(out.loss_sum.detach(), out.count), *(out.metrics[name] for name in names)]
        sums = sums + torch.stack([x.to(sums.dtype) for pair in pairs for x in pair])
    total, count = distributed.sum_over_ranks(sums)[:2]
    s.track.count(names, sums[2:].tolist())
    s.scaler.unscale_(s.optimizer)
    # DDP gives the mean over ranks of gradients of sums: undo both, then divide by what was counted
    factor = s.world.size * s.nominal(batches[0]) / count
    norm = scale_and_clip(list(s.model.parameters()), factor, s.config.train.clip)
    require_finite(s, step, total / count, norm, rate, batches, before)
    s.scaler.step(s.optimizer)
    s.scaler.update()
    s.optimizer.zero_grad(set_to_none=True)
    s.objective.after_update(clock)
    if s.averages:
        s.averages.update()
    s.track.step, s.track.carries = step, after
    return total / count, norm, rate


def _is_best(track: Track, evaluation: dict[str, Any]) -> bool:
    """Whether the validation loss is the lowest so far: then the weights are worth keeping."""
    best = track.best is None or evaluation["val_loss"] < track.best
    track.best = evaluation["val_loss"] if best else track.best
    return best


def _evaluate(s: Session, step: int, meter: Meter, on_stop: bool = False) -> dict[str, Any]:
    """The eval record of a step: both splits. One made because of a stop says so, for an undisturbed run has none."""
    with meter.paused(), s.averaged():
        of = {
            split: evaluate(s.model, s.objective, s.source, split, s.config, s.device, s.world, s.dtype)
            for split in ("train", "val")
        }
        rest = {name: value for name, value in of["val"].items() if name != "loss"}
    record = {"type": "eval", "step": step, "time_s": meter.elapsed()}
    record |= {"train_loss": of["train"]["loss"], "val_loss": of["val"]["loss"], **rest}
    if s.leads:
        s.run.append(record | ({"on_stop": True} if on_stop else {}))
        s.run.set_status("running", step)
    return record


def _finish(s: Session, meter: Meter, reason: str) -> None:
    """After the last checkpoint the summary and the state, in this order: done means that all of it is there."""
    step, first, last = s.track.step, s.track.first, s.track.latest
    if last["step"] != step:
        last = _evaluate(s, step, meter, on_stop=True)
    if s.leads:
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
                **{f"final_{name}": last[name] for name in s.objective.shown},
                "tokens_per_s": meter.mean_speed(),
                "peak_memory_gb": launch.peak_memory_gb(s.device),
                "total_time_s": meter.elapsed(),
                "params": sum(p.numel() for p in s.model.parameters()),
                "world_size": s.world.size,
            }
        )
        s.run.records.flush()
        s.run.set_status("stopped" if reason else "done", step, reason)
    distributed.barrier()
