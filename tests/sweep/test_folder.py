"""What an unfinished attempt is worth: gone on with where that gives the same run, else put aside."""

import os

import pytest
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.run import Run
from mhcnb.sweep.folder import SweepFolder, read_record
from mhcnb.sweep.plan import plan
from mhcnb.training.checkpoint import OPTIMIZER
from mhcnb.training.loop import train_steps


@pytest.fixture
def stopped(project, sweep_file):
    """A sweep's folder and its cell, of which a training has left a checkpoint after two of five updates."""
    path = sweep_file("overrides: {model.vocab_size: auto, train.eval_batches: 1}")
    planned = plan(path, out=project / "out")
    cell = planned.cells[0]
    steps = train_steps(cell.config, cell.out)
    assert next(info for info in steps if info.step == 2)
    steps.close()
    assert Run(cell.out).status()["state"] == "stopped"
    return path, SweepFolder(planned.out), cell


def _damaged(cell) -> None:
    for checkpoint in Run(cell.out).checkpoints():
        (checkpoint / OPTIMIZER).write_bytes(b"?")


def _failed(cell) -> None:
    Run(cell.out).set_status("failed", 2)


def _without_checkpoint(cell) -> None:
    (cell.out / "checkpoints").rename(cell.out / "gone")


@pytest.mark.parametrize(
    ("change", "state", "goes_on"),
    [
        (lambda cell: None, "planned", True),
        (lambda cell: Run(cell.out).set_status("running", 2), "died", True),
        (lambda cell: None, "timeout", True),
        (lambda cell: None, "failed", False),
        (_failed, "planned", False),
        (_damaged, "planned", False),
        (_without_checkpoint, "planned", False),
    ],
    ids=["stopped", "died", "timeout", "notebook failed", "run failed", "damaged", "no checkpoint"],
)
def test_what_goes_on_and_what_starts_afresh(stopped, change, state, goes_on):
    _, folder, cell = stopped
    change(cell)
    kept = sorted(path.name for path in cell.out.rglob("*"))
    assert folder.make_ready(cell, state) is goes_on
    where = cell.out if goes_on else folder.path / "aside" / f"{cell.name}-1"
    assert sorted(path.name for path in where.rglob("*")) == kept
    assert cell.out.exists() is goes_on


def test_another_configuration_starts_afresh(stopped):
    path, folder, cell = stopped
    (other, *_) = plan(path, {"train.lr": 0.5}, folder.path).cells
    assert folder.judge(other) == "planned"
    assert not folder.make_ready(other, "planned")
    assert (folder.path / "aside" / f"{cell.name}-1" / "config.yaml").exists()


def test_how_a_run_was_opened_is_no_part_of_what_it_is(stopped):
    """A cell's notebook resumes; done so, it is the cell that was planned, and no other."""
    path, folder, cell = stopped
    train = cell.config.train.model_copy(update={"resume": "auto"})
    for _ in train_steps(cell.config.model_copy(update={"train": train}), cell.out):
        pass
    assert Run(cell.out).env()["config_digest"] != cell.digest
    assert folder.judge(cell) == "done"
    assert cell.parameters["overrides"]["train.resume"] == "auto"
    assert cell.overrides.keys().isdisjoint({"train.resume"})
    (other, *_) = plan(path, {"train.lr": 0.5}, folder.path).cells
    with pytest.raises(Exception, match=r"residual-tiny-s1 is done there with train.lr 0.001, not 0.5; nothing was"):
        folder.judge(other)


def test_a_cells_own_record_counts_until_a_driver_has_read_it(project, sweep_file):
    folder = SweepFolder(plan(sweep_file(), out=project / "out").out)
    folder.acquire()
    folder.cells = {"a": {"state": "done"}, "b": {"state": "running"}}
    folder.write()
    folder.release()
    (folder.path / ".cells").mkdir()
    (folder.path / ".cells" / "b.json").write_text('{"state": "died"}')
    assert read_record(folder.path)["cells"] == {"a": {"state": "done"}, "b": {"state": "died"}}
    folder.acquire()
    folder.write()
    folder.release()
    assert not (folder.path / ".cells" / "b.json").exists()
    assert read_record(folder.path)["cells"]["b"] == {"state": "died"}


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--timeout", "0"], 2, "override: timeout_s = 0.0 (float); expected greater than 0"),
        (["--workers", "0"], 2, "override: workers = 0 (int); expected greater than 0"),
        (["--devices-per-cell", "-1"], 2, "override: devices_per_cell = -1 (int); expected greater than 0"),
        (["--devices-per-cell", "1", "processes=2"], 2, "devices_per_cell = 1: 2 processes a cell need 2 devices"),
        (["--cell", "2"], 2, "has 2 cells, 0 to 1"),
        (["--cell", "0", "--only", "hc*"], 2, "--cell does not go with --only"),
        (["--status", "--retry-failed"], 2, "--status does not go with --retry-failed"),
        (["base=nowhere.yaml"], 2, "params: no such file: nowhere.yaml"),
        (["seeds=[1,1]"], 2, "two cells are both called residual-tiny-s1"),
        (["seeds=[]"], 2, "seeds has an empty list, which gives no cell"),
        (["grid={}", "base=null"], 2, "base is missing; name a params file"),
        (["train.resume=auto"], 2, "train.resume: the cells of a sweep always go on"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_command_line_refuses(project, sweep_file, words, status, text):
    path, before = sweep_file(), set(project.rglob("*"))
    done = CliRunner().invoke(main, ["sweep", str(path), "--out", str(project / "out"), *words])
    assert (done.exit_code, set(project.rglob("*"))) == (status, before)
    assert text in done.output


def test_a_folder_that_cannot_be_written(project, sweep_file):
    (project / "file").write_text("")
    done = CliRunner().invoke(main, ["sweep", str(sweep_file()), "--out", str(project / "file" / "out")])
    assert done.exit_code == 2
    assert f"cannot write to {project}{os.sep}file" in done.output
