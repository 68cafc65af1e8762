"""Real papermill cells: what is done is not repeated, and no way of ending the driver leaves anything behind."""

import json
import os
import re
import signal
from functools import partial

import pytest

from mhcnb.durable import write_json
from mhcnb.errors import RunError
from mhcnb.run import Run
from mhcnb.sweep.collect import collect, table
from mhcnb.sweep.plan import plan
from mhcnb.sweep.run import run_cell, run_sweep

from .driving import alive, began, drive, states, wait_for


def slow(cell: str, step_s: float) -> dict[str, str]:
    """The environment in which this cell takes so long a step."""
    return {"SLOW": cell, "STEP_S": str(step_s)}


def test_two_at_once_a_failure_a_second_run_a_retry(project, sweep_file, monkeypatch, capsys):
    path, out = sweep_file("workers: 2\nthen: [notebooks/03-overview.ipynb]"), project / "out"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("FAIL", "hc-tiny-s1")
    monkeypatch.setenv("STEP_S", "0.3")
    assert run_sweep(path, out=out) == 1
    assert states(out) == {"residual-tiny-s1": "done", "hc-tiny-s1": "failed"}
    first, second = (Run(out / name) for name in states(out))
    times = {name: at for name, at, _ in began(out)}
    assert times["hc-tiny-s1"] < first.status()["heartbeat"]  # both were at work at one time
    assert int(first.env()["threads"]) == max(1, len(os.sched_getaffinity(0)) // 2)
    text = capsys.readouterr().out
    assert re.search(r"residual-tiny-s1 done \(val loss 4.500\) in \d+ s", text)
    assert "hc-tiny-s1: ValueError: as asked" in text
    assert "residual  tiny     1     4.500       4.400    10,000       -     -       1,000  done" in text
    summary = json.loads((out / "summary.json").read_text())
    assert [(row["cell"], row["state"], row.get("final_val_loss")) for row in summary] == [
        ("residual-tiny-s1", "done", 4.5),
        ("hc-tiny-s1", "failed", None),
    ]
    assert "['hc-tiny-s1', 'residual-tiny-s1']" in (out / "03-overview.ipynb").read_text()

    kept = {file: file.stat().st_mtime_ns for file in out.rglob("*.ipynb")}
    assert run_sweep(path, out=out) == 1  # no work
    assert "1 failed earlier (--retry-failed runs them again), 0 to run" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.ipynb")} == kept

    monkeypatch.delenv("FAIL")
    assert run_sweep(path, out=out, retry_failed=True) == 0
    assert [name for name, *_ in began(out)].count("residual-tiny-s1") == 1
    assert second.status()["state"] == "done"
    assert Run(out / "aside" / "hc-tiny-s1-1").status()["state"] == "failed"
    assert (out / "03-overview.ipynb").stat().st_mtime_ns > kept[out / "03-overview.ipynb"]

    with pytest.raises(RunError, match=r"residual-tiny-s1 is done there with train.steps 5, not 6"):
        run_sweep(path, {"train.steps": 6}, out)


def test_killed_driver_leaves_no_process_and_no_finished_cell_is_repeated(project, sweep_file):
    path, out = sweep_file(), project / "out"
    with drive(path, out, slow("hc-tiny-s1", 60)) as driver:
        wait_for(lambda: Run(out / "hc-tiny-s1").status().get("step") == 1)
        worker = json.loads((out / "cells.json").read_text())["cells"]["hc-tiny-s1"]["pid"]
        kernel = began(out)[-1][2]
        assert alive(worker)
        assert alive(kernel)
        driver.kill()
        wait_for(lambda: not alive(worker) and not alive(kernel), 8)
    assert states(out) == {"residual-tiny-s1": "done", "hc-tiny-s1": "running"}
    assert run_sweep(path, out=out) == 0
    assert [name for name, *_ in began(out)] == ["residual-tiny-s1", "hc-tiny-s1", "hc-tiny-s1"]
    assert Run(out / "aside" / "hc-tiny-s1-1").status()["state"] == "running"
    assert [record["step"] for record in Run(out / "hc-tiny-s1").results()] == [1, 2, 3, 4, 5]


def test_ctrl_c_lets_cells_stop_and_twice_kills(project, sweep_file):
    path, out = sweep_file("workers: 1"), project / "out"
    with drive(path, out, slow("residual-tiny-s1", 0.3)) as driver:
        wait_for(lambda: Run(out / "residual-tiny-s1").status().get("step", 0) >= 1)
        with pytest.raises(RunError, match=rf"another sweep driver, process {driver.pid} on"):
            run_sweep(path, out=out)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and all that is in its group
        text, _ = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert "stopping: running cells end after their step" in text
    assert states(out) == {"residual-tiny-s1": "interrupted", "hc-tiny-s1": "planned"}
    assert Run(out / "residual-tiny-s1").status()["state"] == "stopped"
    assert len(began(out)) == 1

    with drive(path, out, slow("residual-tiny-s1", 60)) as driver:  # a step that does not end
        wait_for(lambda: len(began(out)) == 2 and Run(out / "residual-tiny-s1").status().get("step") == 1)
        driver.send_signal(signal.SIGINT)
        wait_for(lambda: Run(out / "residual-tiny-s1").requested("stop"))
        driver.send_signal(signal.SIGINT)
        driver.wait(5)
    assert driver.returncode == 130
    wait_for(lambda: not alive(began(out)[-1][2]), 8)
    assert states(out) == {"residual-tiny-s1": "interrupted", "hc-tiny-s1": "planned"}


def test_a_notebook_that_dies_or_leaves_no_run(project, book, sweep_file, capsys):
    parameters = "params: str = ''\noverrides: dict = {}\nout: str = ''\nprocesses: int = 1"
    die = "import os\nif 'hc' in out: os.kill(os.getpid(), 9)"
    book(project / "notebooks/02-train.ipynb", parameters, die)
    assert run_sweep(sweep_file("workers: 2"), out=project / "out") == 1
    assert states(project / "out") == {"residual-tiny-s1": "failed", "hc-tiny-s1": "died"}
    text = capsys.readouterr().out
    assert "residual-tiny-s1: its notebook ended, but left no finished run in" in text
    assert re.search(r"hc-tiny-s1: .*the kernel died while it ran", text)
    assert re.search(r"\nhc-tiny-s1 .* died\n", text)  # the table has a row for a cell without a run


# what a folder says, without a kernel ---------------------------------------------------------------------------------


def finished(cell, **changes) -> Run:
    """A run folder as a training leaves it."""
    config = cell.config.model_copy(update=changes)
    run = Run.create(cell.out, config)
    run.append({"type": "eval", "step": 4, "val_loss": 4.0, "train_loss": 3.0})
    run.set_status("done", config.train.steps)
    run.release()
    return run


def test_a_run_is_its_own_witness(project, sweep_file):
    """Done is what status.json says: cells.json and a torn notebook do not matter."""
    path, out = sweep_file("workers: 2"), project / "out"
    for cell in plan(path, out=out).cells:
        finished(cell)
        (cell.out / "notebook.part.ipynb").write_text("{ torn")
    assert run_sweep(path, out=out) == 0
    assert not (out / "aside").exists()
    assert states(out) == {"residual-tiny-s1": "done", "hc-tiny-s1": "done"}


def test_done_with_another_configuration_is_refused(project, sweep_file):
    path, out = sweep_file(), project / "out"
    cells = plan(path, out=out).cells
    finished(cells[1], seed=7)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(RunError, match=r"belongs to another configuration: hc-tiny-s1 .* seed 7, not 1"):
        run_sweep(path, out=out)
    after = {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.parent != out}
    assert after == before


def test_the_folder_of_another_sweep_is_refused(project, sweep_file):
    """By a driver, by one that only shows, and by a single cell; a sweep that has lost a cell is the same."""
    path, out = sweep_file(), project / "out"
    for cell in plan(path, out=out).cells:
        finished(cell)
    assert run_sweep(path, out=out) == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    other = sweep_file("seeds: [8]")
    for start in (run_sweep, partial(run_sweep, dry_run=True), partial(run_cell, number=0)):
        with pytest.raises(RunError, match=r"another sweep, of residual-tiny-s1, hc-tiny-s1 .* has residual-tiny-s8"):
            start(path=other, out=out)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert run_sweep(sweep_file(grid="{connection.name: [hc]}"), out=out) == 0


def test_a_resolved_auto_is_no_other_configuration(project, sweep_file):
    """A run writes the vocabulary that it found; its env.json keeps the digest of what was asked for."""
    text = (project / "params/tiny.yaml").read_text()
    (project / "params/tiny.yaml").write_text(text.replace("vocab_size: 64", "vocab_size: auto"))
    path, out = sweep_file(), project / "out"
    cells = plan(path, out=out).cells
    for cell in cells:
        run = finished(cell, model=cell.config.model.model_copy(update={"vocab_size": 2048}))
        write_json(run.path / "env.json", {"config_digest": cell.digest})
    assert run_sweep(path, out=out) == 0
    write_json(cells[0].out / "env.json", {"config_digest": "of 2048 in so many words"})
    with pytest.raises(RunError, match="residual-tiny-s1 is done there with a value for what is auto"):
        run_sweep(path, out=out)


def test_a_run_that_somebody_else_writes_is_waited_for_then_refused(project, sweep_file, monkeypatch, caplog):
    from mhcnb.sweep.folder import SweepFolder

    path, out = sweep_file(), project / "out"
    cell = plan(path, out=out).cells[0]
    held = Run.create(cell.out, cell.config)
    wait = SweepFolder.wait_until_free
    monkeypatch.setattr(SweepFolder, "wait_until_free", lambda self, cells: wait(self, cells, seconds=0.2))
    with pytest.raises(RunError, match=rf"still being written by process {os.getpid()} on .* \(state starting\)"):
        run_sweep(path, out=out)
    assert "waiting for a run that is still there" in caplog.text
    assert cell.out.exists()
    held.release()


def test_the_folder_of_a_run_is_no_sweep(project, sweep_file):
    path = sweep_file()
    run = finished(plan(path, out=project / "out").cells[0])
    with pytest.raises(RunError, match="is the folder of a run, not of a sweep"):
        run_sweep(path, out=run.path)


def test_collect_tolerates_what_is_unfinished_or_broken(project, sweep_file):
    out = project / "out"
    done, running = plan(sweep_file(), out=out).cells
    finished(done).write_summary({"connection": "residual", "preset": "tiny", "seed": 1, "final_val_loss": 3.25})
    finished(running).set_status("running", 4)
    (out / "broken").mkdir()
    (out / "broken" / "config.yaml").write_text("seed: [")
    (out / "aside" / "old-1").mkdir(parents=True)
    (out / "aside" / "old-1" / "config.yaml").write_text((done.out / "config.yaml").read_text())
    frame = collect([out, done.out])
    assert dict(zip(frame["run"], frame["state"], strict=True)) == {
        "broken": "unreadable",
        "hc-tiny-s1": "running",
        "residual-tiny-s1": "done",
    }
    losses = dict(zip(frame["run"], frame["final_val_loss"], strict=True))
    assert (losses["residual-tiny-s1"], losses["hc-tiny-s1"]) == (3.25, 4.0)
    lines = table(frame).splitlines()
    assert lines[0].split()[:3] == ["run", "method", "size"]
    assert [line.split()[0] for line in lines[2:]] == ["broken", "hc-tiny-s1", "residual-tiny-s1"]
    assert lines[3].endswith("running 4/5")
    with pytest.raises(RunError, match="no run in"):
        collect([project / "params"])
