"""Solver, generator, symmetries and tables of puzzles, against brute force where it can be had."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhcnb.data.puzzles.arrays import read_split
from mhcnb.data.puzzles.build import Recipe
from mhcnb.data.puzzles.generate import Kind, generate, random_grid
from mhcnb.data.puzzles.prepare import write_built
from mhcnb.data.puzzles.rules import rules
from mhcnb.data.puzzles.shared import shared
from mhcnb.data.puzzles.singles import dig, solved
from mhcnb.data.puzzles.solver import solve
from mhcnb.data.puzzles.symmetry import Symmetries, draw
from mhcnb.data.puzzles.table import Puzzles, as_text, read_csv, write_csv
from mhcnb.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "hrm" / "augment_data.npz"
# 21 givens; singles alone place hardly any of the others
HARD = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."


def digits(text):
    return [int(char) for char in text.replace(".", "0")]


def is_grid(board):
    """By the rules as a newspaper gives them."""
    size = round(len(board) ** 0.5)
    box, square = round(size**0.5), np.reshape(board, (size, size))
    boxes = square.reshape(box, box, box, box).swapaxes(1, 2).reshape(size, size)
    return all(set(line) == set(range(1, size + 1)) for line in (*square.tolist(), *square.T.tolist(), *boxes.tolist()))


@pytest.fixture(scope="module")
def small_grids():
    """The 4 x 4 grids, of all that have each digit once a row."""
    rows = list(itertools.permutations((1, 2, 3, 4)))
    pairs = [a + b for a, b in itertools.product(rows, rows) if len({*a[:2], *b[:2]}) == len({*a[2:], *b[2:]}) == 4]
    return np.array([a + b for a, b in itertools.product(pairs, pairs) if is_grid(a + b)], np.uint8)


@pytest.fixture(scope="module")
def easy():
    """Ten 9 x 9 puzzles with 24 to 40 clues that singles solve."""
    return generate(Kind(9, (24, 40)), 8, 2, seed=3)[0]


def test_all_288_small_grids_are_found(small_grids):
    found = solve([0] * 16, limit=1000)
    assert found.complete
    assert len(small_grids) == 288
    assert sorted(found.solutions) == sorted(small_grids.tolist())


@given(st.data())
def test_solutions_are_those_grids_that_agree_with_the_givens(small_grids, data):
    grid = small_grids[data.draw(st.integers(0, 287))]
    kept = data.draw(st.lists(st.integers(0, 15), min_size=2, max_size=12, unique=True))
    puzzle = np.zeros(16, np.uint8)
    puzzle[kept] = grid[kept]
    if data.draw(st.booleans()):  # maybe none is left
        puzzle[kept[0]] = puzzle[kept[0]] % 4 + 1
    agree = small_grids[((puzzle == 0) | (puzzle == small_grids)).all(1)]
    assert sorted(solve(puzzle.tolist(), limit=289).solutions) == sorted(agree.tolist())
    assert len(solve(puzzle.tolist()).solutions) == min(len(agree), 2)


def test_a_hard_puzzle_has_one_solution_a_rating_and_a_limit_of_search():
    found = solve(digits(HARD))
    assert [is_grid(solution) for solution in found.solutions] == [True]
    assert all(given in (0, cell) for given, cell in zip(digits(HARD), found.solutions[0], strict=True))
    assert found.backtracks == solve(digits(HARD)).backtracks > 10
    assert found.complete
    assert not solve(digits(HARD), most_nodes=3).complete
    assert not solve([0] * 81, limit=10**6, most_nodes=20).complete


def test_a_random_grid_is_one_and_the_next_another():
    drawn = random.Random(0)
    grids = [random_grid(drawn) for _ in range(5)]
    assert all(map(is_grid, grids))
    assert len({tuple(grid) for grid in grids}) == 5


def by_singles(puzzle):
    """Naked and hidden singles with sets: what can be filled in."""
    size = round(len(puzzle) ** 0.5)
    board, units = list(puzzle), rules(size).units.tolist()
    while True:
        left = {
            cell: set(range(1, size + 1)) - {board[other] for unit in units if cell in unit for other in unit}
            for cell in range(len(board))
            if not board[cell]
        }
        placed = {cell: min(options) for cell, options in left.items() if len(options) == 1}
        for unit in units:
            for digit in range(1, size + 1):
                places = [cell for cell in unit if digit in left.get(cell, ())]
                placed |= {places[0]: digit} if len(places) == 1 else {}
        if not placed:
            return board
        for cell, digit in placed.items():
            board[cell] = digit


def test_singles_of_many_are_those_of_each(easy):
    puzzles = np.concatenate([easy.givens, [digits(HARD)]]).astype(np.uint8)
    puzzles[:4, 40:] = 0  # too few givens are left
    oracle = [0 not in by_singles(puzzle.tolist()) for puzzle in puzzles]
    assert solved(puzzles).tolist() == oracle
    assert {True, False} == set(oracle)


def test_digging_ends_at_the_clues_asked_for_or_where_no_given_can_go(small_grids):
    rng = np.random.default_rng(0)
    some = small_grids[rng.integers(288, size=40)]
    assert ((dig(some, np.full(40, 9), rng) > 0).sum(1) == 9).all()
    bare = dig(some, np.zeros(40, int), rng)
    for puzzle, solution in zip(bare, some, strict=True):
        assert by_singles(puzzle.tolist()) == solution.tolist()
        for cell in np.flatnonzero(puzzle):
            fewer = puzzle.copy()
            fewer[cell] = 0
            assert 0 in by_singles(fewer.tolist())


def test_easy_puzzles_have_their_clues_one_solution_and_rating_0(easy):
    clues = (easy.givens > 0).sum(1)
    assert ((clues >= 24) & (clues <= 40)).all()
    assert len(set(clues.tolist())) > 2
    for puzzle, solution in zip(easy.givens.tolist(), easy.solutions.tolist(), strict=True):
        assert solve(puzzle)._replace(complete=True) == ([solution], 0, True)


def test_harder_puzzles_lie_in_their_band():
    train, test = generate(Kind(9, None, rating=(2, 9)), 3, 1, seed=0)
    for puzzles in (train, test):
        found = [solve(puzzle) for puzzle in puzzles.givens.tolist()]
        assert [f.solutions for f in found] == [[solution] for solution in puzzles.solutions.tolist()]
        assert [f.backtracks for f in found] == puzzles.ratings.tolist()
        assert all(2 <= f.backtracks <= 9 for f in found)
    puzzle = train.givens[0].tolist()
    for cell in np.flatnonzero(puzzle).tolist():  # no given can go
        assert len(solve([*puzzle[:cell], 0, *puzzle[cell + 1 :]]).solutions) == 2


@pytest.mark.parametrize(("kind", "many"), [(Kind(9, (40, 40)), (5, 6)), (Kind(4, (6, 12)), (300, 60))], ids=["9", "4"])
def test_no_grid_is_in_both_splits_and_the_seed_decides(kind, many):
    train, test = generate(kind, *many, seed=1)
    assert (len(train.givens), len(test.givens)) == many
    both = np.concatenate([train.givens, test.givens])
    assert len(np.unique(both, axis=0)) == len(both)
    assert shared(train.solutions, test.solutions) == []
    assert as_lists(generate(kind, *many, seed=1)) == as_lists((train, test))
    assert as_lists(generate(kind, *many, seed=2)) != as_lists((train, test))
    if kind.size == 9:
        assert as_lists(generate(kind, 2, many[1], seed=1)[1:]) == as_lists((test,))


def as_lists(tables):
    return [[column.tolist() for column in table] for table in tables]


def test_more_puzzles_than_there_are():
    with pytest.raises(DataError, match=r"5,000 puzzles of size 4 with 15 clues.*no more were found.*more clues"):
        generate(Kind(4, (15, 15)), 5000, 10, seed=0)


def test_symmetries_are_those_of_the_original():
    z = np.load(GOLDEN, allow_pickle=False)
    drawn = Symmetries(z["aug_digit_map"], z["aug_transpose"], z["aug_row_perm"], z["aug_col_perm"])
    for board in ("puzzle", "solution"):
        boards = z[f"aug_{board}_in"].reshape(6, 81)
        assert np.array_equal(drawn(boards), z[f"aug_{board}_out"].reshape(6, 81))


def test_drawn_symmetries_keep_what_a_sudoku_is(easy):
    rng = np.random.default_rng(0)
    drawn = draw(200, rng)
    assert all(map(is_grid, drawn(easy.solutions[:1])))
    copies, answers = drawn(easy.givens[:1]), drawn(easy.solutions[:1])
    assert ((copies == 0) | (copies == answers)).all()
    assert len(np.unique(copies, axis=0)) == 200
    # each choice is drawn: 9 places for a digit and for a row, both ways to lie
    assert len(set(drawn.digits[:, 1].tolist())) == len(set(drawn.rows[:, 0].tolist())) == 9
    assert 60 < drawn.transpose.sum() < 140
    for lines in (drawn.rows, drawn.columns):
        assert (np.sort(lines, axis=1) == np.arange(9)).all()
        assert (lines.reshape(200, 3, 3) // 3 == lines[:, ::3, None] // 3).all()


def test_a_table_is_read_as_it_was_written_and_a_missing_answer_worked_out(easy, tmp_path):
    rated = easy._replace(ratings=np.arange(8))
    write_csv(tmp_path / "a.csv", rated)
    assert as_lists([read_csv(tmp_path / "a.csv")]) == as_lists([rated])
    text = (tmp_path / "a.csv").read_text().splitlines()
    assert text[1] == f"mhcnb,{as_text(easy.givens[0])},{as_text(easy.solutions[0])},0"
    source, question, _, rating = text[2].split(",")
    text[2] = f"{source},{question.replace('.', '0')},,{rating}"
    (tmp_path / "b.csv").write_text("\ufeff" + "\r\n".join([*text, ""]))
    assert as_lists([read_csv(tmp_path / "b.csv")]) == as_lists([rated])


def test_the_test_split_of_the_original_builder_bit_for_bit_and_the_training_split_in_structure(tmp_path):
    """Which puzzles it draws depends on a generator that the original leaves unseeded."""
    z = np.load(GOLDEN, allow_pickle=False)
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(str(z[f"build_{name}_csv"]))
    record = write_built(tmp_path / "out", tmp_path, Recipe(train=5, augmentations=2, seed=3))
    assert record["puzzles"] == {"train": 5, "test": 5}
    for name in ("train", "test"):
        found = read_split(tmp_path / "out" / name)
        assert found.inputs.dtype == found.labels.dtype == np.uint8
        assert (tmp_path / "out" / name / "dataset.json").read_text() == same_json(str(z[f"build_{name}_json"]))
        for field in ("puzzle_indices", "group_indices", "puzzle_identifiers"):
            array = np.load(tmp_path / "out" / name / f"all__{field}.npy")
            assert array.dtype == np.int32
            assert np.array_equal(array, z[f"build_{name}_{field}"])
    assert np.array_equal(found.inputs, z["build_test_inputs"])
    assert np.array_equal(found.labels, z["build_test_labels"])
    check_copies(read_split(tmp_path / "out" / "train"), read_csv(tmp_path / "train.csv"))


def same_json(text):
    return json.dumps(json.loads(text), indent=1) + "\n"


def check_copies(split, table):
    """Each group: a puzzle of the table, then two others of the same clues; answers are grids that agree."""
    boards = split.inputs.astype(int) - 1, split.labels.astype(int) - 1
    originals = {puzzle.tobytes(): row for row, puzzle in enumerate(table.givens)}
    drawn = [originals[boards[0][row].astype(np.uint8).tobytes()] for row in split.groups[:-1]]
    assert len(set(drawn)) == len(drawn)
    assert np.array_equal(boards[1][split.groups[:-1]], table.solutions[drawn])
    assert all(map(is_grid, boards[1]))
    assert ((boards[0] == 0) | (boards[0] == boards[1])).all()
    assert ((boards[0] > 0).sum(1).reshape(-1, 3) == (table.givens[drawn] > 0).sum(1)[:, None]).all()
    assert len(np.unique(boards[0], axis=0)) == len(boards[0])


def test_a_minimum_difficulty_holds_for_both_splits(easy, tmp_path):
    rated = easy._replace(ratings=np.arange(8))
    write_csv(tmp_path / "train.csv", rated.take(np.arange(0, 8, 2)))
    write_csv(tmp_path / "test.csv", rated.take(np.arange(1, 8, 2)))
    write_built(tmp_path / "out", tmp_path, Recipe(min_difficulty=3))
    for name, kept in (("train", [4, 6]), ("test", [3, 5, 7])):
        assert np.array_equal(read_split(tmp_path / "out" / name).inputs - 1, easy.givens[kept])
    with pytest.raises(DataError, match="no training puzzle has a rating of 8 or more: the hardest of 4 has 6"):
        write_built(tmp_path / "none", tmp_path, Recipe(min_difficulty=8))
    assert not (tmp_path / "none").exists()


def test_one_table_is_split_by_solution_grid(small_grids, tmp_path):
    rng = np.random.default_rng(0)
    solutions = small_grids[rng.integers(20, size=100)]
    givens = dig(solutions, np.full(100, 8), rng)
    write_csv(tmp_path / "mine.csv", Puzzles(givens, solutions, np.zeros(100, int)))
    write_built(tmp_path / "out", tmp_path / "mine.csv", Recipe(test=10))
    train, test = (read_split(tmp_path / "out" / name).labels for name in ("train", "test"))
    grids = [{tuple(grid) for grid in split.tolist()} for split in (train, test)]
    assert not grids[0] & grids[1]
    assert len(test) == 10
    assert len(grids[0] | grids[1]) == len(np.unique(solutions, axis=0))
    with pytest.raises(DataError, match="100 test puzzles of 100 on 20 solution grids leave none to train on"):
        write_built(tmp_path / "more", tmp_path / "mine.csv", Recipe(test=100))


def test_shared_grids_are_found_by_their_rows(small_grids):
    train, test = small_grids[[5, 7, 9, 7, 100]], small_grids[[1, 100, 7, 2, 7]]
    pairs = [(i, j) for j, grid in enumerate(test.tolist()) for i, other in enumerate(train.tolist()) if grid == other]
    first = {j: min(i for i, k in pairs if k == j) for _, j in pairs}
    assert shared(train, test) == [(i, j) for j, i in sorted(first.items())] == [(4, 1), (1, 2), (1, 4)]
    assert shared(train.astype(np.int64), test) == shared(train, test)
