from mhcnb.run import Run


def test_it_shows_curves_table_and_gains_and_says_their_numbers(runs, execute):
    words, printed = execute("04-compare", "notebooks", runs=str(runs), rows=2)
    for method in ("residual", "hc", "mhc"):
        final = Run(runs / method).summary()["final_val_loss"]
        assert f"{method} ({method}): val loss" in printed
        assert f"{final:.3f} at 4" in printed
        assert f"{final:.4f}" in printed
    assert "begun is starting, step 0 of 4" in printed
    assert "connection.name" in printed
    assert "tokens/s" in printed
    assert len(words) == 4
    assert {path.name for path in (runs / "figures").iterdir()} >= {
        f"{name}.{kind}" for name in ("losses", "differences", "finals", "gains") for kind in ("png", "pdf")
    }


def test_without_runs_it_says_what_to_run(tmp_path, execute):
    (tmp_path / "empty").mkdir()
    words, printed = execute("04-compare", ".", runs=str(tmp_path / "empty"))
    assert "make demo" in printed
    assert words == []
    assert list((tmp_path / "empty").iterdir()) == []
