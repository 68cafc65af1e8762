import pandas

from mhcnb.run import Run


def test_it_shows_losses_gains_streams_and_cost_and_exports_tables(runs, execute):
    words, printed = execute("04-compare", "notebooks", runs=str(runs), rows=2)
    for method in ("residual", "hc", "mhc"):
        final = Run(runs / method).summary()["final_val_loss"]
        assert f"{method}: mean val loss {final:.4f} at update 4" in printed
    assert "begun is starting, step 0 of 4" in printed
    assert "These runs differ in nothing but connection and seed." in printed
    assert "No run recorded its maps" in printed
    names = ("losses", "differences", "paired", "gains", "depth", "streams", "loss-gain", "cost", "explore-matrices")
    assert len(words) == len(names)
    assert {path.name for path in (runs / "figures").iterdir()} >= {
        f"{name}.{kind}" for name in names for kind in ("png", "pdf")
    }
    assert set(pandas.read_csv(runs / "finals.csv")["run"]) == {"residual", "hc", "mhc", "begun"}
    assert set(pandas.read_csv(runs / "results.csv")["run"]) == {"residual", "hc", "mhc", "begun"}
    assert (runs / "results.md").read_text().count("\n") == 2 + 4
    assert set(pandas.read_csv(runs / "products.csv")["run"]) == {"residual", "hc", "mhc"}
    assert (runs / "table.md").read_text() in printed
    assert "\\bottomrule" in (runs / "table.tex").read_text()


def test_filters_choose_methods_and_say_what_they_miss(runs, execute):
    _, printed = execute("04-compare", ".", runs=str(runs), rows=1, methods="m*, nosuch")
    assert "methods: 'nosuch' matches none of hc, mhc, residual" in printed
    assert "mhc: mean val loss" in printed
    assert "hc: mean val loss" not in printed.replace("mhc: mean", "")


def test_runs_that_do_not_compare_and_bad_ones_are_said(bad_runs, execute):
    _, printed = execute("04-compare", ".", runs=str(bad_runs), rows=1)
    assert "model.width differs: " in printed
    assert "No two methods share a setting" in printed
    assert "diverged" in printed
    assert "losses that are not finite" in printed


def test_without_runs_it_says_what_to_run(tmp_path, execute):
    (tmp_path / "empty").mkdir()
    words, printed = execute("04-compare", ".", runs=str(tmp_path / "empty"))
    assert "make demo" in printed
    assert words == []
    assert list((tmp_path / "empty").iterdir()) == []
