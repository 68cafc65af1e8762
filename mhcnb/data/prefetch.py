"""A thread that reads ahead, so that an accelerator does not wait for the disk."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import NamedTuple

import torch

from mhcnb.data.base import Source
from mhcnb.models.base import Batch
from mhcnb.objectives.base import Clock

DEPTH = 4  # batches read ahead


class Plan(NamedTuple):
    """Rows first .. first + count of the global batch of a step."""

    step: int
    first: int
    count: int


def prefetch(source: Source, seed: int, plans: Iterable[Plan], device: torch.device) -> Generator[Batch]:
    """The training batches of `plans`, in order, on the CPU; in pinned memory where `device` can copy from it.

    What reading raises is raised here, at its place in the order. Closing the iterator ends the thread.
    """
    ready: queue.Queue[Batch | Exception | None] = queue.Queue(DEPTH)
    closed = threading.Event()

    def put(item: Batch | Exception | None) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            _use(device)
            for step, first, count in plans:
                put(_pinned(source.train_batch(Clock(seed, step), first, count), device))
                if closed.is_set():
                    return
            put(None)
        except Exception as error:
            put(error)

    thread = threading.Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()


def _pins(device: torch.device) -> bool:
    return device.type not in ("cpu", "mps")  # mps shares the CPU's memory


def _use(device: torch.device) -> None:
    """Pinning belongs to a device: without this a thread would wake device 0, whichever its process uses."""
    if _pins(device) and device.index is not None:
        torch.accelerator.set_device_index(device.index)


def _pinned(batch: Batch, device: torch.device) -> Batch:
    return {name: x.pin_memory() for name, x in batch.items()} if _pins(device) else batch
