"""The line that moves, and the words for times."""

import sys

import pytest

from mhcnb.sweep.plan import plan
from mhcnb.sweep.progress import Progress, duration, position


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3599.7, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "starting"),
        ('{"type": "eval", "step": 0, "val_loss": 7.625}\n', "0/5 loss 7.62"),
        ('{"type": "train", "step": 3, "loss": 4.5}\n{"type": "train", "st', "3/5 loss 4.50"),
        ("x" * 9000 + '\n{"type": "maps", "step": 4}\n', "4/5 loss nan"),
        ("x" * 9000, "starting"),
    ],
)
def test_position_is_that_of_the_last_whole_record(sweep_file, text, words):
    cell = plan(sweep_file()).cells[0]
    assert position(cell) == "residual-tiny-s1 starting"
    cell.out.mkdir(parents=True)
    (cell.out / "results.jsonl").write_text(text)
    assert position(cell) == f"residual-tiny-s1 {words}"


def test_the_moving_line_is_for_terminals(sweep_file, capsys, monkeypatch):
    cells, progress = plan(sweep_file()).cells, Progress(2, 1)
    progress.live(cells, 3)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    progress.live(cells, 3)
    assert capsys.readouterr().out == "\r\033[K" + "0 s | residual-tiny-s1 starting | hc-tiny-s1"[:39]
    progress.live(cells, 3)  # within the same second
    assert capsys.readouterr().out == ""


def test_time_left_counts_the_workers(capsys):
    progress = Progress(total=5, workers=2)
    progress.finished("a", "done", 10)
    assert capsys.readouterr().out == "[1/5] a done in 10 s; 4 left, about 20 s\n"
    progress.finished("b", "failed", 30)
    assert capsys.readouterr().out == "[2/5] b failed in 30 s; 3 left, about 30 s\n"
