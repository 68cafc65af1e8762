"""What runs the cells: an engine has slots, takes a cell, and gives a handle on what runs."""

import os
from typing import Any, Protocol

from mhcnb.sweep.cell import Ending
from mhcnb.sweep.plan import Cell


class Handle(Protocol):
    """A cell that runs."""

    @property
    def facts(self) -> dict[str, Any]:
        """Where: what the sweep's record shall say of it."""
        ...

    def poll(self) -> Ending | None:
        """None while it runs. An ending is told once."""
        ...

    def kill(self) -> None:
        """Ends it now, with its kernel and its ranks."""
        ...


class Engine(Protocol):
    """Where cells run."""

    @property
    def slots(self) -> int:
        """Cells at a time; may change."""
        ...

    def submit(self, cell: Cell) -> Handle:
        """Starts a cell."""
        ...

    def close(self) -> None:
        """Lets go of what the engine holds; cells that run are killed."""
        ...


def threads_a_rank(at_once: int, processes: int) -> int | None:
    """This machine's cores shared by all ranks of the cells that it runs at a time; None: a cell has it to itself.

    It comes from the plan, not from what is left to run: the bits of a training depend on it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return None if at_once == 1 else max(1, cores // (at_once * processes))
