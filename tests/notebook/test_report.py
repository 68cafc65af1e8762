import pandas
import pytest

from mhcnb.errors import NotebookError
from mhcnb.notebook import report, views


def finals(seeds=(1, 2, 3)):
    rows = [
        (f"{m}{s}", m, "tiny a_b", s, "done", 5 + 0.1 * s - cut, 1e4, 0.5, 1000)
        for m, cut in (("residual", 0.0), ("mhc_lite", 0.25))
        for s in seeds
    ]
    columns = ["run", "method", "setting", "seed", "state", "val_loss", "tokens_per_s", "peak_memory_gb", "params"]
    return pandas.DataFrame(rows, columns=columns)


PRODUCTS = pandas.DataFrame({"setting": "tiny a_b", "method": ["mhc_lite"] * 2, "forward": [1.0, 3.0], "backward": 1.0})


def test_the_table_has_means_spreads_paired_intervals_and_gains():
    rows = report.paper_table(finals(), PRODUCTS).set_index("method")
    assert rows.loc["mhc_lite"].tolist() == [
        "tiny a_b", "3", "4.9500 ± 0.1000", "-0.2500 [-0.2500, -0.2500]", "2", "1", "10,000", "0.50", "1,000",
    ]  # fmt: skip
    assert rows.loc["residual", ["to residual", "gain forward"]].tolist() == ["-", "-"]
    single = report.paper_table(finals(seeds=(1,)), PRODUCTS).set_index("method")
    assert single.loc["mhc_lite", ["val loss", "to residual"]].tolist() == ["4.8500", "-0.2500"]


def test_markdown_lines_have_the_same_columns_and_latex_escapes_its_signs():
    rows = report.paper_table(finals(), PRODUCTS)
    table = [line for line in report.markdown(rows).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(report.COLUMNS) + 1}
    assert len({len(line) for line in table}) == 1
    text = report.latex(rows)
    assert r"mhc\_lite" in text
    assert r"$\pm$" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {len(report.COLUMNS) - 1}


def test_without_runs_nothing_is_written_and_a_refusing_disk_is_named(tmp_path):
    seen = views.comparison(str(tmp_path / "none"))
    assert report.export(seen) == []
    assert not (tmp_path / "none").exists()
    fake = seen._replace(members=[object()], finals=finals(), products=PRODUCTS)  # type: ignore[list-item]
    with pytest.raises(NotebookError, match=r"cannot write to .*none"):
        report.export(fake)
