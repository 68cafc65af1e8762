def test_it_shows_and_saves_the_maps_sums_and_gains_of_every_run(runs, execute):
    words, printed = execute("03-stability", "notebooks", runs=str(runs), rows=2)
    for method in ("residual", "hc", "mhc"):
        assert f"{method}: 4 maps recorded on 2 windows" in printed
        assert f"{method}: composite gain forward" in printed
        names = {path.name for path in (runs / method / "figures").iterdir()}
        assert {f"{name}.{kind}" for name in ("res", "sums", "gains") for kind in ("png", "pdf")} <= names
    assert "begun is starting, step 0 of 4" in printed
    assert "begun: no maps" in printed
    assert len(words) == 3 * 3 + 1
    assert any("mhc" in w and "row sums differ from 1 by at most" in w for w in words)
    assert (runs / "figures" / "composites.png").is_file()


def test_a_single_run_may_be_named(runs, execute):
    words, _ = execute("03-stability", ".", runs=str(runs / "mhc"), reduction="mean_matrix_then_max")
    assert len(words) == 4


def test_without_runs_it_says_what_to_run(tmp_path, execute):
    words, printed = execute("03-stability", ".", runs=str(tmp_path / "none"))
    assert "make demo" in printed
    assert "mhcnb train params/gpt/tiny.yaml" in printed
    assert words == []
    assert not (tmp_path / "none").exists()
