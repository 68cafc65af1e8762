"""Reasoning against loops over cells, against the objective's evaluation, and against the model's own steps."""

from operator import eq
from pathlib import Path

import numpy as np
import pytest
import torch

from mhcnb import build_model, load_config, registry
from mhcnb.analysis.boards import BLANK, GIVEN, OPEN, RIGHT, WRONG, answer_board, boards, clashes, puzzle_board, trace
from mhcnb.analysis.reasoning import BINS, Reasoning, by_blanks, by_step, distances, halting, reason
from mhcnb.errors import DataError

PARAMS = Path(__file__).parents[2] / "params" / "hrm" / "tiny4x4.yaml"
SMALL = {"model.width": 16, "model.halt_max_steps": 3, "data.train": 30, "data.test": 12, "connection.name": "mhc"}
SOLUTION = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    given = SMALL | {"data.cache": str(tmp_path_factory.mktemp("cache"))}
    return load_config(PARAMS, given)


@pytest.fixture(scope="module")
def batches(config):
    """12 puzzles in three batches, the last of them padded."""
    source = registry.load("data", "sudoku")(config)
    return [source.evaluation_batch("val", first, 5, 15) for first in (0, 5, 10)]


def make(config):
    """A model whose answers are not all the same: its heads are drawn anew."""
    model = build_model(config)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.q_head.weight, std=0.5, generator=generator)
    return model


def random_reasoning(seed=0, b=60, M=5):
    """Answers that agree with the solutions in most cells; blanks of all numbers, some cells that are not asked for."""
    g = torch.Generator().manual_seed(seed)
    solutions = torch.randint(2, 6, (b, 16), generator=g)
    solutions[torch.rand(b, 16, generator=g) < 0.05] = -100
    givens = torch.where(torch.rand(b, 16, generator=g) < torch.rand(b, 1, generator=g), 1, solutions.clamp(min=0))
    wrong = torch.rand(M, b, 16, generator=g) < 0.05
    answers = torch.where(wrong, torch.randint(0, 6, (M, b, 16), generator=g), solutions)
    q = torch.randn(4, M, b, generator=g)
    return Reasoning(givens, solutions, answers, q[0], q[1], q[2].abs(), q[3].abs())


def test_the_last_step_gives_the_figures_of_an_evaluation(config, batches):
    model = make(config).eval()
    r = reason(model, batches)
    assert len(r.givens) == 12  # padding is no puzzle
    sums = {}
    with torch.no_grad():
        for batch in batches:
            for name, pair in registry.load("objectives", "act")(config.objective).evaluate(model, batch).items():
                sums[name] = sums.get(name, 0) + torch.stack([x.double() for x in pair])
    last = by_step(r).iloc[-1]
    for name in ("accuracy", "blank_accuracy", "exact_accuracy"):
        assert last[name] == pytest.approx(float(sums[name][0] / sums[name][1]), abs=1e-6), name


def test_steps_beyond_the_last_go_on_as_those_of_a_model_that_has_more(config, batches):
    model = make(config)
    longer = make(config.model_copy(update={"model": config.model.model_copy(update={"halt_max_steps": 5})}))
    short, long, other = reason(model, batches), reason(model, batches, 5), reason(longer, batches)
    for name in Reasoning._fields:
        torch.testing.assert_close(getattr(long, name), getattr(other, name), rtol=0, atol=0)
    torch.testing.assert_close(long.answers[:3], short.answers)
    assert model.training


def test_distances_are_those_of_the_states_that_the_carry_holds(config, batches):
    model, batch = make(config), batches[0]
    r = reason(model, [batch])
    model.eval()
    carry, before, expected = None, (model.H_init, model.L_init), []
    with torch.no_grad():
        for _ in range(3):
            carry = model(batch, carry).carry
            for z, old in zip((carry.z_H, carry.z_L), before, strict=True):
                rows = [
                    (z[i] - old[i], old[i]) if old.ndim == 3 else (z[i] - old, old.expand_as(z[i])) for i in range(5)
                ]
                expected.append([float((d**2).sum().sqrt() / (o**2).sum().sqrt()) for d, o in rows])
            before = carry.z_H, carry.z_L
    found = torch.stack([r.moved_H, r.moved_L], 1).flatten(end_dim=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    frame = distances(r)
    np.testing.assert_allclose(
        frame[frame["level"] == "H"]["median"], np.median(np.array(expected)[::2], axis=1), rtol=1e-5
    )


def test_shares_by_step_and_halts_are_counted_cell_by_cell():
    r = random_reasoning()
    steps, halts = by_step(r), halting(r)
    M, b, t = r.answers.shape
    right = {k: 0 for k in range(1, M + 1)}
    for row in range(b):
        at = next((k for k in range(M) if r.q_halt[k, row] > r.q_continue[k, row]), M - 1)
        ok = all(r.solutions[row, c] in (-100, r.answers[at, row, c]) for c in range(t))
        right[at + 1] += ok
        assert r.halts[row] == at + 1
    assert halts["right"].tolist() == list(right.values())
    assert (halts["right"] + halts["wrong"]).sum() == b
    for k in range(M):
        asked = [(i, c) for i in range(b) for c in range(t) if r.solutions[i, c] != -100]
        blank = [(i, c) for i, c in asked if r.givens[i, c] == 1]
        good = [r.answers[k, i, c] == r.solutions[i, c] for i, c in blank]
        assert steps["blank_accuracy"][k] == pytest.approx(np.mean(good))
    assert steps["exact_accuracy"].between(0.2, 0.9).all()  # neither trivial


def test_ranges_of_blanks_hold_each_puzzle_once_and_give_its_shares():
    r = random_reasoning(b=200)
    frame, counts = by_blanks(r), r.blanks.sum(1)
    assert len(np.unique(counts)) > BINS >= len(frame) > 5
    assert frame["puzzles"].sum() == 200
    assert (frame["low"].to_numpy()[1:] > frame["high"].to_numpy()[:-1]).all()
    for _, row in frame.iterrows():
        own = (counts >= row["low"]) & (counts <= row["high"])
        assert row["puzzles"] == own.sum()
        assert row["exact_accuracy"] == pytest.approx(r.solved[-1][own].double().mean().item())
        share = (r.right[-1] & r.blanks)[own].sum() / max(r.blanks[own].sum(), 1)
        assert row["blank_accuracy"] == pytest.approx(float(share))
    few = by_blanks(r._replace(givens=torch.where(torch.arange(16) < 4, 1, r.solutions.clamp(min=0))))
    assert (few["low"] == few["high"]).all()


def test_without_a_real_row_it_says_so(config, batches):
    padded = {name: values[2:] for name, values in batches[2].items()}
    with pytest.raises(DataError, match="every row is padding"):
        reason(make(config), [padded])


# boards ---------------------------------------------------------------------------------------------------------------


def test_each_cell_is_what_it_is():
    givens, answer, before = np.where(np.arange(16) < 6, SOLUTION, 0), SOLUTION.copy(), SOLUTION.copy()
    answer[[0, 7, 9]], before[12] = [2, 0, 4], 0
    board = answer_board(givens, answer, before, SOLUTION)
    expected = [WRONG, *[GIVEN] * 5, RIGHT, WRONG, RIGHT, WRONG, *[RIGHT] * 6]
    assert board.kinds.tolist() == expected
    assert np.flatnonzero(board.changed).tolist() == [0, 7, 9, 12]
    assert puzzle_board(givens).kinds.tolist() == [GIVEN] * 6 + [BLANK] * 10


def test_without_a_solution_what_breaks_a_rule_is_wrong_and_else_open():
    givens, answer = np.where(np.arange(16) < 6, SOLUTION, 0), SOLUTION.copy()
    answer[[7, 8]] = [0, 4]  # a blank; a second 4 in row 3, in its column and in its box
    kinds = answer_board(givens, answer).kinds
    assert [k for k in range(16) if kinds[k] == WRONG] == [8, 10, 12]
    assert kinds[7] == BLANK
    assert set(kinds[[6, 9, 11, 13, 14, 15]]) == {OPEN}


@pytest.mark.parametrize("size", [4, 9])
def test_clashes_are_found_cell_by_cell(size):
    box = int(size**0.5)
    digits = np.random.default_rng(size).integers(0, size + 1, size**2)
    places = [(k // size, k % size, (k // size // box, k % size // box)) for k in range(size**2)]
    expected = [
        any(j != k and digits[j] == digits[k] > 0 and any(map(eq, p, q)) for j, q in enumerate(places))
        for k, p in enumerate(places)
    ]
    assert clashes(digits).tolist() == expected
    assert 0 < sum(expected) < size**2


def test_boards_are_the_puzzle_then_each_answer_and_a_trace_counts_its_blanks():
    r = random_reasoning()
    r = r._replace(solutions=r.solutions.clamp(min=2))
    found, frame = boards(r, 7), trace(r, 7)
    assert len(found) == 6
    assert found[0].digits.tolist() == [max(int(x) - 1, 0) for x in r.givens[7]]
    for k, board in enumerate(found[1:]):
        assert board.digits.tolist() == [max(int(x) - 1, 0) for x in r.answers[k, 7]]
        assert (board.changed.sum() > 0) == (k > 0 and bool((r.answers[k, 7] != r.answers[k - 1, 7]).any()))
        assert frame["right"][k] == (board.kinds == RIGHT).sum()
    assert not boards(r, 7, known=False)[-1].right.any()
