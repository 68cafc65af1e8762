"""A loss or gradient that is not finite: no rank updates, and the run says where it came from."""

from typing import Any

import torch
from torch import Tensor

from mhcnb.durable import write_json
from mhcnb.errors import RunError
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock
from mhcnb.training import distributed
from mhcnb.training.session import Session
from mhcnb.training.track import Carry, rows

SKIPPED = 50  # updates in a row that float16's scaler may leave out: by then it has halved its scale to nothing


def require_finite(
    s: Session, step: int, loss: Tensor, norm: Tensor, rate: float, batches: list[Batch], carries: list[Carry]
) -> None:
    """Raises RunError on all ranks before a damaged update; all see the same sums. float16's scaler leaves out updates
    whose gradient overflows, at first often: it is given SKIPPED of them in a row. `carries`: those before the step."""
    finite = bool(torch.isfinite(loss)), bool(torch.isfinite(norm))
    s.track.skipped = 0 if all(finite) else s.track.skipped + 1
    if all(finite) or (finite[0] and s.scaler.is_enabled() and s.track.skipped <= SKIPPED):
        return
    own = _culprits(s, Clock(s.config.seed, step), batches, carries)
    found = {rank: bad for rank, bad in enumerate(distributed.gather(own)) if bad}
    reason = f"loss {float(loss):g}, gradient norm {float(norm):g} at step {step}: the update was not applied"
    if s.leads:
        facts = {"step": step, "loss": float(loss), "grad_norm": float(norm), "lr": rate, "rows": found}
        reason = _report(s, reason, facts)
    raise RunError(distributed.from_rank_zero(reason))


def _report(s: Session, reason: str, facts: dict[str, Any]) -> str:
    """Into status.json and diverged.json; the whole text."""
    saved = s.run.checkpoints()
    facts["checkpoint"] = saved[-1].name if saved else None
    where = [f"rank {rank}, rows {_span(bad)} of the global batch" for rank, bad in facts["rows"].items()]
    reason += (
        f"; from {'; '.join(where)}" if where else "; it did not recur when the step was repeated: unsteady hardware?"
    )
    if s.track.skipped > SKIPPED:
        reason += f"; float16 left out {s.track.skipped} updates in a row, its scale is {s.scaler.get_scale():g}"
    reason += f"; last good checkpoint: {facts['checkpoint'] or 'none yet'}"
    write_json(s.run.path / "diverged.json", facts)
    s.run.set_status("diverged", facts["step"], reason)
    return f"{s.run.path} diverged: {reason}; try a lower train.lr, a longer train.warmup or train.dtype=float32"


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
