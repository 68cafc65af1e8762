"""Cells on this machine: their devices, and what takes too long."""

import itertools
import re

import pytest

from mhcnb.errors import ConfigError
from mhcnb.run import Run
from mhcnb.sweep.engines import local
from mhcnb.sweep.engines.base import threads_a_rank
from mhcnb.sweep.run import run_sweep

from .driving import alive, began, states, wait_for


def test_what_takes_too_long_is_killed_and_no_cell_sees_anothers_devices(project, sweep_file, monkeypatch, capsys):
    path, out = sweep_file("workers: 2\ndevices_per_cell: 2\noverrides: {train.timeout_s: 1.5}"), project / "out"
    monkeypatch.setattr(local, "visible_devices", lambda: ["4", "5", "MIG-6", "7"])
    monkeypatch.setenv("SLOW", "residual-tiny-s1")
    monkeypatch.setenv("STEP_S", "60")
    assert run_sweep(path, {"timeout_s": 12}, out) == 1
    assert states(out) == {"residual-tiny-s1": "timeout", "hc-tiny-s1": "done"}
    wait_for(lambda: not any(alive(pid) for *_, pid in began(out)), 8)
    assert [Run(out / name).env()["devices"] for name in states(out)] == ["4,5", "MIG-6,7"]
    text = capsys.readouterr().out
    assert len(re.findall(r"residual-tiny-s1 has given no sign of life for \d s, since step 1", text)) == 1
    assert "residual-tiny-s1: killed after 12 s (--timeout), at step 1" in text
    assert Run(out / "residual-tiny-s1").status()["state"] == "running"  # as it was left: the record knows better
    assert run_sweep(path, out=out) == 1
    assert "1 done, 1 failed earlier (--retry-failed runs them again), 0 to run" in capsys.readouterr().out
    assert states(out)["residual-tiny-s1"] == "timeout"


@pytest.mark.parametrize("devices", range(9))
def test_slots_share_no_device(devices):
    """Where there are enough every slot has its own; else all see all, or, where they were asked for, it is refused."""
    visible = [f"GPU-{i}" for i in range(devices)]
    for slots, processes, asked in itertools.product(range(1, 5), range(1, 4), (None, 1, 2, 4)):
        size = asked or processes
        if size < processes or (asked and 0 < devices < slots * size):
            with pytest.raises(ConfigError, match=r"need \d+"):
                local.device_sets(visible, slots, processes, asked)
            continue
        sets = local.device_sets(visible, slots, processes, asked)
        if devices < slots * size:
            assert sets == [None] * slots
        else:
            named = [names.split(",") for names in sets]
            assert [len(names) for names in named] == [size] * slots
            assert list(itertools.chain(*named)) == visible[: slots * size]


def test_threads_fill_the_cores_but_no_more(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert threads_a_rank(1, 4) is None
    for cells, ranks in itertools.product(range(2, 9), range(1, 9)):
        threads = threads_a_rank(cells, ranks)
        assert threads * cells * ranks <= 16 or threads == 1
        assert (threads + 1) * cells * ranks > 16
