"""`mhcnb plan` and `mhcnb.plan`: what they say, and that what they advise helps."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import mhcnb
from mhcnb.cli import main
from mhcnb.config import load_config
from mhcnb.data import corpus
from mhcnb.errors import DataError, RunError
from mhcnb.notebook import plan as planning
from mhcnb.notebook.forecast import makespan, quantity, size
from mhcnb.training.estimate import Timings, run_seconds
from mhcnb.training.footprint import memory

PARAMS = Path(__file__).parents[1] / "params"
TIMINGS = Timings(start=2.0, micro=0.5, evaluation=0.25, save=0.125, maps=1.0, peak_memory_gb=0.75)


def run(*args):
    return CliRunner().invoke(main, ["plan", *map(str, args)])


@pytest.fixture
def sweep(params, tmp_path):
    """A sweep file over those parameters: two methods, two seeds, two at a time."""
    path = tmp_path / "two.yaml"
    grid = "grid: {connection.name: [residual, hc]}\nseeds: [1, 2]\nworkers: 2\n"
    path.write_text(f"base: {params()}\n{grid}notebook: notebooks/02-train.ipynb\n")
    return path


@pytest.fixture
def measured(monkeypatch):
    """Measurements that cost nothing; what was asked for is kept."""
    asked = []

    def measure(configs, processes, threads):
        asked.append([config.connection.name for config in configs])
        return [TIMINGS] * len(configs)

    monkeypatch.setattr(planning, "measure", measure)
    return asked


def test_a_run_in_words(params):
    done = run(params(**{"connection.name": "mhc"}), "train.steps=20", "train.accumulation=3", "--no-measure")
    assert done.exit_code == 0, done.output
    config = load_config(params(), {"train.steps": 20, "train.accumulation": 3})
    count = sum(p.numel() for p in mhcnb.build_model(config).parameters())
    assert f"parameters     {count:,}: embeddings 1,152, attention 1,024, mlp 2,048, connections " in done.output
    assert "tokens         1,920: 20 steps of 96" in done.output
    assert "by train.recompute: none" in done.output
    assert "time           not measured" in done.output


def test_time_is_that_of_the_timings(params, measured):
    forecast = mhcnb.plan(params(), {"train.steps": 100}, measured=True)
    assert measured == [["mhc"]]
    assert forecast.seconds == run_seconds(load_config(params(), {"train.steps": 100}), TIMINGS)
    assert "about 1 min 08 s: 100 micro-batches of 0.5 s, 26 evaluations 13 s, 25 saves 3.12 s, start 2 s" in str(
        forecast
    )
    assert "in the measured steps 0.75 GB" in str(forecast)


def test_a_sweep_measures_each_shape_once_with_as_many_beside_it_as_there_will_be(sweep, measured):
    forecast = mhcnb.plan(sweep, measured=True)
    assert measured == [["residual", "hc"]]
    frame = forecast.frame().set_index("run")
    assert list(frame.index) == [f"{name}-tiny-s{seed}" for name in ("residual", "hc") for seed in (1, 2)]
    assert (frame.filter(like="parameters_").sum(axis=1) == frame["parameters"]).all()
    cell = frame["seconds"].iloc[0]
    assert 2 * cell < forecast.seconds < 2 * cell + 30  # two waves, and a start of each notebook
    measured.clear()
    mhcnb.plan(sweep, {"grid": {"train.lr": [0.1, 0.2, 0.3]}}, measured=True)
    assert measured == [["mhc", "mhc"]]  # one shape, and another of it beside


def test_a_sweep_in_words(sweep):
    done = run(sweep, "train.steps=7", "workers=3", "--no-measure")
    assert done.exit_code == 0, done.output
    assert "4 runs on cpu, float32, 3 at a time: 896 tokens" in done.output
    assert len(re.findall(r"^(?:residual|hc)-tiny-s[12] .* 224 +-$", done.output, re.MULTILINE)) == 4


def test_what_does_not_fit_is_told_with_changes_that_do(params, monkeypatch):
    """Each advice is followed, and the memory then asked for anew."""
    big = {
        "connection.name": "hc",
        "model.layers": 2,
        "model.block_size": 64,
        "train.micro_batch": 32,
        "connection.streams": 4,
    }
    config = load_config(params(), big)
    free = planning.resident() + int(0.6 * memory(config).update)
    monkeypatch.setattr(planning, "free_memory", lambda device: free)
    done = run(params(**big), "--no-measure")
    assert done.exit_code == 0, done.output
    (warning,) = [line for line in done.output.splitlines() if line.startswith("WARNING")]
    assert "does not fit" in warning
    advice = re.findall(r"((?:[a-z]+\.[a-z_]+=\S+ )+)\(", warning)
    assert [a.split("=")[0] for a in advice] == ["train.micro_batch", "train.recompute"]
    for changes in advice:
        changed = load_config(params(**big), dict(_pair(change) for change in changes.split()))
        assert memory(changed).update < 0.6 * memory(config).update
        assert changed.train.micro_batch * changed.train.accumulation == 32


def _pair(change):
    key, value = change.split("=")
    return key, int(value) if value.isdigit() else value


def test_many_at_a_time_need_more_than_one(sweep, monkeypatch):
    need = planning.plan(sweep, measured=False).runs[-1].process_bytes
    monkeypatch.setattr(planning, "free_memory", lambda device: int(1.5 * need))
    monkeypatch.setattr(planning, "resident", lambda: need)
    forecast = planning.plan(sweep, measured=False)
    assert len(forecast.warnings) == 1
    assert "2 times at once" in forecast.warnings[0]
    assert "fewer workers" in forecast.warnings[0]
    assert planning.plan(sweep, {"workers": 1}, measured=False).warnings == []


def test_a_disk_too_small_is_told(params, tmp_path, monkeypatch):
    usage, full = shutil.disk_usage("/"), tmp_path / "full"
    full.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000 if path == full else 10**15))
    assert planning.plan(params(), measured=False).warnings == []
    (warning,) = planning.plan(params(), out=full / "runs" / "first", measured=False).warnings
    assert "the disk does not suffice" in warning
    assert "train.keep_last=2" in warning


def test_arithmetic_opens_no_data_and_a_measurement_says_what_is_wrong_with_them(params):
    elsewhere = {"data.root": "/nowhere/at/all"}
    assert planning.plan(params(), elsewhere, measured=False).seconds is None
    done = run(params(), "data.root=/nowhere/at/all")
    assert done.exit_code == 2
    assert "/nowhere/at/all" in done.output


def test_a_vocabulary_that_only_data_know_is_read_there(params):
    with pytest.raises(DataError, match="vocab_size is auto"):
        planning.plan(params(), {"model.vocab_size": "auto"}, measured=False)  # these shards have none
    tiny = planning.plan(PARAMS / "gpt" / "tiny.yaml", measured=False).runs[0]
    assert tiny.parts["embeddings"] == (corpus.VOCAB + 64) * 128


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["missing.yaml"], "no such file"),
        (["."], "is a folder; plan takes a params or a sweep file"),
        (["{params}", "train.stesp=5"], "unknown key train.stesp; did you mean steps?"),
        (["{params}", "train.steps"], "expected key=value"),
        (["{params}", "--processes", "0"], "not in the range"),
        (["{params}", "--processes", "3"], "cannot be shared by 3 processes"),
        (["{sweep}", "seed=3"], "a sweep has a list of seeds"),
        (["{sweep}", "nonsense.key=3"], "unknown key nonsense.key"),
    ],
)
def test_bad_input_is_told_in_words(params, sweep, tmp_path, monkeypatch, args, words):
    given = [arg.format(params=params(), sweep=sweep) for arg in args]
    monkeypatch.chdir(tmp_path)
    done = run(*given, "--no-measure")
    assert done.exit_code == 2
    assert words in done.output


def test_jobs_start_in_order_as_places_come_free():
    assert makespan([3.0, 1.0, 1.0, 4.0], 1) == 9.0
    assert makespan([3.0, 1.0, 1.0, 4.0], 2) == 6.0  # 1, 1, 4 after each other, beside the 3
    assert makespan([3.0, 1.0, 1.0, 4.0], 9) == 4.0


def test_quantities_have_three_figures_and_a_letter():
    shown = {0: "0", 7: "7", 999: "999", 999.7: "1 k", 1234: "1.23 k", 13_940_000: "13.9 M", 4.2e21: "4.2e+03 E"}
    assert {count: quantity(count) for count in shown} == shown
    assert (size(12), size(13_940_000)) == ("12 B", "13.9 MB")


def test_a_failed_measurement_ends_the_plan_in_words(params, monkeypatch):
    def fails(*_):
        raise RunError("the steps to measure failed: out of memory at step 1")

    monkeypatch.setattr(planning, "measure", fails)
    done = run(params())
    assert done.exit_code == 2
    assert "out of memory at step 1" in done.output
