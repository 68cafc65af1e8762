"""Cells on this machine: one slot for each worker, each with devices of its own where there are enough."""

import os

from mhcnb.errors import ConfigError
from mhcnb.sweep.cell import Job, Worker
from mhcnb.sweep.engines.base import threads_a_rank
from mhcnb.sweep.plan import Cell, Plan


class Local:
    """Processes of this one. Raises ConfigError where the plan asks for more devices than there are."""

    def __init__(self, planned: Plan) -> None:
        self.slots = min(planned.workers, len(planned.cells))
        self.threads = threads_a_rank(self.slots, planned.cells[0].processes)
        sets = device_sets(visible_devices(), self.slots, planned.cells[0].processes, planned.devices)
        self._slots: list[tuple[str | None, Worker | None]] = [(devices, None) for devices in sets]

    def submit(self, cell: Cell) -> Worker:
        """Starts a cell in a slot that is free."""
        free = next(i for i, (_, worker) in enumerate(self._slots) if worker is None or not worker.alive)
        devices = self._slots[free][0]
        worker = Worker(Job.of(cell), self.threads, devices)
        self._slots[free] = (devices, worker)
        return worker

    def close(self) -> None:
        """Kills what runs."""
        for _, worker in self._slots:
            if worker is not None and worker.alive:
                worker.kill()


def visible_devices() -> list[str]:
    """The names of this machine's accelerators that a process may be given; none on a CPU."""
    import torch

    if not torch.accelerator.is_available() or torch.accelerator.current_accelerator().type != "cuda":  # type: ignore[union-attr]
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.accelerator.device_count())]


def device_sets(visible: list[str], slots: int, processes: int, asked: int | None) -> list[str | None]:
    """What each slot may see. [None, ...]: all of it, on a CPU, or where nobody asked and there are too few for all.

    Raises ConfigError where `asked` devices a cell cannot be had.
    """
    size = asked or processes
    if size < processes:
        raise ConfigError(f"devices_per_cell = {size}: {processes} processes a cell need {processes} devices")
    if visible and asked and slots * size > len(visible):
        raise ConfigError(
            f"{slots} cells at a time of {size} device{'s' * (size > 1)} each need {slots * size}; this machine shows "
            f"{len(visible)}. Give fewer --workers, or fewer --devices-per-cell"
        )
    if slots * size > len(visible):
        return [None] * slots
    return [",".join(visible[i * size : (i + 1) * size]) for i in range(slots)]
