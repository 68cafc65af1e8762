"""06-rlm as papermill runs it, without a run; its parts with one that is given."""

import json
from pathlib import Path

import pytest

from mhcnb.errors import NotebookError
from mhcnb.notebook import guide
from mhcnb.run import Run

ROOT = Path(__file__).parents[2]
PARAMS = str(ROOT / "params" / "rlm" / "tiny.yaml")
SIZES = {"model.width": 16, "model.layers": 2, "model.heads": 2, "model.block_size": 32, "train.micro_batch": 2}
GIVEN = SIZES | {"train.steps": 4, "train.warmup": 1, "train.eval_every": 2, "train.eval_batches": 1}
SHOWN = {"layer": 0, "prompt": "import ", "tokens": 5, "temperature": 0.5}


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    """Runs and prepared text go to the test's folder."""
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_it_trains_shows_and_writes(execute, tmp_path):
    lines = [json.dumps({"text": f"import module_{i}\n" * 30}) for i in range(40)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    given = GIVEN | {"data.train_path": "corpus.jsonl", "log.maps_every": 2, "log.every": 2}
    sizes, out = tmp_path / "small.yaml", tmp_path / "outputs"
    sizes.write_text(Path(PARAMS).read_text().replace("width: 128", "width: 16"))
    for name in ("params", "notebooks"):  # what makes a folder the project's root
        (tmp_path / name).mkdir()
    words, printed = execute("06-rlm", str(tmp_path), params=PARAMS, overrides=given, sizes=str(sizes), tokens=5)
    run = Run(out / "mhc-rlm-tiny-s1")
    assert run.status()["state"] == "done"
    assert "4 updates of" in printed
    assert "peak memory" in printed
    assert "mhc-rlm-tiny-s1 is done at step 4; loss " in words[0]
    assert "mhc-rlm-tiny-s1: the largest weight from one stream to another" in words[1]
    assert "\nimport " in f"\n{printed}"
    assert "(5 tokens, " in printed
    names = {path.name for path in run.figures.iterdir()}
    assert {f"{name}.{kind}" for name in ("losses", "monitor", "layer-0") for kind in ("png", "pdf")} <= names


def test_a_run_that_is_given_is_shown_as_it_is(runs, capsys, monkeypatch):
    """One of token shards without a tokenizer."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    page = guide.page(str(runs / "mhc"), PARAMS, {}, PARAMS, **SHOWN)
    assert guide.trained(page).run.path == runs / "mhc"
    guide.names()
    guide.ranges(page)
    guide.maps(page)
    guide.write(page)
    picture, names, ranges, maps = (data["text/plain"] for data in shown)
    assert "mhc is done at step 4; loss " in picture
    assert "| model.hidden_dim | model.width |" in names
    assert "| grad_norm |" in ranges
    assert maps.startswith("mhc: the largest weight from one stream to another")
    assert "mhc writes nothing: " in capsys.readouterr().out
    assert (runs / "mhc" / "figures" / "layer-0.png").is_file()


def test_what_cannot_be_shown_is_said_before_anything_is_trained(runs):
    with pytest.raises(NotebookError, match=r"parameter layer = 7; the model has layers 0 to 3"):
        guide.page("", PARAMS, {}, PARAMS, **SHOWN | {"layer": 7})
    page = guide.page("", PARAMS, {}, PARAMS, **SHOWN)
    for part in (guide.maps, guide.write):
        with pytest.raises(NotebookError, match="run the cell that trains"):
            part(page)
    assert list(Path().iterdir()) == []
