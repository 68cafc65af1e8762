"""`--cell K`: cells of one sweep in processes that know nothing of each other, as those of a job array."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mhcnb.config import load_config, parse_overrides
from mhcnb.errors import ConfigError, RunError
from mhcnb.run import Run
from mhcnb.sweep.folder import read_record
from mhcnb.sweep.run import run_cell, run_sweep

from .driving import alive, began, drive, states, wait_for

SLURM = Path(__file__).parents[2] / "params" / "slurm"


def own_states(out: Path) -> dict[str, str]:
    return {name: cell["state"] for name, cell in read_record(out).get("cells", {}).items()}


def test_cells_beside_each_other_then_a_driver(project, sweep_file, capsys):
    """Each writes its own record; none starts what another runs. A driver afterwards finds what they left."""
    path, out = sweep_file(), project / "out"
    env = {"STEP_S": "0.4", "FAIL": "hc-tiny-s1"}
    with drive(path, out, env, "run_cell", number=0) as first, drive(path, out, env, "run_cell", number=1) as second:
        wait_for(lambda: own_states(out) == {"residual-tiny-s1": "running", "hc-tiny-s1": "running"})
        with pytest.raises(RunError, match=r"residual-tiny-s1 is run by another process \(--cell\)"):
            run_cell(path, 0, out=out)
        with pytest.raises(RunError, match=r"(residual|hc)-tiny-s1 is run by another process \(--cell\)"):
            run_sweep(path, out=out)
        assert (first.wait(40), second.wait(40)) == (0, 1)
        assert "hc-tiny-s1: ValueError: as asked" in second.stdout.read()
    assert not (out / "cells.json").exists()
    assert own_states(out) == {"residual-tiny-s1": "done", "hc-tiny-s1": "failed"}

    assert (run_cell(path, 0, out=out), run_cell(path, 1, out=out)) == (0, 1)  # nothing is run again unasked
    assert "hc-tiny-s1 failed earlier; --retry-failed runs it again" in capsys.readouterr().out
    assert run_sweep(path, out=out) == 1
    assert len(began(out)) == 2
    assert states(out) == {"residual-tiny-s1": "done", "hc-tiny-s1": "failed"}
    assert (out / "summary.json").exists()


@pytest.fixture
def cluster_commands(project, monkeypatch):
    """srun and scontrol that write down what they were given; returns those lines."""
    for name in ("srun", "scontrol"):
        path = project / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = show ]; then echo node7; else echo {name} "$@" >> {project}/said; fi\n'
        )
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{project / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    return lambda: (project / "said").read_text().splitlines()


def test_a_task_of_the_array_saves_before_its_time_is_over_and_is_queued_again(project, sweep_file, cluster_commands):
    out = project / "out"
    env = dict(SWEEP=str(sweep_file()), OUT=str(out), PROCESSES="1", STEP_S="0.3")
    env |= dict(SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="70")
    with subprocess.Popen(["bash", SLURM / "array.sbatch"], env=os.environ | env) as job:
        wait_for(lambda: Run(out / "hc-tiny-s1").status().get("step") == 1)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(20) == 130
    assert cluster_commands() == ["scontrol requeue 70_1"]
    assert own_states(out) == {"hc-tiny-s1": "interrupted"}
    assert Run(out / "hc-tiny-s1").status()["reason"] == "asked by control/stop"
    wait_for(lambda: not alive(began(out)[0][2]), 8)


@pytest.mark.parametrize("name", ["multinode", "hrm"])
def test_a_run_by_torchrun_is_what_torchrun_and_mhcnb_take(name, project, cluster_commands):
    """Its command as torchrun reads it; queued again only where there is more to do."""
    from torch.distributed.run import get_args_parser

    env = dict(OUT=str(project), PARAMS="params/tiny.yaml", RANKS="4")
    env |= dict(SLURM_NNODES="2", SLURM_JOB_ID="70", SLURM_JOB_NODELIST="node[7-8]")
    for state in ("stopped", "done"):
        (project / "status.json").write_text(json.dumps({"state": state, "reason": "asked by SIGUSR1"}))
        assert subprocess.run(["bash", SLURM / f"{name}.sbatch"], env=os.environ | env).returncode == 0
    srun, requeue, again = cluster_commands()
    assert (requeue, again) == ("scontrol requeue 70", srun)
    words = srun.split()
    given = get_args_parser().parse_args(words[words.index("torch.distributed.run") + 1 :])
    assert (given.nproc_per_node, given.module, given.standalone) == ("4", True, name == "hrm")
    if name == "multinode":
        assert (given.nnodes, given.rdzv_endpoint) == ("2", "node7:29500")
        assert (given.rdzv_backend, given.rdzv_id) == ("c10d", "70")
    assert "SIGUSR1" in given.signals_to_handle.split(",")
    assert (given.training_script, given.training_script_args[:2]) == ("mhcnb", ["train", "params/tiny.yaml"])
    assert (
        load_config(*given.training_script_args[1:2], parse_overrides(given.training_script_args[2:4])).train.resume
        == "auto"
    )


@pytest.mark.parametrize("name", ["array", "multinode", "hrm"])
def test_what_is_asked_of_slurm(name):
    text = (SLURM / f"{name}.sbatch").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", text, re.MULTILINE))
    assert {"time", "gres", "output", "requeue", "open-mode"} <= asked.keys()
    assert asked["signal"].endswith("USR1@180")
    assert asked.get("array") == ("0-11" if name == "array" else None)
    edit = [line for line in text.splitlines() if "<-" in line]
    assert [word for word in ("time", "gres", "OUT=", "activate") if not any(word in line for line in edit)] == []


def test_a_driver_at_work_is_named(project, sweep_file):
    from mhcnb.sweep.folder import SweepFolder

    path, out = sweep_file(), project / "out"
    driver = SweepFolder(out)
    driver.acquire()
    driver.write()
    with pytest.raises(RunError, match=rf"worked on by a sweep driver, process {os.getpid()} on"):
        run_cell(path, 0, out=out)
    driver.release()


@pytest.mark.parametrize("number", [-1, 2])
def test_a_cell_beyond_the_plan(project, sweep_file, number):
    path, before = sweep_file(), set(project.rglob("*"))
    with pytest.raises(ConfigError, match=rf"--cell {number}: .*pair.yaml has 2 cells, 0 to 1"):
        run_cell(path, number, out=project / "out")
    assert set(project.rglob("*")) == before
