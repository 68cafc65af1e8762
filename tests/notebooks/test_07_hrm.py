"""07-hrm as papermill runs it, without a run; its cells in this process over runs of two connections; its parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mhcnb import load_config
from mhcnb.analysis.boards import digits
from mhcnb.data.puzzles.table import as_text
from mhcnb.errors import NotebookError
from mhcnb.notebook import hrm, solving, typed
from mhcnb.notebook.controls import Jump
from mhcnb.run import Run
from mhcnb.training.loop import train

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params" / "hrm" / "tiny4x4.yaml"
BRIEF = {
    "model.width": 16, "model.H_cycles": 1, "model.halt_max_steps": 3, "data.train": 40, "data.test": 20,
    "train.steps": 4, "train.micro_batch": 4, "train.warmup": 1, "train.eval_every": 4, "train.eval_batches": 1,
}  # fmt: skip
FIGURES = ("film", "board", "steps", "blanks", "halting", "distances", "own", "res", "gains", "streams")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of residual and mhc on the same puzzles."""
    root = tmp_path_factory.mktemp("hrm")
    given = BRIEF | {"data.cache": str(root / "cache")}
    train(load_config(PARAMS, given | {"connection.name": "residual"}), root / "runs" / "residual")
    train(load_config(PARAMS, given | {"connection.name": "mhc"}), root / "runs" / "mhc")
    return root / "runs"


@pytest.fixture
def shown(monkeypatch):
    """The words under each picture that is displayed."""
    words = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: words.append(data["text/plain"]))
    return words


@pytest.fixture
def seen(folder):
    return hrm.think(hrm.page(str(folder), str(PARAMS), {}, puzzles=12))


@pytest.fixture
def explored(monkeypatch):
    """(draw, {name: control}, jumps) of what a cell gives to `explore`."""

    def call(module, cell, seen):
        given = []
        monkeypatch.setattr(module, "explore", lambda *arguments: given.append(arguments))
        cell(seen)
        draw, controls = given[0][:2]
        named = {c.name: c for c in controls if not isinstance(c, Jump)}
        return draw, named, [c for c in controls if isinstance(c, Jump)]

    return call


def test_it_trains_thinks_and_shows(execute, tmp_path):
    for name in ("params", "notebooks"):  # what makes a folder the project's root
        (tmp_path / name).mkdir()
    given = BRIEF | {"data.cache": str(tmp_path / "cache"), "connection.name": "mhc"}
    words, printed = execute("07-hrm", str(tmp_path), params=str(PARAMS), overrides=given, puzzles=15, puzzle=2)
    run = Run(tmp_path / "outputs" / "mhc-hrm-tiny4x4-s0")
    assert run.status()["state"] == "done"
    assert "15 puzzles of validation data, " in printed
    assert "One run: nothing to compare" in printed
    assert "mhc-hrm-tiny4x4-s0: 6 maps of " in printed  # 2 sites a call, 2 calls of L, 1 of H
    assert words[1].startswith("mhc, puzzle 2: ")
    assert "mhc, puzzle 2, step 3 of 3: " in words[2]
    names = {path.name for path in run.figures.iterdir()}
    assert {f"{name}.{kind}" for name in (*FIGURES, "explore-matrices") for kind in ("png", "pdf")} <= names


def test_runs_stand_side_by_side_on_the_puzzle_where_they_differ_most(seen, shown):
    solving.across(seen)
    table, boards = shown
    assert table.startswith("Of 12 puzzles all runs solve ")
    right = [p.result.right[-1].sum(1) for p in seen.players]
    row = int((right[0] - right[1]).abs().argmax())
    lines = boards.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{name}, puzzle {row + 1}" for name in ("residual", "mhc")]
    for line, count, player in zip(lines, right, seen.players, strict=True):
        givens = int((player.result.givens[row] == player.result.answers[-1, row]).sum())
        assert f"{givens} givens kept, {int(count[row]) - givens} other cells right" in line
    assert {"solved.png", "across.pdf"} <= {path.name for path in seen.figures.iterdir()}


def test_every_run_is_given_the_first_validation_puzzles_of_the_first(seen):
    one, other = (p.result for p in seen.players)
    assert [p.label for p in seen.players] == ["residual", "mhc"]
    assert torch.equal(one.givens, other.givens)
    assert not torch.equal(one.q_halt, other.q_halt)
    assert len(one.givens) == 12
    assert len(set(seen.steps["run"])) == 2
    assert seen.solved["mhc"].tolist() == other.solved[-1].tolist()
    changes = [sum(int((a != b).sum()) for a, b in zip(x[1:], x, strict=False)) for x in one.answers.unbind(1)]
    assert seen.row == int(np.argmax(changes))
    assert hrm.Seen(seen.players, seen.page._replace(puzzle=7)).row == 6


def test_a_board_is_that_of_its_run_puzzle_and_step(seen, explored):
    draw, controls, jumps = explored(solving, solving.by_step, seen)
    assert [controls[name].high for name in ("puzzle", "step")] == [12, 3]
    figure, words = draw(run=1, puzzle=5, step=2)
    r = seen.players[1].result
    assert words.startswith("mhc, puzzle 5, step 2 of 3: ")
    texts = {t.get_position(): t.get_text() for t in figure.axes[0].texts}
    answer = digits(r.answers[1, 4])
    drawn = [texts[k % 4 + 0.5, k // 4 + 0.5] for k in range(16)]
    assert drawn == [str(d) if d else "?" for d in answer]
    assert draw(run=1, puzzle=5, step=0)[1].startswith("mhc, puzzle 5, step 0 of 3: ")
    unsolved = np.flatnonzero(~r.solved[-1].numpy()) + 1
    after = [*unsolved[unsolved > 5], *unsolved][0]
    assert jumps[1].to(run=1, puzzle=5, step=2) == {"puzzle": after}


@pytest.mark.parametrize(
    ("solved", "words"),
    [
        ([0, 0, 0], "Not solved in 3 steps"),
        ([0, 1, 1], "Solved after step 2 of 3"),
        ([1, 0, 1], "Solved after step 1 of 3, though not after every later one"),
        ([1, 1, 0], "Solved after step 1 of 3 and lost again: not solved after the last"),
    ],
)
def test_what_became_of_a_puzzle_is_said(seen, solved, words):
    r = seen.players[0].result
    answers = torch.where(torch.tensor(solved)[:, None, None] > 0, r.solutions, 0).expand_as(r.answers)
    halting = r.q_halt * 0 + torch.tensor([0.0, 1.0, 0.0])[:, None]
    said = solving.fate(r._replace(answers=answers, q_halt=halting, q_continue=halting * 0), 3)
    assert said == f"{words}; by its own will the model would halt after step 2."


# a puzzle of one's own ------------------------------------------------------------------------------------------------


def test_what_is_typed_is_solved_by_the_model_as_a_puzzle_of_the_data_is(seen, explored):
    draw, controls, _ = explored(typed, typed.typed, seen)
    r = seen.players[1].result
    most = int(r.blanks.sum(1).argmax())
    assert controls["text"].value == as_text(digits(r.givens[most]))
    text = as_text(digits(r.givens[4])).replace(".", "0")
    spaced = " ".join([text[:4], text[4:9], "\n", text[9:]])
    figure, words = draw(run=1, text=spaced, step=3)
    assert solving.fate(r, 4) in words
    texts = {t.get_position(): t.get_text() for t in figure.axes[0].texts}
    assert [texts[k % 4 + 0.5, k // 4 + 0.5] for k in range(16)] == [str(d or "?") for d in digits(r.answers[2, 4])]
    assert "may never have seen" not in words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("123", "has 3 characters; expected 16"),
        ("12a4" + 12 * ".", "has 'a' at r1c3; expected a digit 1 to 4"),
        ("1..1" + 12 * ".", "1 at r1c1 and again at r1c4, in row 1"),
        ("12....3." + 8 * ".", "has 0 solutions"),
    ],
)
def test_what_is_no_puzzle_is_not_solved_and_words_say_why(seen, explored, text, says):
    draw, _, _ = explored(typed, typed.typed, seen)
    figure, words = draw(run=0, text=text, step=3)
    assert words.startswith("Not solved: the puzzle ")
    assert says in words
    assert len(figure.axes[0].texts) == (16 if len(text) == 16 and "a" not in text else 1)


def test_a_puzzle_with_several_solutions_and_more_blanks_than_usual_is_said_to_be_that(seen, explored):
    draw, _, _ = explored(typed, typed.typed, seen)
    figure, words = draw(run=0, text="1" + 15 * ".", step=3)
    assert "more than one solution, so that nothing says which digit is right" in words
    assert "It has 15 blanks, those of the data 4 to 10: the model may never have seen such a one." in words
    assert "not 1" not in words
    assert [t.get_text() for t in figure.axes[1].texts] == ["no single solution to count against"]
    assert "right" not in [t.get_text() for t in figure.axes[0].get_legend().get_texts()]


# what cannot be shown -------------------------------------------------------------------------------------------------


def test_what_cannot_be_shown_is_said_before_anything_is_trained(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gpt = str(ROOT / "params" / "gpt" / "tiny.yaml")
    for given, says in (
        (dict(runs="", params=gpt), r"its gpt with the objective lm does not answer in steps; take one of params/hrm"),
        (dict(runs=str(tmp_path / "none")), "no run of an hrm there"),
        (dict(runs=str(runs / "mhc")), "no run of an hrm there"),
        (dict(runs="", puzzles=3, puzzle=4), r"parameter puzzle = 4; expected 1 to 3"),
    ):
        with pytest.raises(NotebookError, match=says):
            hrm.page(**dict(params=str(PARAMS), overrides={}) | given)
    page = hrm.page("", str(PARAMS), {})
    with pytest.raises(NotebookError, match="run the cell that trains"):
        hrm.think(page)
    assert list(Path().iterdir()) == []


def test_a_run_without_a_checkpoint_or_of_another_size_is_left_out_in_words(folder, capsys, tmp_path):
    given = BRIEF | {"connection.name": "mhc", "data.cache": str(tmp_path), "data.size": 9, "data.train": 4}
    given |= {
        "data.test": 4,
        "data.clues": [40, 50],
        "train.steps": 1,
        "model.halt_max_steps": 2,
        "train.eval_every": 1,
    }
    train(load_config(PARAMS, given), tmp_path / "wide")
    Run.create(tmp_path / "begun", load_config(PARAMS, BRIEF | {"connection.name": "mhc"})).release()
    members = hrm.compare.read([Run(folder / "mhc"), Run(tmp_path / "wide"), Run(tmp_path / "begun")])[0]
    page = hrm.page(str(folder), str(PARAMS), {}, puzzles=3)._replace(members=members)
    assert [p.member.run.name for p in hrm.think(page).players] == ["mhc"]
    printed = capsys.readouterr().out
    assert "wide is left out: its puzzles have 81 cells, those of mhc 16" in printed
    assert "begun is left out: " in printed
