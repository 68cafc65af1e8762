"""A log for each rank, and in it the stacks of all its threads when no step has ended for too long."""

import faulthandler
import logging
import sys
import threading
import time
from pathlib import Path

log = logging.getLogger(__name__)
SHARE = 0.8  # of the time after which the process group gives up: the stacks come before that


class Watchdog:
    """While entered, what this rank logs goes to `logs`/rank<r>.log too, with the error that it ends by; and a hang
    leaves there when it was, after which step, and where each thread stood. It ends nothing.

    The stacks are written by a thread of the interpreter that needs no lock, so a hang inside of a library shows too.
    """

    def __init__(self, logs: Path, rank: int, timeout_s: float) -> None:
        self.path, self.rank, self.patience = logs / f"rank{rank}.log", rank, SHARE * timeout_s
        self._ended = threading.Event()

    def __enter__(self) -> "Watchdog":
        self._handler, root = _handler(self.path), logging.getLogger()
        # where nobody has set up logging, Python shows warnings only as long as the root logger has no handler
        self._added = [self._handler, *([logging.lastResort] if logging.lastResort and not root.handlers else [])]
        for handler in self._added:
            root.addHandler(handler)
        self._arm("the start")
        self._herald = threading.Thread(target=self._announce, name="mhcnb-watchdog", daemon=True)
        self._herald.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._ended.set()
        self._herald.join()
        if isinstance(error, Exception):  # the other ranks find out only that this one is gone
            what, exc_info = f"after {self._last[0]}", (type(error), error, error.__traceback__)
            self._handler.handle(logging.LogRecord(log.name, logging.ERROR, __file__, 0, what, (), exc_info))
        for handler in self._added:
            logging.getLogger().removeHandler(handler)
        self._handler.close()

    def beat(self, step: int) -> None:
        """Step `step` has ended: the time runs anew."""
        self._arm(f"step {step}")

    def _arm(self, what: str) -> None:
        self._last = (what, time.monotonic())
        faulthandler.dump_traceback_later(self.patience, file=self._handler.stream)

    def _announce(self) -> None:
        """Says shortly before the stacks come what they mean; that writer knows no words of its own."""
        said = None
        while not self._ended.wait(self.patience / 20):
            what, since = last = self._last
            waited = time.monotonic() - since
            if last != said and waited > 0.9 * self.patience:
                said = last
                log.error(
                    "rank %d: nothing has ended for %.3g s since %s; the stacks of all threads follow in %s",
                    self.rank, waited, what, self.path,
                )  # fmt: skip


def _handler(path: Path) -> logging.StreamHandler:
    """Appends to `path`, whose folder another node may not see yet; where that fails, a log is not worth the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        log.warning("no log of this process: %s", error)
        handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler
