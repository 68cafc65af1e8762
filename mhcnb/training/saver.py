"""When checkpoints are written, and the thread that writes them while training goes on."""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from mhcnb import durable
from mhcnb.errors import RunError
from mhcnb.training import checkpoint, distributed
from mhcnb.training.averages import TRAINED
from mhcnb.training.checkpoint import Snapshot
from mhcnb.training.resume import random_state
from mhcnb.training.session import Session
from mhcnb.training.track import merge

log = logging.getLogger(__name__)
FAILURES = 3  # saves in a row that may fail before the run ends: training on unsaved is time lost


class Saver:
    """One save at a time: the next waits for the one before, so no more than two copies of a state are in memory."""

    def __init__(self, s: Session) -> None:
        self.s = s
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._failures = 0
        self._began = time.monotonic()
        self._thread = threading.get_ident()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not self.here():
            return self._writer.shutdown(wait=False)
        self._writer.shutdown(wait=True)
        with suppress(RunError):  # it has been logged; what ends the run is to be told, not this
            self.settle()

    def here(self) -> bool:
        """Whether this is the thread that trains. A training that its caller forgot ends where the garbage is
        collected, which may be the writer's own thread: there nothing can be waited for."""
        return threading.get_ident() == self._thread

    def due(self, step: int) -> bool:
        """Whether this process wants a save after this step: by count, by time, or asked for. Rank 0 alone does."""
        if not self.s.leads:
            return False
        if self._pending is not None and self._pending.done():
            self.settle()
        train = self.s.config.train
        late = train.save_minutes > 0 and time.monotonic() - self._began >= 60 * train.save_minutes
        counted = train.save_every > 0 and step % train.save_every == 0
        return late or counted or self.s.run.requested("checkpoint")

    def save(self, step: int, wait: bool = False) -> None:
        """Hands a copy of everything to the writer; all ranks call it. `wait`: until it is on the disk. Raises
        RunError where that failed, or several before it did."""
        asked = self.s.leads and self.s.run.requested("checkpoint")
        snapshot = take(self.s, step, asked)
        if snapshot is None:
            return
        self._began = time.monotonic()
        self.settle()
        if wait:
            return self._write(snapshot, asked)
        self._pending = self._writer.submit(self._write, snapshot, asked)
        if asked:
            self.settle()

    def settle(self) -> None:
        """Waits for the pending save. Raises RunError where it is the third in a row that failed; of others it only
        tells, and training goes on to the next."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except RunError as error:
            self._failures += 1
            if self._failures >= FAILURES:
                raise
            log.warning("%s; training goes on, the next save is tried in its turn", error)
            return
        self._failures = 0

    def _write(self, snapshot: Snapshot, asked: bool) -> None:
        run = self.s.run
        try:
            if run.records.path.exists():
                durable.sync(run.records.path)  # a checkpoint vouches for the records up to it
            checkpoint.write(run, snapshot)
            if asked:
                run.granted("checkpoint")
            checkpoint.prune(run, self.s.config.train.keep_last)
        except OSError as error:
            raise RunError(f"cannot keep the checkpoints of {run.path} in order: {error}") from error


def take(s: Session, step: int, asked: bool = False) -> Snapshot | None:
    """A copy of everything that the next step depends on, on rank 0; None on the others. All ranks call it."""
    carry = merge([None if one is None else s.model.pack_carry(one) for one in s.track.carries], s.share)
    generators = distributed.gather(random_state(s.device))
    if not s.leads:
        return None
    s.track.step = step
    evaluated = s.track.latest.get("step") == step
    state = s.track.as_state() | {
        "tokens": step * s.tokens_per_step,
        "rng": generators,
        "scaler": s.scaler.state_dict(),
        "val_loss": s.track.latest["val_loss"] if evaluated else None,
        "asked": asked,
        "data": s.source.fingerprint(),
        "stack": s.stack,
    }
    optimizer = checkpoint.copied(s.optimizer.state_dict())
    if s.averages:
        optimizer[TRAINED] = checkpoint.copied(s.averages.weights)
    with s.averaged():
        model = checkpoint.copied(s.model.state_dict())
    return Snapshot(step, s.config, model, optimizer, carry, state)
