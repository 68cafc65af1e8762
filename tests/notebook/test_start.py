"""Training from a notebook or a script: blocking, in the background, on several ranks."""

import signal

import pytest

from mhcnb import resume, start
from mhcnb.errors import CheckpointError, ConfigError, DataError, NotebookError, RunError
from mhcnb.notebook.start import headless
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, True), ({"JPY_SESSION_NAME": "x.ipynb"}, False), ({"JPY_SESSION_NAME": "x", "MHCNB_HEADLESS": "1"}, True),
     ({"MHCNB_HEADLESS": "0"}, False)],
)  # fmt: skip
def test_who_watches(monkeypatch, environment, expected):
    for name in ("JPY_SESSION_NAME", "MHCNB_HEADLESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert headless() is expected


def test_it_blocks_where_nobody_watches_and_shows_a_still_picture(small, tmp_path, capsys):
    training = start(small(), out=tmp_path / "run", background=False)
    assert training.ended
    assert training.wait() == Run(tmp_path / "run").summary() != {}
    training.monitor()
    assert (tmp_path / "run" / "figures" / "losses.png").stat().st_size > 10_000
    assert "run is done at step 6; loss" in capsys.readouterr().out
    assert training.result().loc["state"].item() == "done"


def test_in_the_background_it_returns_at_once_and_stops_when_asked(small, tmp_path):
    training = start(small(**{"train.steps": 1_000_000}), out=tmp_path / "run", background=True)
    assert not training.ended
    while not training.run.results("train"):
        assert not training.ended
    training.stop()
    assert training.wait()["steps"] < 1_000_000
    assert training.run.status()["state"] == "stopped"
    load_model(training.run.path)


def test_two_ranks_from_here_and_the_signal_handlers_are_left_as_they_were(small, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    training = start(small(), out=tmp_path / "run", processes=2, background=False)
    assert training.summary["world_size"] == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_goes_wrong_in_a_rank_is_said_here(small, tmp_path):
    config = small(**{"train.lr": 1e38, "train.warmup": 0, "train.clip": 0.0})
    with pytest.raises(RunError, match=r"a rank of .* failed: .*at step \d: the update was not applied"):
        start(config, out=tmp_path / "run", processes=2, background=False)
    assert Run(tmp_path / "run").status()["state"] == "diverged"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"processes": "2"}, NotebookError, "parameter processes = '2'"),
        ({"overrides": "train.steps=3"}, NotebookError, "parameter overrides = "),
        ({"processes": 0}, ConfigError, "processes = 0; expected 1 or more"),
        ({"processes": 3}, ConfigError, "cannot be shared by 3 processes"),
        ({"overrides": {"train.stesp": 3}}, ConfigError, "did you mean steps?"),
        ({"overrides": {"data.root": "nowhere"}, "processes": 2}, DataError, "nowhere"),
    ],
)
def test_a_bad_start_is_refused_before_anything_runs(params, tmp_path, arguments, error, words):
    with pytest.raises(error) as caught:
        start(str(params()), out=tmp_path / "run", **arguments)
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_by_its_name(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = start(small(), background=False)
    longer = resume(begun.run.path, {"train.steps": 8}, background=False)
    assert longer.run.path == begun.run.path
    assert longer.summary["steps"] == 8
    assert start(small(**{"train.steps": 9, "train.resume": "auto"}), background=False).run.path == begun.run.path
    with pytest.raises(CheckpointError, match=r"train.lr: .* -> 0.5"):
        resume(begun.run.path, {"train.lr": 0.5}, background=False)
    with pytest.raises(RunError, match="is not a run folder"):
        resume(tmp_path / "outputs")
    with pytest.raises(NotebookError, match="parameter processes = '2'"):
        resume(begun.run.path, processes="2")


def test_without_a_name_a_run_takes_the_next_free_one(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [start(small(), background=False).run.path.relative_to(tmp_path).as_posix() for _ in range(2)]
    assert names == ["outputs/mhc-tiny-s1", "outputs/mhc-tiny-s1-2"]
