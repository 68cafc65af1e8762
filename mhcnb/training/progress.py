"""Speed, and what a person sees while training."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mhcnb.training import launch
from mhcnb.training.session import Session

HEARTBEAT_S = 5.0
QUIET_S = 30.0  # between lines where nobody watches a terminal


class Meter:
    """Times updates, evaluation left out, and writes the train records."""

    def __init__(self, s: Session) -> None:
        self.s, self.tokens = s, s.tokens_per_step
        self.peak = launch.peak_flops(s.device)
        self._mark = self._beat = time.monotonic()
        self._begun = self._mark - s.track.time_s
        self._first = self._marked_step = s.track.step

    def elapsed(self) -> float:
        """Seconds of training so far, those of earlier attempts up to their checkpoint included."""
        return time.monotonic() - self._begun

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is not training."""
        began = time.monotonic()
        yield
        self._mark += time.monotonic() - began

    def line(self, step: int, loss: Tensor, norm: Tensor, rate: float) -> dict[str, Any] | None:
        """The train record of this step where one is due, written by rank 0; keeps the heartbeat."""
        last, track = step == self.s.config.train.steps, self.s.track
        track.time_s = self.elapsed()
        if step % self.s.config.log.every and not last:
            self._heartbeat(step)
            return None
        values = {"loss": float(loss), "grad_norm": float(norm)}  # waits for the device: the times below are true
        now = time.monotonic()
        steps, seconds = step - self._marked_step, now - self._mark
        if self._marked_step > self._first or last:  # the first interval warms up: caches, compile
            track.trained_s += seconds
            track.trained_steps += steps
        self._mark, self._marked_step = now, step
        record = {"type": "train", "step": step, "time_s": self.elapsed(), "loss": values["loss"], "lr": rate}
        record |= {"grad_norm": values["grad_norm"], "tokens_per_s": self.tokens * steps / seconds}
        record |= track.means()
        record["peak_memory_gb"] = launch.peak_memory_gb(self.s.device)
        if self.peak:
            per_rank = record["tokens_per_s"] / self.s.world.size
            record["mfu"] = self.s.model.flops_per_token() * per_rank / self.peak
        if self.s.leads:
            self.s.run.append(record)
        self._heartbeat(step)
        return record

    def mean_speed(self) -> float:
        """Tokens a second over all intervals but the first."""
        track = self.s.track
        return self.tokens * track.trained_steps / track.trained_s if track.trained_s else 0.0

    def _heartbeat(self, step: int) -> None:
        now = time.monotonic()
        if self.s.leads and now - self._beat > HEARTBEAT_S:
            self._beat = now
            self.s.run.set_status("running", step)


class Progress:
    """What rank 0 prints: a bar on a terminal; elsewhere, where every refresh would be kept, now and then a line."""

    def __init__(self, s: Session) -> None:
        self.s, self.steps = s, s.config.train.steps
        self.live, self.first = sys.stdout.isatty(), s.track.step
        self._begun = self._said = time.monotonic()

    def __enter__(self) -> "Progress":
        hidden = not (self.s.leads and self.live)
        words = {"desc": self.s.run.name, "initial": self.first, "dynamic_ncols": True}
        self.bar = tqdm(total=self.steps, file=sys.stdout, disable=hidden, **words)  # type: ignore[call-overload]
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, step: int, line: dict[str, Any] | None, evaluation: dict[str, Any] | None) -> None:
        """Tells of a step, with its records where it has any."""
        if not self.s.leads:
            return
        words = []
        if line:
            mfu = f", MFU {line['mfu']:.0%}" if "mfu" in line else ""
            words.append(f"loss {line['loss']:.3f}, {line['tokens_per_s']:,.0f} tokens/s{mfu}")
            self.bar.set_postfix_str(words[0], refresh=False)
        if evaluation:
            losses = [f"{split} loss {evaluation[f'{split}_loss']:.3f}" for split in ("train", "val")]
            words.append(f"evaluated: {', '.join(losses + self.s.objective.shares(evaluation))}")
        due = evaluation or (words and time.monotonic() - self._said > QUIET_S)
        if due:
            self._said = time.monotonic()
            text = f"step {step} of {self.steps}: " + "; ".join(words)
            self.bar.write(text, file=sys.stdout) if self.live else print(text + self._left(step), flush=True)
        self.bar.update(step - self.bar.n)

    def _left(self, step: int) -> str:
        if not self.first < step < self.steps:
            return ""
        left = (time.monotonic() - self._begun) / (step - self.first) * (self.steps - step)
        return f"; {tqdm.format_interval(left)} left"
