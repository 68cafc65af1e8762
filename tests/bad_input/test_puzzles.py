"""Rows 61-64: puzzles that are none, whose answers are wrong, or that have no solution or several."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhcnb.data.puzzles.check import count_solutions, typed_puzzle
from mhcnb.data.puzzles.generate import Kind, generate
from mhcnb.data.puzzles.table import as_text, read_csv, write_csv
from mhcnb.errors import DataError

HEADER = "source,question,answer,rating"
QUESTION = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def put(text, at, char):
    return text[:at] + char + text[at + 1 :]


# the third row of a table -> what is said of it
ROWS = {
    "row61 a character short": (f"x,{QUESTION[:-1]},{ANSWER},0", "the question has 80 characters; expected 81"),
    "row61 a letter": (
        f"x,{put(QUESTION, 2, 'A')},{ANSWER},0",
        "the question has 'A' at r1c3; expected a digit 1",
    ),
    "row61 a letter, and long": (f"x,{QUESTION}x,{ANSWER},0", "82 characters, the first that is no digit 'x'"),
    "row61 a letter in the answer": (f"x,{QUESTION},{put(ANSWER, 80, '?')},0", "the answer has '?' at r9c9"),
    "row61 a grid of another size": (f"x,{QUESTION[:16]},{ANSWER[:16]},0", "16 characters; expected 81, the cells"),
    "row61 a field too many": (f"x,{QUESTION},{ANSWER},0,0", "5 fields; expected 4: source,question,answer,rating"),
    "row61 a rating of words": (f"x,{QUESTION},{ANSWER},hard", "rating 'hard'; expected a whole number"),
    "row61 a rating of 5000 digits": (f"x,{QUESTION},{ANSWER},{'9' * 5000}", "expected a whole number from 0 on"),
    "row62 in a row": (f"x,{put(QUESTION, 3, '5')},{ANSWER},0", "the givens break a rule: 5 at r1c1 and again at r1c4"),
    "row62 in a column": (f"x,{put(QUESTION, 72, '5')},{ANSWER},0", "5 at r1c1 and again at r9c1, in column 1"),
    "row62 in a box": (f"x,{put(QUESTION, 10, '8')},{ANSWER},0", "8 at r2c2 and again at r3c3, in box 1"),
    "row63 another digit": (
        f"x,{QUESTION},{put(ANSWER, 4, '8')},0",
        "the answer has 8 at r1c5, where the question gives 7",
    ),
    "row63 breaks a rule": (
        f"x,{QUESTION},{put(ANSWER, 2, '5')},0",
        "the answer breaks a rule: 5 at r1c1",
    ),
    "row63 a blank": (f"x,{QUESTION},{put(ANSWER, 2, '.')},0", "the answer is blank at r1c3"),
    "row64 no solution": (f"x,{put(QUESTION, 2, '1')},,0", "0 solutions"),
}


@pytest.fixture
def table(tmp_path):
    """table(row): a CSV whose third row it is, after two good ones."""

    def write(*rows, header=HEADER):
        path = tmp_path / "mine.csv"
        path.write_text("\n".join([header, *rows, ""]))
        return path

    return write


@pytest.mark.parametrize(("row", "says"), ROWS.values(), ids=ROWS)
def test_a_row_that_is_no_puzzle(refused, table, row, says):
    """The check and the builder refuse it in the same words."""
    path = table(*[f"good,{QUESTION},{ANSWER},3"] * 2, row)
    said = refused(DataError, "data", "check", path, says=[f"{path}: row 3: ", says])
    assert refused(DataError, "data", "sudoku", "--csv", path, "--out", "out", says=[]) == said


@given(st.data())
def test_row61_whatever_bytes_a_table_holds_it_is_read_or_refused(tmp_path_factory, data):
    whole = "\n".join([HEADER, *[f"good,{QUESTION},{ANSWER},3"] * 3]).encode()
    start, gone = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 100))
    path = tmp_path_factory.mktemp("fuzz") / "mine.csv"
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=20)) + whole[start + gone :])
    said = ""
    try:
        assert read_csv(path).givens.shape[1] in (16, 81)
    except DataError as error:
        said = str(error)
    assert not said or str(path) in said


def test_row64_several_solutions_are_a_warning_and_a_search_given_up_is_unknown(mhcnb, table, caplog):
    open_ended = "." * 9 + QUESTION[9:]
    path = table(f"x,{QUESTION},{ANSWER},0", f"x,{'.' * 81},{ANSWER},0", f"x,{open_ended},{ANSWER},0")
    done = mhcnb("data", "check", path)
    assert done.exit_code == 0
    found = json.loads(done.stdout)["mine.csv"]
    several = [row for row in (1, 2, 3) if f"row {row}: 2 or more solutions" in caplog.text]
    assert 2 in several
    assert 1 not in several
    assert (found["several_solutions"], found["unknown"]) == (len(several), 0)
    caplog.clear()
    puzzles = generate(Kind(9, (24, 26), rating=(3, 9)), 1, 1, seed=0)[0]
    assert count_solutions("here", puzzles, most_nodes=1) == ([], [0])
    assert "here: row 1: unknown whether 1 solution or more" in caplog.text
    assert count_solutions("here", puzzles) == ([], [])


@pytest.mark.parametrize(
    ("header", "says"),
    [(f"x,{QUESTION},{ANSWER},0", "x,53..7"), ("question,answer", "question,answer"), ("", "nothing")],
    ids=["row61 no header", "row61 another header", "row61 an empty line"],
)
def test_a_table_without_its_header(refused, table, header, says):
    path = table(f"x,{QUESTION},{ANSWER},0", header=header)
    refused(DataError, "data", "check", path, says=[f"{path}: line 1 is '{says}", f"expected the header {HEADER}"])


def test_row61_a_table_that_is_none(refused, table, tmp_path):
    refused(DataError, "data", "check", table(), says=["no puzzles: a header and nothing else"])
    refused(
        DataError, "data", "check", table(f"x,{QUESTION[:49]},,0"), says=["row 1", "49 characters; expected 81 or 16"]
    )
    (tmp_path / "mine.csv").write_bytes(b"\xff\xfe\x00")
    refused(DataError, "data", "check", tmp_path / "mine.csv", says=["mine.csv: cannot be read as a CSV of puzzles"])
    refused(DataError, "data", "sudoku", "--csv", "none.csv", "--out", "out", says=["none.csv is not there"])


# what becomes of a sound folder -> what training and `data check` say of it
def one_in_both(folder):
    labels = np.load(folder / "train" / "all__labels.npy", allow_pickle=False)
    labels[4] = np.load(folder / "test" / "all__labels.npy", allow_pickle=False)[2]
    inputs = np.load(folder / "train" / "all__inputs.npy", allow_pickle=False)
    inputs[4] = labels[4]
    np.save(folder / "train" / "all__labels.npy", labels)
    np.save(folder / "train" / "all__inputs.npy", inputs)


def a_token(folder):
    inputs = np.load(folder / "train" / "all__inputs.npy", allow_pickle=False).astype(np.int64)
    inputs[1, 3] = -1
    np.save(folder / "train" / "all__inputs.npy", inputs)


def one_short(folder):
    np.save(folder / "test" / "all__labels.npy", np.zeros((5, 15), np.uint8))


def cut_off(folder):
    path = folder / "train" / "all__inputs.npy"
    path.write_bytes(path.read_bytes()[:-40])


def floating(folder):
    np.save(folder / "train" / "all__labels.npy", np.ones((8, 16)))


def groups(folder):
    np.save(folder / "train" / "all__group_indices.npy", np.array([0, 3, 3, 8], np.int32))


def no_meta(folder):
    (folder / "test" / "dataset.json").unlink()


FOLDERS = {
    "row61 a grid in both splits": (
        one_in_both,
        ["1 of 5 test puzzles have the solution grid of a training puzzle", "test row 3 and training row 5"],
    ),
    "row61 a token that is no digit": (a_token, ["all__inputs.npy: row 2 has token -1 at cell 4; expected 1 to 5"]),
    "row61 arrays of two shapes": (one_short, ["inputs [5, 16], labels [5, 15]; expected both [puzzles, 81]"]),
    "row61 an array cut off": (cut_off, ["all__inputs.npy: cannot be read"]),
    "row61 an array of floats": (floating, ["all__labels.npy: type float64; expected whole numbers"]),
    "row61 groups that do not rise": (groups, ["all__group_indices.npy: expected rising numbers from 0 to 8"]),
    "row61 no dataset.json": (no_meta, ["dataset.json: cannot be read"]),
}


@pytest.fixture
def arrays(mhcnb, tmp_path):
    """A sound folder of eight training and five test puzzles, 4 x 4."""
    assert mhcnb("data", "sudoku", "--size", 4, "--train", 8, "--test", 5, "--out", "puzzles").exit_code == 0
    return tmp_path / "puzzles"


@pytest.mark.parametrize(("damage", "says"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_cannot_be_trained_on(refused, arrays, params, damage, says):
    damage(arrays)
    said = refused(DataError, "data", "check", arrays, says=says)
    given = ["data.name=sudoku", f"data.root={arrays}", "data.size=4"]
    assert refused(DataError, "train", params(), *given, "--out", "run", says=[]) == said


def test_row61_grids_of_another_size_than_the_configuration_says(refused, arrays, params):
    says = [f"{arrays}/train: grids of 4 x 4, while data.size is 9; give data.size=4"]
    refused(DataError, "train", params(), "data.name=sudoku", f"data.root={arrays}", "--out", "run", says=says)


def test_row61_tables_of_two_sizes_and_grids_in_both(refused, tmp_path):
    train, test = generate(Kind(4, (9, 9)), 6, 2, seed=0)
    write_csv(tmp_path / "train.csv", train)
    write_csv(tmp_path / "test.csv", train.take(np.array([3])))
    for command in (["check", tmp_path], ["sudoku", "--csv", tmp_path, "--out", "out"]):
        refused(DataError, "data", *command, says=["1 of 1 test puzzles have the solution grid of a training puzzle"])
    write_csv(tmp_path / "test.csv", generate(Kind(9, (40, 40)), 1, 1, seed=0)[0])
    for command in (["check", tmp_path], ["sudoku", "--csv", tmp_path, "--out", "out"]):
        refused(DataError, "data", *command, says=["training puzzles of size 4, test puzzles of size 9"])
    write_csv(tmp_path / "test.csv", test)
    says = ["3 augmentations of 4 x 4 puzzles: their 288 grids"]
    refused(DataError, "data", "sudoku", "--csv", tmp_path, "--augmentations", 3, "--out", "out", says=says)


def test_row64_a_typed_puzzle_is_solved_or_told_why_not():
    lines = "\n".join(QUESTION[i : i + 9].replace(".", " . ") for i in range(0, 81, 9))
    givens, found = typed_puzzle(lines)
    assert as_text(givens) == QUESTION
    assert [as_text(solution) for solution in found.solutions] == [ANSWER]
    assert len(typed_puzzle("." * 16, size=4)[1].solutions) == 2
    wrong = {
        QUESTION[1:]: "the puzzle has 80 characters; expected 81",
        put(QUESTION, 0, "x"): "the puzzle has 'x' at r1c1",
        put(QUESTION, 3, "5"): "no solution: the givens break a rule: 5 at r1c1 and again at r1c4, in row 1",
        put(QUESTION, 2, "1"): "the puzzle has 0 solutions",
    }
    for text, says in wrong.items():
        with pytest.raises(DataError, match=says):
            typed_puzzle(text)
