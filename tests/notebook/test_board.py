"""The live board without a browser: what it says, where it leads, what its button does."""

import re
import time

import pytest

from mhcnb.errors import NotebookError
from mhcnb.notebook import board
from mhcnb.run import Run
from mhcnb.sweep.board import read, say

from ..sweep.simulate import HERE, eight, record, run


@pytest.fixture
def folder(tmp_path):
    return eight(tmp_path / "sweep")


def test_tiles_lead_to_executed_notebooks_and_carry_their_letter(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = board.as_html(read(folder))
    assert re.findall(r'<a href="([^"]*)"', text)[:2] == [
        "residual-tiny-s1/notebook.ipynb",
        "hc-tiny-s1/notebook.ipynb",
    ]
    assert text.count("<a ") == 6  # planned and skipped have none
    for state, letter in board.LETTERS.items():
        fill, _ = board.COLOURS[state]
        assert re.search(rf"<td title=[^>]*background:{fill}[^>]*>(<a [^>]*>)?<b>{letter}</b>", text), state
    assert "step 150 of 300<br>loss 4.125<br>10,000 tokens/s<br>15 s left" in text
    assert "width:50%" in text


def test_names_are_text_and_never_markup(tmp_path):
    record(tmp_path, {"<script>x</script>": {"state": "failed", "error": '"><img src=x onerror=y>'}})
    assert not re.search(r"<(script|img)", board.as_html(read(tmp_path)))


def test_the_button_stops_the_chosen_cell_alone(folder):
    run(folder / "kromhc-tiny-s1", "running", 5)
    panel = board.Panel(read(folder))
    assert panel.choice.options == ("hc-tiny-s1", "kromhc-tiny-s1")
    panel.choice.value = "kromhc-tiny-s1"
    run(folder / "average-tiny-s1", "running", 5)
    panel.refresh(read(folder))
    assert panel.choice.value == "kromhc-tiny-s1"  # what was chosen stays, whatever begins beside it
    panel.stop.click()
    asked = {cell.name for cell in read(folder).cells if Run(folder / cell.name).requested("stop")}
    assert asked == {"kromhc-tiny-s1"}
    assert "kromhc-tiny-s1 is asked to stop" in panel.said.value


def test_without_a_running_cell_there_is_nothing_to_press(tmp_path):
    record(tmp_path, {"hc-tiny-s1": {"state": "planned"}})
    panel = board.Panel(read(tmp_path))
    assert (panel.stop.disabled, panel.choice.disabled, panel.choice.options) == (True, True, ())
    run(tmp_path / "hc-tiny-s1", "running", 1)
    record(tmp_path, {"hc-tiny-s1": {"state": "running"}})
    panel.refresh(read(tmp_path))
    assert (panel.stop.disabled, panel.choice.value) == (False, "hc-tiny-s1")


class Handle:
    """Keeps what is displayed."""

    def __init__(self):
        self.shown = []

    def update(self, data, raw):
        self.shown.append(data["text/plain"])


def test_it_follows_the_sweep_until_another_board_takes_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "EVERY_S", 0.01)
    monkeypatch.setattr(board, "SHARE", 0)
    record(tmp_path, {"hc-tiny-s1": {"state": "planned"}})
    panel, handle = board.Panel(read(tmp_path)), Handle()
    thread = board.threading.Thread(target=board._follow, args=(panel, handle))
    thread.start()
    try:
        until(lambda: handle.shown)
        run(tmp_path / "hc-tiny-s1", "done", 300, final_val_loss=3.0)
        until(lambda: "1 done" in handle.shown[-1])
        (tmp_path / "cells.json").write_text("{")
        until(lambda: handle.shown[-1].startswith("no board: "))
        record(tmp_path, {"hc-tiny-s1": {"state": "done"}}, HERE)
        until(lambda: handle.shown[-1] == "\n".join(say(read(tmp_path))))
        shown = len(handle.shown)
        time.sleep(0.1)
        assert len(handle.shown) == shown  # nothing is new
    finally:
        panel.over.set()
        thread.join()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_no_sweep_is_said(tmp_path, capsys):
    board.board(str(tmp_path / "nothing"))
    assert "mhcnb sweep params/sweeps/demo.yaml" in capsys.readouterr().out
    eight(tmp_path / "inner")
    assert board.results(str(tmp_path)) is None
    board.board(str(tmp_path))
    assert "those in it: inner" in capsys.readouterr().out
    with pytest.raises(NotebookError, match="one run"):
        board.board(str(tmp_path / "inner" / "hc-tiny-s1"))
