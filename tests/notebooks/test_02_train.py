"""02-train as a sweep runs it."""

from pathlib import Path

from mhcnb.run import Run

PARAMS = str(Path(__file__).parents[2] / "params" / "gpt" / "tiny.yaml")


def test_it_trains_and_shows_the_losses(shards, execute, tmp_path):
    given = {"data.root": str(shards), "model.vocab_size": 64, "train.steps": 4, "connection.name": "hc"}
    words, printed = execute("02-train", ".", params=PARAMS, overrides=given, out=str(tmp_path / "run"))
    assert Run(tmp_path / "run").status()["state"] == "done"
    assert "step 4 of 4" in printed
    assert len(words) == 1
    assert "run is done at step 4" in words[0]
    assert (tmp_path / "run" / "figures" / "losses.pdf").is_file()
