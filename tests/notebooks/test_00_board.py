import pandas

from ..sweep.simulate import eight


def test_it_shows_a_still_board_and_writes_the_table(tmp_path, execute):
    folder = eight(tmp_path / "sweep")
    (words,), printed = execute("00-board", "notebooks", sweep=str(folder))
    assert words.startswith("sweep: 8 cells: 1 planned, ")
    assert "residual-tiny-s2 timeout, step 30 of 300" in words
    assert words in printed
    assert {path.name for path in (folder / "figures").iterdir()} == {"board.png", "board.pdf"}
    assert pandas.read_csv(folder / "results.csv")["run"].nunique() == 8
    assert str(folder / "results.md") in printed


def test_without_a_sweep_it_says_what_to_run(tmp_path, execute):
    words, printed = execute("00-board", ".", sweep=str(tmp_path))
    assert words == []
    assert "mhcnb sweep params/sweeps/demo.yaml" in printed
    assert list(tmp_path.iterdir()) == [tmp_path / "00-board.ipynb"]
