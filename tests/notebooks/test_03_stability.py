from pathlib import Path

FIGURES = ("res", "sums", "gains", "tokens", "spectrum", "streams")


def test_it_shows_and_saves_what_the_maps_of_every_run_do(runs, execute):
    words, printed = execute("03-stability", "notebooks", runs=str(runs), rows=2)
    for method in ("residual", "hc", "mhc"):
        assert f"{method}: 4 maps of 32 tokens in 2 windows" in printed
        assert f"{method}: composite gain forward" in printed
        assert f"{method} wrote no maps while it trained" in printed
        names = {path.name for path in (runs / method / "figures").iterdir()}
        assert {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")} <= names
    assert "begun is starting, step 0 of 4" in printed
    assert "begun: no maps" in printed
    assert "residual: one stream, nothing to compare" in printed
    assert len(words) == 3 * len(FIGURES) + 2
    assert words[-1].startswith("A, hc, step 4, main.0.attn: gain forward")
    assert "\nB, mhc, step 4, main.0.attn: gain forward 1" in words[-1]
    assert any("mhc" in w and "row sums differ from 1 by at most" in w for w in words)
    assert (runs / "figures" / "composites.png").is_file()


def test_a_single_run_with_recorded_maps_may_be_named(recorded, execute):
    words, _ = execute("03-stability", ".", runs=str(recorded), reduction="mean_matrix_then_max")
    assert len(words) == len(FIGURES) + 3
    assert any("amax gain" in w and "at update 0 and" in w for w in words)


def test_bad_runs_are_each_said_in_words_beside_the_good_one(bad_runs, execute):
    words, printed = execute("03-stability", ".", runs=str(bad_runs), rows=1)
    for name, said in {
        "bare": "no maps",
        "newer": "checkpoint format 99",
        "nan": "values are not finite",
        "cut": "model.safetensors: 1,000 bytes, ",
        "torn": "results.jsonl:1: not a record",
        "half": "config.yaml",
    }.items():
        lines = [line for line in printed.splitlines() if name in line]
        assert any(said in line for line in lines), (name, lines)
    assert any("good" in w for w in words)
    assert any("nan" in w and "not finite" in w for w in words)


def test_without_runs_it_says_what_to_run(tmp_path: Path, execute):
    words, printed = execute("03-stability", ".", runs=str(tmp_path / "none"))
    assert "make demo" in printed
    assert "mhcnb train params/gpt/tiny.yaml" in printed
    assert words == []
    assert not (tmp_path / "none").exists()
