"""The errors a user may meet. Each text says what, where, got, expected, and what to do."""

import difflib
from collections.abc import Iterable


class MhcnbError(Exception):
    """Base of every error that this package raises on purpose; the command line prints it without a traceback."""


class ConfigError(MhcnbError, ValueError):
    """A configuration is wrong: unknown key, wrong type, values that do not fit together."""


class DataError(MhcnbError, ValueError):
    """Data are missing, damaged or not what they are said to be."""


class CheckpointError(MhcnbError, RuntimeError):
    """A checkpoint is missing, damaged or of another model."""


class RunError(MhcnbError, RuntimeError):
    """A run cannot start, or ended before its time."""


class NotebookError(MhcnbError, ValueError):
    """A notebook's parameters are not what it takes, or it failed."""


def nearest(name: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """`; did you mean x? known: a, b, x`: the end of every message about an unknown name. `also` may be meant, too, and
    is not listed."""
    known = sorted(known)
    close = difflib.get_close_matches(name, sorted({*known, *also}), n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else ";"
    return f"{hint} known: {', '.join(known) or 'none'}"
