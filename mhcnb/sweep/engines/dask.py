"""Cells on a dask cluster (by SSH, SLURM, Kubernetes, ...): a task runs one cell as a worker of this machine would.

The cell is a process of its own beside the dask worker: where a kernel dies, the worker does not. All hosts must see
the sweep's folder. How many devices a cell has is a matter of how each dask worker was started.
"""

import logging
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mhcnb.errors import ConfigError, RunError
from mhcnb.sweep.cell import Ending, Job, Worker
from mhcnb.sweep.engines.base import threads_a_rank
from mhcnb.sweep.plan import Cell, Plan

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 5.0
POLL_S = 0.2


class Dask:
    """The cluster of the scheduler at `address`: a slot for each thread of its workers, who may come and go.

    Raises RunError where none answers, within seconds.
    """

    def __init__(self, address: str, planned: Plan) -> None:
        if planned.devices is not None:
            raise ConfigError(
                "devices_per_cell is for cells on this machine; start each dask worker with its own "
                "CUDA_VISIBLE_DEVICES and --nthreads 1"
            )
        self.address, self.client, self._counted = address, _connect(address), 0.0
        self._count()

    def _count(self) -> None:
        """{host: threads of its workers}, at most once a second. Raises RunError where the scheduler is gone."""
        if time.monotonic() - self._counted < 1:
            return
        self._hosts: dict[str, int] = {}
        try:
            workers = self.client.nthreads()
        except (OSError, RuntimeError, ValueError) as error:
            raise _gone(self.address) from error
        for address, threads in workers.items():  # type: ignore[union-attr]
            self._hosts[_host(address)] = self._hosts.get(_host(address), 0) + threads
        self._counted = time.monotonic()

    @property
    def slots(self) -> int:
        """All threads of all workers that are there now."""
        self._count()
        return sum(self._hosts.values())

    def submit(self, cell: Cell) -> "Task":
        """Gives a cell to the scheduler; lost with its worker, it has died: it is not started again unasked."""
        key = f"{cell.name}-{uuid.uuid4().hex[:8]}"
        words = (tuple(Job.of(cell)), cell.processes, self._hosts)
        return Task(self, self.client.submit(run_job, *words, key=key, retries=0))

    def close(self) -> None:
        """Leaves the cluster, which cancels what runs there for this driver."""
        self.client.close()


class Task:
    """A cell on the cluster."""

    def __init__(self, engine: Dask, future: "Future") -> None:
        self.engine, self.future, self.facts = engine, future, {"task": future.key}

    def poll(self) -> Ending | None:
        """None while it waits for its dask worker or runs there. Raises RunError where the scheduler is gone."""
        status = self.future.status
        if status == "finished":
            return Ending(*self.future.result())
        if status == "error":
            return Ending(f"its dask task failed: {self.future.exception()!r}", died=True)
        if self.engine.client.status != "running":  # not the cell's fault: it stays as it is, and goes on another time
            raise _gone(self.engine.address)
        return None if status == "pending" else Ending(f"its dask task is {status}", died=True)

    def kill(self) -> None:
        """Takes the task back; its worker notices within a second."""
        self.future.cancel()


def run_job(job: tuple[Any, ...], processes: int, hosts: dict[str, int]) -> tuple[str, bool]:
    """On the dask worker: the cell to its end, or until nobody wants it, because it was cancelled or its driver is
    gone. Returns an Ending."""
    from distributed import get_worker

    task, here = Job(*job), get_worker()
    key, folder = here.get_current_task(), Path(task.output).parent
    if not folder.parent.is_dir():
        return Ending(f"the dask worker {here.address} does not see {folder.parent}; a sweep's folder must be shared")
    mark = Path(task.log).with_name(f"{key}.task")
    if mark.exists():
        mark.unlink()
        return Ending("its dask worker was lost", died=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    worker = Worker(task, threads_a_rank(hosts.get(_host(here.address), 1), processes))
    try:
        while (ending := worker.poll()) is None:
            known = here.state.tasks.get(key)  # the worker's own thread writes it; a task that runs cannot be told
            closes = here.status.name not in ("running", "paused", "closing_gracefully")  # its scheduler is gone
            if closes or known is None or known.state == "cancelled":
                return Ending("cancelled", died=True)
            time.sleep(POLL_S)
        return ending
    finally:
        worker.kill()
        mark.unlink(missing_ok=True)


def _connect(address: str) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        raise RunError("--scheduler needs the package distributed; pip install 'mhcnb[sweep]'") from error
    for name in ("distributed", "distributed.client"):  # they tell of each connection that they try
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"no dask scheduler answers at {address} ({type(error).__name__}: {error}); start one with `dask "
            "scheduler`, and workers with `dask worker ADDRESS`, or leave --scheduler out to run on this machine"
        ) from error


def _gone(address: str) -> RunError:
    return RunError(
        f"the dask scheduler at {address} is gone, and what ran there ends; start it again, then run the sweep again: "
        "what has a checkpoint goes on"
    )


def _host(address: str) -> str:
    return urlsplit(address).hostname or address
