"""A loss or gradient that is not finite: no rank updates, and the run says where it came from."""

from typing import Any

import torch
from torch import Tensor

from mhcnb.durable import write_json
from mhcnb.errors import RunError
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.run import Run
from mhcnb.training import distributed
from mhcnb.training.session import Session
from mhcnb.training.track import Carry, rows

SKIPPED = 50  # updates in a row that float16's scaler may leave out: by then it has halved its scale to nothing


def require_finite(
    s: Session, step: int, loss: Tensor, norm: Tensor, rate: float, batches: list[Batch], carries: list[Carry]
) -> None:
    """Raises Diverged on all ranks before a damaged update; all see the same sums. float16's scaler leaves out updates
    whose gradient overflows, at first often: it is given SKIPPED of them in a row. `carries`: those before the step."""
    if bool(torch.isfinite(loss) & torch.isfinite(norm)):  # the one time that a step waits for the device
        s.track.skipped = 0
        return
    s.track.skipped += 1
    if s.scaler.is_enabled() and s.track.skipped <= SKIPPED and bool(torch.isfinite(loss)):
        return
    own = _culprits(s, Clock(s.config.seed, step), batches, carries)
    found = {rank: bad for rank, bad in enumerate(distributed.gather(own)) if bad}
    facts = {"step": step, "loss": _plain(loss), "grad_norm": _plain(norm), "lr": rate, "rows": found}
    if s.track.skipped > SKIPPED:
        facts |= {"skipped": s.track.skipped, "scale": s.scaler.get_scale()}
    raise Diverged(facts)


class Diverged(RunError):
    """What was found, for `report`."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        found = f"loss {facts['loss']}, gradient norm {facts['grad_norm']} at step {facts['step']}"
        super().__init__(f"{found}: the update was not applied")


def report(run: Run, error: Diverged) -> RunError:
    """Into diverged.json and status.json, once no save is under way any more; the error in full."""
    facts, saved = error.facts, run.checkpoints()
    facts["checkpoint"] = saved[-1].name if saved else None
    where = [f"rank {rank}, rows {_span(bad)} of the global batch" for rank, bad in facts["rows"].items()]
    reason = f"{error}; from {'; '.join(where)}" if where else f"{error}; not so when repeated: unsteady hardware?"
    if "skipped" in facts:
        reason += f"; float16 left out {facts['skipped']} updates in a row, its scale is {facts['scale']:g}"
    reason += f"; last good checkpoint: {facts['checkpoint'] or 'none yet'}"
    write_json(run.path / "diverged.json", facts)
    run.set_status("diverged", facts["step"], reason)
    return RunError(
        f"{run.path} diverged: {reason}; try a lower train.lr, a longer train.warmup or train.dtype=float32"
    )


def _plain(x: Tensor) -> float | str:
    """JSON has no NaN."""
    return float(x) if bool(torch.isfinite(x)) else f"{float(x):g}"


def _culprits(s: Session, clock: Clock, batches: list[Batch], carries: list[Carry]) -> list[list[int]]:
    """[first, last] row of each micro-batch of this rank whose own loss or gradient is not finite. The step is
    repeated for it, without the other ranks: what they have summed no longer tells."""
    found = []
    for row, batch, carry in zip(rows(s.share), batches, carries, strict=True):
        s.model.zero_grad(set_to_none=True)
        loss = s.forward_backward(batch, carry, clock, row, sync=False).loss_sum
        grads = [p.grad for p in s.model.parameters() if p.grad is not None]
        if not bool(torch.isfinite(torch.nn.utils.get_total_norm(grads)) & torch.isfinite(loss)):
            found.append([row, row + s.share.size - 1])
    return found


def _span(bad: list[list[int]]) -> str:
    return ", ".join(f"{first}-{last}" for first, last in bad)
