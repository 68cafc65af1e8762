"""What the live monitor says and draws, and what its buttons do, without a browser."""

import time
from types import SimpleNamespace

import pytest

from mhcnb.notebook import monitor
from mhcnb.run import Run
from mhcnb.training.loop import train


@pytest.fixture
def run(small, tmp_path):
    train(small(**{"connection.name": "hc", "log.maps_every": 3}), tmp_path / "run")
    return Run(tmp_path / "run")


def test_the_words_are_the_latest_records(run):
    train_record, maps = run.results("train")[-1], run.results("maps")[-1]
    words = monitor.describe(run)
    assert words.startswith("run is done at step 6; ")
    for part in (
        f"loss {train_record['loss']:.3f}",
        f"gradient norm {train_record['grad_norm']:.3g}",
        f"{train_record['tokens_per_s']:,.0f} tokens/s",
        f"peak memory {train_record['peak_memory_gb']:.2f} GB",
        f"composite gain at step 6 forward {max(maps['composite']['forward'].values()):.4g}",
        f"attention {maps['amax']['main.0.attn']:.4g}, MLP {maps['amax']['main.0.mlp']:.4g}, healthy (below 2)",
        "2 checkpoint(s), the last of step 6",
    ):
        assert part in words
    assert "last news" not in words


def test_the_age_of_news_is_said_while_it_trains_and_silence_noticed(run, monkeypatch):
    run.set_status("running", 6)
    assert "last news 0 s ago" in monitor.describe(run)
    now = time.time()
    monkeypatch.setattr(monitor.time, "time", lambda: now + 90)
    assert "last news 90 s ago: it may have died" in monitor.describe(run)


def test_warnings_are_said(run):
    run.words = ["step 5: gradient norm 12 is above 10"]
    run.set_status("running", 6)
    assert monitor.describe(run).endswith("\nstep 5: gradient norm 12 is above 10")


def test_four_panels_are_drawn_and_what_is_missing_is_said(run, small, tmp_path):
    axes = monitor.picture(run).axes
    assert [ax.get_ylabel() for ax in axes[1:]] == ["gradient norm", "speed (tokens/s)", "largest composite amax gain"]
    gains = {line.get_label(): list(line.get_ydata()) for line in axes[3].lines}
    expected = [max(record["composite"]["backward"].values()) for record in run.results("maps")]
    assert gains["backward"] == expected
    train(small(), tmp_path / "plain")
    plain = monitor.picture(Run(tmp_path / "plain")).axes[3]
    assert "log.maps_every is 0" in plain.texts[0].get_text()


def test_buttons_ask_once_and_say_what_happens(run):
    panel = monitor.Panel(SimpleNamespace(run=run, stop=lambda: run.request("stop")))
    panel.checkpoint.click()
    assert run.requested("checkpoint")
    assert (panel.checkpoint.disabled, panel.checkpoint.description) == (True, "Saving ...")
    panel.refresh()
    assert panel.checkpoint.disabled
    run.granted("checkpoint")
    panel.refresh()
    assert (panel.checkpoint.disabled, panel.checkpoint.description) == (False, "Checkpoint now")
    panel.stop.click()
    assert run.requested("stop")
    assert panel.stop.disabled
    panel.end()
    assert panel.stop.description == "Ended"
    assert panel.checkpoint.disabled
