"""A real scheduler and two dask workers on loopback: cells end there as they do here, and none outlives its driver."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from mhcnb.errors import ConfigError, RunError
from mhcnb.run import Run
from mhcnb.sweep.engines import dask
from mhcnb.sweep.run import run_sweep

from .driving import alive, began, drive, parent, states, wait_for

pytest.importorskip("distributed")
QUIET = {"DASK_LOGGING__DISTRIBUTED": "warning", "DASK_DISTRIBUTED__DASHBOARD__LINK": ""}
GRID = "{connection.name: [residual, hc, mhc]}"


class Cluster(NamedTuple):
    address: str
    workers: list[subprocess.Popen]


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers of one thread each; all are ended by their pid."""
    (tmp_path / "dask").mkdir()
    log, address = (tmp_path / "dask.log").open("wb"), f"tcp://127.0.0.1:{free_port()}"

    def start(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:], "--no-dashboard"]
        env = os.environ | QUIET | {"STEP_S": "0.5", "FAIL": "hc-tiny-s1"}
        return subprocess.Popen(command, cwd=tmp_path / "dask", env=env, stdout=log, stderr=log)

    with ExitStack() as ends:
        port = address.rpartition(":")[2]
        started = [start("dask_scheduler", "--host", "127.0.0.1", "--port", port)]
        worker = ("dask_worker", address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--memory-limit", "0")
        started += [start(*worker) for _ in range(2)]
        for process in started:
            ends.callback(process.wait, 10)
            ends.callback(process.kill)
        yield Cluster(address, started[1:])
    log.close()


def test_a_failure_a_killed_kernel_and_a_killed_driver(project, sweep_file, cluster, capsys):
    """A failure and a killed kernel stop nothing; a killed driver takes its cells along, and the next one goes on with
    what is left."""
    path, out = sweep_file(grid=GRID), project / "out"
    with drive(path, out, scheduler=cluster.address) as driver:
        wait_for(lambda: len(began(out)) == 2)
        os.kill(next(pid for name, _, pid in began(out) if name == "residual-tiny-s1"), signal.SIGKILL)
        wait_for(lambda: Run(out / "mhc-tiny-s1").status().get("step") == 1)
        driver.kill()
        wait_for(lambda: not any(alive(pid) for *_, pid in began(out)), 8)
    found = states(out)
    assert found == {"residual-tiny-s1": "died", "hc-tiny-s1": "failed", "mhc-tiny-s1": "running"}
    assert all(worker.poll() is None for worker in cluster.workers)

    assert run_sweep(path, out=out, scheduler=cluster.address) == 1
    assert "2 failed earlier (--retry-failed runs them again), 1 to run" in capsys.readouterr().out
    assert states(out) == found | {"mhc-tiny-s1": "done"}
    assert [name for name, *_ in began(out)].count("residual-tiny-s1") == 1


def test_a_cell_that_takes_too_long_and_a_worker_that_is_lost(project, sweep_file, cluster):
    """What is not wanted any more ends; what was lost with its worker has died, and is not tried on another."""
    path, out = sweep_file(), project / "out"
    assert run_sweep(path, {"train.steps": 999, "timeout_s": 4}, out, only="residual-*", scheduler=cluster.address) == 1
    assert states(out) == {"residual-tiny-s1": "timeout", "hc-tiny-s1": "skipped"}
    wait_for(lambda: not any(alive(pid) for *_, pid in began(out)), 8)

    out = project / "other"
    with drive(path, out, scheduler=cluster.address, only="residual-*", overrides={"train.steps": 999}) as driver:
        wait_for(lambda: Run(out / "residual-tiny-s1").status().get("step") == 1)
        its = parent(parent(began(out)[0][2]))  # of a kernel, which is the cell's process's, which is the dask worker's
        next(worker for worker in cluster.workers if worker.pid == its).kill()
        text, _ = driver.communicate(timeout=30)
    assert driver.returncode == 1
    assert "residual-tiny-s1: its dask worker was lost" in text
    assert states(out)["residual-tiny-s1"] == "died"
    wait_for(lambda: not any(alive(pid) for *_, pid in began(out)), 8)  # a kernel looks after its parent each second


def test_a_scheduler_that_is_not_there_is_named_within_seconds(project, sweep_file, monkeypatch):
    assert dask.CONNECT_S <= 5
    monkeypatch.setattr(dask, "CONNECT_S", 1)
    path, before = sweep_file(), set(project.rglob("*"))
    address, began = f"tcp://127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(RunError, match=rf"no dask scheduler answers at {address} .*start one with"):
        run_sweep(path, out=project / "out", scheduler=address)
    assert time.monotonic() - began < 5
    with pytest.raises(RunError, match=r"no dask scheduler answers at nonsense"):
        run_sweep(path, out=project / "out", scheduler="nonsense://here")
    with pytest.raises(ConfigError, match=r"start each dask worker with its own"):
        run_sweep(path, {"devices_per_cell": 1}, project / "out", scheduler=address)
    assert set(project.rglob("*")) == before
