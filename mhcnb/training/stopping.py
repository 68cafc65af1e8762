"""Stopping at a step boundary: Ctrl-C, SIGTERM, SIGUSR1 (a scheduler's warning), or a request in the run folder."""

import signal
import threading
import time
from types import FrameType
from typing import Any

from mhcnb.run import Run

SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGUSR1"))
SAME_S = 2.0  # a launcher passes on what its ranks got from the terminal already: one request, not two


class Stopped(KeyboardInterrupt):
    """What the caller gets of an interrupt, once the run is safe."""


class Stopper:
    """While entered, the first of SIGNALS only notes that a stop is asked for; a second one acts at once."""

    def __init__(self, run: Run) -> None:
        self.run, self.reason, self._signal, self._since = run, "", 0, 0.0
        self._before: dict[int, Any] = {}
        self._left = False

    def __enter__(self) -> "Stopper":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._left:  # in another thread, which must not set handlers: a forgotten training that was collected
            self.__exit__()
            return signal.raise_signal(number)
        now = time.monotonic()
        if self._signal and now - self._since < SAME_S:
            return
        if self._signal:
            raise KeyboardInterrupt(f"second {signal.Signals(number).name}")
        self._signal, self._since = number, now
        self.reason = f"asked by {signal.Signals(number).name}"
        print(f"\n{signal.Signals(number).name}: stopping after this step; once more to stop at once", flush=True)

    def asked(self) -> bool:
        """Whether to stop after this step."""
        if not self.reason and self.run.requested("stop"):
            self.reason = "asked by control/stop"
        return bool(self.reason)

    def why(self) -> str:
        """The reason, on any rank, of a stop that the ranks have agreed upon."""
        return self.reason or "asked on another rank"

    def pass_on(self) -> None:
        """An interrupt stops the caller too (a notebook, a shell loop), once the run is safe."""
        if self._signal:
            raise Stopped(self.reason)
