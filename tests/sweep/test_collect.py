"""One tidy table of any number of folders, whatever state they are in."""

import io

import pandas
import pytest

from mhcnb.sweep import collect as module
from mhcnb.sweep.collect import collect, export, markdown, table

from .simulate import GONE, HERE, eight, record, run


def configure(path, *changes):
    """Rewrites a run's configuration: (old, new) texts."""
    text = (path / "config.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (path / "config.yaml").write_text(text)


@pytest.fixture
def two(tmp_path):
    """Two finished runs of a sweep that differ in learning rate and betas."""
    folder = tmp_path / "sweep"
    for k, rate in enumerate(("0.001", "0.003"), 1):
        path = run(folder / f"mhc-tiny-s1-train.lr={rate}", "done", 300, final_val_loss=3.0 + k, total_time_s=9.0)
        configure(path, ("  lr: 0.002\n", f"  lr: {rate}\n"), ("  - 0.9\n", f"  - 0.{9 - k}\n"))
    return folder


def test_it_has_a_column_for_each_key_that_differs_and_for_no_other(two):
    frame = collect([two])
    assert list(frame.columns) == [*module.COLUMNS, "train.lr", "train.betas"]
    assert frame["train.lr"].tolist() == [0.001, 0.003]
    assert frame["train.betas"].tolist() == ["0.8,0.95", "0.7,0.95"]
    assert list(collect([two / "mhc-tiny-s1-train.lr=0.001"]).columns) == list(module.COLUMNS)
    assert table(frame).splitlines()[0].split()[:5] == ["method", "size", "seed", "train.lr", "train.betas"]


def test_what_a_method_brings_with_it_is_in_the_frame_and_not_in_the_text(tmp_path):
    for method, streams in (("hc", 4), ("mhc", 2)):
        path = run(tmp_path / f"{method}-tiny-s1", "done", 300, final_val_loss=3.0)
        configure(path, ("streams: 4", f"streams: {streams}"))
    frame = collect([tmp_path])
    assert frame["connection.streams"].tolist() == [4, 2]
    assert "connection.streams" not in table(frame)


def test_csv_and_markdown_hold_the_same_table(two):
    frame = collect([two])
    paths = export(frame, two)
    assert [path.name for path in paths] == ["results.csv", "results.md"]
    pandas.testing.assert_frame_equal(pandas.read_csv(paths[0], keep_default_na=False, na_values=[""]).dropna(axis=1),
                                      frame.drop(columns="reason").dropna(axis=1), check_dtype=False)  # fmt: skip
    lines = paths[1].read_text().splitlines()
    assert lines == markdown(frame).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["0.001", "0.003"]


def test_all_states_are_told_and_the_runs_own_word_counts(tmp_path):
    frame = collect([eight(tmp_path / "sweep")]).set_index("run")
    assert frame["state"].tolist() == [
        "done", "running", "diverged", "died", "timeout", "stopped", "planned", "skipped",
    ]  # fmt: skip
    assert frame.loc["residual-tiny-s2", "reason"] == "killed after 1 min 00 s"
    assert frame.loc["hc-tiny-s1", ["step", "steps", "tokens_per_s"]].tolist() == [150, 300, 1e4]


def test_the_dead_are_told_from_the_living_without_a_sweep(tmp_path):
    run(tmp_path / "hc-tiny-s1", "running", 3, owner=GONE)
    run(tmp_path / "mhc-tiny-s1", "running", 3, owner=HERE)
    assert collect([tmp_path])["state"].tolist() == ["died", "running"]


def test_several_folders_and_one_given_twice_are_one_table(two, tmp_path):
    other = tmp_path / "other"
    run(other / "mhc-tiny-s1-train.lr=0.001", "done", 300, final_val_loss=2.0)
    frame = collect([two, other, two / ".." / "sweep", two / "mhc-tiny-s1-train.lr=0.001"])
    assert sorted(frame["final_val_loss"]) == [2.0, 4.0, 5.0]
    assert frame["run"].nunique() == 2
    assert str(other) in table(frame.drop(columns=["train.lr", "train.betas"]))  # names alone would not tell


@pytest.mark.parametrize("name", ["status.json", "summary.json", "results.jsonl", "config.yaml", "cells.json"])
def test_one_damaged_file_costs_only_what_it_held(tmp_path, caplog, name):
    folder = record(tmp_path / "sweep", {"hc-tiny-s1": {"state": "done"}})
    path = run(folder / "hc-tiny-s1", "done", 300, final_val_loss=3.25)
    run(folder / "mhc-tiny-s1", "done", 300, final_val_loss=3.5)
    (folder if name == "cells.json" else path).joinpath(name).write_bytes(b"{\xff")
    frame = collect([folder]).set_index("run")
    assert sorted(frame.index) == ["hc-tiny-s1", "mhc-tiny-s1"]
    assert frame.loc["mhc-tiny-s1", "final_val_loss"] == 3.5
    hc = frame.loc["hc-tiny-s1"]
    if name in ("status.json", "config.yaml"):
        assert hc["state"] == "unreadable"
    else:
        assert hc["state"] == "done"
        assert (hc["final_val_loss"] == 3.25) == (name != "summary.json")
    assert (name in caplog.text) == (name != "results.jsonl")  # a summary makes records needless
    assert len(table(collect([folder])).splitlines()) == 4


def test_work_is_bounded_a_run(tmp_path, monkeypatch):
    for k in range(50):
        run(tmp_path / f"hc-tiny-s{k}", "stopped", 300)
    opened, really = [], io.open
    monkeypatch.setattr(io, "open", lambda file, *rest, **more: opened.append(file) or really(file, *rest, **more))
    assert len(collect([tmp_path])) == 50
    assert 150 <= len(opened) <= 50 * 4
