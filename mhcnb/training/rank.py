"""A process that torchrun started: it neither outlives its launcher nor trips over its own end. Light, so that it holds
from the first second on, while torch is still being imported."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def die_with_parent() -> None:
    """Asks Linux to end this process when its launcher is gone, whatever killed it: a rank must not train on alone."""
    import ctypes

    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@contextmanager
def as_rank() -> Iterator[None]:
    """Around the work of a process that torchrun started; nothing in any other.

    It dies with its launcher, and leaves without the interpreter's clean-up: with gloo that aborts now and then
    after a run that went well. One that was asked to stop, and has, leaves in peace, or its launcher would restart it.
    (torchrun passes SIGUSR1 on where it is told to: `--signals-to-handle SIGTERM,SIGINT,SIGUSR1`.)
    """
    ranked = "TORCHELASTIC_RUN_ID" in os.environ
    if ranked:
        die_with_parent()
    try:
        yield
    except KeyboardInterrupt as error:
        from mhcnb.training.stopping import Stopped

        if ranked:
            _leave(0 if isinstance(error, Stopped) else 130)
        raise
    if ranked:
        _leave(0)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
