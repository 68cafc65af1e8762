import json

import pytest

from mhcnb.bench.gpt import Size
from mhcnb.bench.measure import Timing
from mhcnb.errors import ConfigError, NotebookError
from mhcnb.notebook import speed

GIVEN = dict(width=128, layers=2, batch=4, tokens=64, vocabulary=512, rounds=2, streams="2 4", widths="", lengths="8")
GIVEN |= dict(depths="1", peer="", device="cpu", compiles=False, figures="")


def test_parameters_become_a_size_and_axes(monkeypatch):
    monkeypatch.setattr(speed, "peers", lambda given: tuple(given))
    lab = speed.lab(**GIVEN)
    assert lab.size == Size(128, 2, 2, 4, 64, 512)
    assert lab.axes == {"n": [2, 4], "C": [], "T": [8], "depth": [1]}


@pytest.mark.parametrize("text", ["2, 4", "0", "-1", "two", "1.5"])
def test_values_that_are_no_numbers_are_refused_by_name(text):
    with pytest.raises(NotebookError, match=r"parameter widths = .*; expected whole numbers above 0"):
        speed.lab(**GIVEN | {"widths": text})


def test_a_peer_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"mhc-lite=/nowhere: no model\.py"):
        speed.lab(**GIVEN | {"peer": "/nowhere"})


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '[{"case": "step"}]'])
def test_a_file_that_is_no_bench_is_refused(tmp_path, text):
    file = tmp_path / "bench.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(NotebookError, match="is not what `mhcnb bench --json` writes"):
        speed.timed(speed.lab(**GIVEN | {"figures": str(file)}))


def test_the_figures_of_a_bench_come_back_as_they_were(tmp_path):
    timings = [Timing("step", "mhc", 1.0, 0.5, 2.0, 1.1, 3.0, "FLOP")]
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(speed.rows(timings)))
    assert speed.timed(speed.lab(**GIVEN | {"figures": str(file)})) == timings
