"""The board is true: about the living and the dead, in words and letters, and quick for a thousand cells."""

import io
import os
import re
import socket
import subprocess
import sys

import pytest

from mhcnb.errors import RunError
from mhcnb.sweep import board
from mhcnb.sweep.folder import STATES, SweepFolder
from mhcnb.sweep.plan import plan
from mhcnb.sweep.state import LETTERS, judged, lives

from .simulate import GONE, HERE, eight, record, run

AWAY = {"pid": 1, "host": f"not-{socket.gethostname()}"}


def by_name(folder, planned=None):
    return {cell.name: cell for cell in board.read(folder, planned).cells}


def test_every_state_has_a_letter_of_its_own():
    assert list(LETTERS) == list(STATES)
    assert len(set(LETTERS.values())) == len(STATES)


@pytest.mark.parametrize(
    ("recorded", "said", "owner", "driver", "state"),
    [
        ("running", "done", GONE, GONE, "done"),  # the run is done, whoever died since
        ("failed", "done", GONE, GONE, "done"),
        (None, None, {}, {}, "planned"),
        ("planned", None, {}, GONE, "planned"),
        ("running", None, {}, HERE, "running"),
        ("running", None, {}, GONE, "died"),
        ("running", None, {}, AWAY, "running"),  # nobody can tell from here
        ("running", "running", HERE, HERE, "running"),
        ("running", "running", HERE, GONE, "running"),  # goes on without its driver
        ("running", "running", GONE, GONE, "died"),  # both killed
        ("running", "running", GONE, AWAY, "died"),
        ("running", "stopped", GONE, GONE, "interrupted"),
        ("running", "stopped", GONE, HERE, "running"),  # an earlier attempt stopped: this one has not said anything
        ("planned", "stopped", GONE, HERE, "planned"),  # the driver will go on with it
        ("planned", "failed", GONE, HERE, "planned"),  # --retry-failed
        ("planned", "failed", GONE, GONE, "failed"),  # ran since, without a driver
        ("skipped", "stopped", GONE, GONE, "interrupted"),
        ("died", "running", GONE, HERE, "died"),
        ("timeout", "running", GONE, GONE, "timeout"),
        ("interrupted", "starting", GONE, GONE, "interrupted"),
        (None, "running", HERE, {}, "running"),
        (None, "running", GONE, {}, "died"),
        (None, "running", AWAY, {}, "running"),
        (None, "diverged", GONE, {}, "failed"),
    ],
)
def test_who_is_still_there_decides_what_a_record_is_worth(recorded, said, owner, driver, state):
    entry = {"state": recorded} if recorded else {}
    assert judged(entry, {"state": said, **owner} if said else {}, driver) == state


def test_a_cell_may_have_a_process_of_its_own_on_the_drivers_host():
    assert judged({"state": "running", **HERE}, {}, GONE) == "running"
    assert judged({"state": "running", **GONE}, {}, GONE) == "died"
    assert (lives(HERE), lives(GONE), lives(AWAY), lives({})) == (True, False, None, None)


def test_a_driver_whose_end_nobody_has_asked_about_is_dead():
    """In a container the first process may collect no orphans."""
    driver = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert lives({"pid": driver.pid, "host": socket.gethostname()})
    driver.kill()
    os.waitid(os.P_PID, driver.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its status can still be had
    assert lives({"pid": driver.pid, "host": socket.gethostname()}) is False
    driver.communicate()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mhc-tiny-s1", ("mhc", "tiny s1")),
        ("mhc_lite-very-small-s12", ("mhc_lite", "very-small s12")),
        ("hc-tiny-s1-train.lr=1e-3", ("hc", "tiny s1 train.lr=1e-3")),
        ("hc-tiny-s1-connection.streams=2-train.lr=0.1", ("hc streams=2", "tiny s1 train.lr=0.1")),
        ("first", ("run", "first")),
    ],
)
def test_a_name_says_where_a_cell_stands(name, place):
    assert board.place(name) == place


def test_no_two_cells_of_a_plan_share_a_place(project, sweep_file):
    grid = "{connection.name: [hc, mhc], connection.streams: [2, 4], train.lr: [1e-3, 2e-3]}"
    cells = plan(sweep_file("seeds: [1, 2]\n", grid=grid), out=project / "out").cells
    assert len({board.place(cell.name) for cell in cells}) == len(cells) == 16


def test_each_state_is_seen_with_its_figures(tmp_path):
    folder = eight(tmp_path / "sweep")
    seen = board.read(folder).cells
    assert [cell.state for cell in seen] == [
        "done", "running", "failed", "died", "timeout", "interrupted", "planned", "skipped",
    ]  # fmt: skip
    done, running, *_, planned, skipped = seen
    assert board.facts(done) == ["step 300 of 300", "val loss 3.250", "10,000 tokens/s"]
    assert board.facts(running) == ["step 150 of 300", "loss 4.125", "10,000 tokens/s", "15 s left"]  # 0.1 s a step
    assert board.facts(planned) == board.facts(skipped) == []
    assert done.notebook == folder / done.name / "notebook.ipynb"
    assert planned.notebook is None
    first, driver, *rest = board.say(board.read(folder))
    each = "1 planned, 1 running, 1 done, 1 failed, 1 died, 1 timeout, 1 interrupted, 1 skipped"
    assert first.startswith(f"sweep: 8 cells: {each}; 3 to go, about ")
    assert driver == f"driver: process {HERE['pid']} on {HERE['host']}"
    assert [line.split(",")[0] for line in rest] == [
        "hc-tiny-s1 running", "mhc-tiny-s1 failed", "mhc_lite-tiny-s1 died", "residual-tiny-s2 timeout",
    ]  # fmt: skip
    assert rest[2].endswith(": its process is gone")
    assert rest[3].endswith(": killed after 1 min 00 s")
    lines = board.grid(board.read(folder)).splitlines()
    assert lines[0].split() == ["residual", "hc", "mhc", "mhc_lite"]
    told = [re.split(r"  +", line) for line in lines[1:3]]
    assert told == [
        ["tiny s1", "D 3.250", "R 150/300 4.125", "F 9/300 4.500", "X 30/300 4.500"],
        ["tiny s2", "T 30/300 4.500", "I 60/300 4.500", "P", "S"],
    ]


def test_silence_is_said_and_so_is_that_a_stop_was_asked_for(tmp_path):
    folder = record(tmp_path / "sweep", {"hc-tiny-s1": {"state": "running", "started": 0.0}})
    path = run(folder / "hc-tiny-s1", "running", 3, age=200)
    assert by_name(folder)["hc-tiny-s1"].note == "no news for 3 min 20 s, it may have died"
    (path / "control").mkdir()
    (path / "control" / "stop").touch()
    run(folder / "mhc-tiny-s1", "running", 3, age=50)
    assert by_name(folder)["hc-tiny-s1"].note.startswith("asked to stop; no news")
    assert by_name(folder)["mhc-tiny-s1"].note == ""


def test_time_left_counts_what_alike_cells_took_and_who_works_at_once(tmp_path):
    names = [f"{method}-tiny-s{seed}" for method in ("hc", "mhc") for seed in (1, 2, 3)]
    folder = record(tmp_path / "sweep", {name: {"state": "planned"} for name in names})
    assert board.read(folder).left is None
    for name, seconds in (("hc-tiny-s1", 10.0), ("mhc-tiny-s1", 50.0)):
        run(folder / name, "done", 300, final_val_loss=3.0, total_time_s=seconds)
    assert board.read(folder).left == pytest.approx(10 + 10 + 50 + 50)  # one after the other
    cells = {name: {"state": "planned"} for name in names} | {"hc-tiny-s2": {"state": "running"}}
    record(folder, cells | {"mhc-tiny-s2": {"state": "running"}})
    run(folder / "hc-tiny-s2", "running", 100)  # 20 s left of 30
    run(folder / "mhc-tiny-s2", "running", 200)  # 10 s left of 30
    hc, mhc = (10 + 30) / 2, (50 + 30) / 2
    assert board.read(folder).left == pytest.approx((20 + 10 + hc + mhc) / 2)
    for name in ("hc-tiny-s3", "mhc-tiny-s3"):
        run(folder / name, "done", 300, final_val_loss=3.0, total_time_s=1.0)
    assert board.read(folder).left == pytest.approx(20)  # no sooner than the last of those that run


def test_who_works_on_it_is_said_while_something_is_left(tmp_path):
    cells = {"hc-tiny-s1": {"state": "planned"}}
    folder = record(tmp_path / "sweep", cells, GONE)
    assert board.say(board.read(folder))[1] == "nobody works on it: the same `mhcnb sweep` goes on with what is left"
    run(folder / "hc-tiny-s1", "running", 1)
    assert board.say(board.read(folder))[1] == "no driver: cells run by themselves"
    record(folder, {"hc-tiny-s1": {"state": "failed"}}, GONE)
    assert len(board.say(board.read(folder))) == 2  # the count and the failure
    assert board.say(board.read(folder / "figures")) == ["figures: no cells"]


def test_damage_is_said_and_stops_nothing(tmp_path):
    folder = eight(tmp_path / "sweep")
    (folder / "hc-tiny-s1" / "status.json").write_text("{")
    (folder / "mhc-tiny-s1" / "results.jsonl").write_bytes(b"\xff\n{}\n")
    (folder / "residual-tiny-s1" / "summary.json").write_text("{")
    seen = by_name(folder)
    assert "status.json:1: not valid JSON" in seen["hc-tiny-s1"].note
    assert seen["mhc-tiny-s1"].loss is None
    assert (seen["residual-tiny-s1"].state, seen["residual-tiny-s1"].loss) == ("done", 4.5)
    (folder / "cells.json").write_text("{")
    with pytest.raises(RunError, match=r"cells\.json is not JSON"):
        board.read(folder)


def test_status_shows_a_plan_that_nobody_has_begun_and_reads_only(project, sweep_file):
    planned = plan(sweep_file(), out=project / "out")
    text = board.status(planned, SweepFolder(planned.out))
    assert text.startswith("out: 2 cells: 2 planned; 2 to go\n")
    assert text.splitlines()[3].split() == ["residual", "hc"]
    assert not planned.out.exists()
    record(planned.out, {cell.name: {"state": "running"} for cell in planned.cells})
    run(planned.cells[1].out, "running", 4)
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    lines = board.status(planned, SweepFolder(planned.out)).splitlines()
    assert "tiny s1  R         R 4/5 4.500" in lines  # the plan's steps, not those of the folder
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_a_thousand_cells_are_read_with_bounded_work(tmp_path, monkeypatch):
    folder, states = tmp_path / "sweep", ("done", "running", "failed", "stopped")
    names = [f"{method}-tiny-s{k}" for k in range(250) for method in ("residual", "hc", "mhc", "mhc_lite")]
    for k, name in enumerate(names):
        state = states[k % 4]
        run(folder / name, state, 300, **({"final_val_loss": 3.0} if state == "done" else {}))
    record(folder, {name: {"state": "running"} for name in names})
    opened, really = [], io.open
    monkeypatch.setattr(io, "open", lambda file, *rest, **more: opened.append(file) or really(file, *rest, **more))
    assert len(board.read(folder).cells) == 1000
    monkeypatch.undo()
    assert 2000 <= len(opened) <= 3000 + 1  # status, summary or records, configuration; and cells.json
    words = board.say(board.read(folder))
    assert "... and 240 more" in words
    assert len(words) <= 3 + 2 * board.MOST + 1
