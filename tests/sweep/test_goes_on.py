"""Real trainings: a cell that was interrupted in whatever way goes on, to the same end as if it had not been."""

import signal
from pathlib import Path

from mhcnb.run import Run
from mhcnb.sweep.plan import plan
from mhcnb.sweep.run import run_cell, run_sweep
from mhcnb.training.loop import train

from ..faults.oracle import judge
from .driving import alive, drive, states, wait_for

ROOT = Path(__file__).parents[2]
STEPS = 320  # a killed driver's kernel goes on for up to two seconds
CELL = "mhc-tiny-s1"
TRAIN = f"train.steps: {STEPS}, train.micro_batch: 48, train.save_every: 20, train.eval_batches: 1"
OVERRIDES = f"{{{TRAIN}, model.vocab_size: auto}}"


def test_interrupted_then_killed_is_equal_to_the_last_bit(project, sweep_file, capsys):
    """By Ctrl-C, by the death of its driver; then on without a driver. Beside it, the same training undisturbed."""
    book, out = ROOT / "notebooks" / "02-train.ipynb", project / "out"
    path = sweep_file(f"notebook: {book}\noverrides: {OVERRIDES}", grid="{connection.name: [mhc]}")
    run, seen = Run(out / CELL), 0
    for ending, state in ((signal.SIGINT, "interrupted"), (signal.SIGKILL, "running")):
        with drive(path, out) as driver:
            wait_for(lambda seen=seen: _last_step(run) > seen)
            driver.send_signal(ending)
            driver.communicate(timeout=30)
        assert states(out) == {CELL: state}
        wait_for(lambda: not alive(run.status()["pid"]), 8)
        before, seen = seen, _last_step(run)
        assert before < seen < STEPS
    assert run_cell(path, 0, out=out) == 0
    assert f"{CELL} goes on" in capsys.readouterr().out
    assert len(run.env()["resumed"]) == 2
    assert not (out / "aside").exists()
    train(plan(path, out=out).cells[0].config, project / "whole")
    assert judge(run.path, project / "whole").wrong == ()
    # its configuration says that it went on; it is the same cell
    assert run_sweep(path, out=out) == 0
    assert "1 done, 0 to run" in capsys.readouterr().out


def _last_step(run: Run) -> int:
    """0 before the first checkpoint."""
    return int(run.checkpoints()[-1].name.removeprefix("step-")) if run.checkpoints() else 0
