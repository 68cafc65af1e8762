"""Pictures of puzzles and of answers in steps: legible in grey, every cell in its place, words that agree with them."""

import numpy as np
import pandas
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from mhcnb.analysis.boards import GIVEN, RIGHT, WRONG, answer_board, puzzle_board
from mhcnb.plots import reasoning
from mhcnb.plots.puzzle import CHANGED, COLOURS, plot_film, plot_progress, plot_puzzle, say_board
from mhcnb.plots.solved import plot_solved, say_solved

SOLUTION = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])
GIVENS = np.where(np.arange(16) < 6, SOLUTION, 0)
ANSWER = SOLUTION.copy()
ANSWER[[7, 9]] = [4, 0]
BOARD = answer_board(GIVENS, ANSWER, SOLUTION, SOLUTION)


def luminance(colour):
    """Relative luminance of WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("kind", [k for k in COLOURS if k != "blank"])
def test_a_digit_is_legible_on_its_cell(kind):
    dark, light = sorted(map(luminance, COLOURS[kind]))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_right_and_wrong_differ_in_grey_too():
    assert abs(luminance(COLOURS[RIGHT][0]) - luminance(COLOURS[WRONG][0])) > 0.15


def test_every_cell_has_its_digit_its_colour_and_what_sets_it_apart():
    ax = plot_puzzle(BOARD, title="one").axes[0]
    texts = {(round(t.get_position()[0], 2), round(t.get_position()[1], 2)): t for t in ax.texts}
    for cell in range(16):
        row, column = divmod(cell, 4)
        text = texts[column + 0.5, row + 0.5]
        assert text.get_text() == (str(ANSWER[cell]) if cell != 9 else "?")
        assert (text.get_weight() == "bold") == (BOARD.kinds[cell] == GIVEN)
    assert texts[3.84, 1.82].get_text() == str(SOLUTION[7])
    fills = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_fill()]
    assert [p.get_facecolor()[:3] for p in fills] == [to_rgb(COLOURS[kind][0]) for kind in BOARD.kinds]
    framed = [p for p in ax.patches if p.get_edgecolor()[:3] == to_rgb(CHANGED) and not p.get_fill()]
    assert sorted((int(p.get_y()), int(p.get_x())) for p in framed) == [(1, 3), (2, 1)]
    assert len(ax.lines) == 2 * 5 + 2  # the grid, and a stroke through each wrong cell
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["given", "right", "wrong, struck out", "changed in this step"]


def test_words_count_the_cells_and_name_the_wrong_ones():
    wrong = "2 wrong (r2c4 has 4, not 2; r3c2 has no digit, not 1)"
    assert say_board(BOARD) == f"6 givens kept, 8 other cells right, {wrong}, 2 changed in this step"
    assert say_board(puzzle_board(GIVENS)) == "6 givens, 10 blank"
    unknown = "6 givens kept, 8 other cells break no rule, 1 do (r2c4 has 4), 1 blank"
    assert say_board(answer_board(GIVENS, ANSWER)) == unknown


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (5, 5), (40, 18)])
def test_a_film_shows_the_first_and_the_last_and_no_more_than_can_be_seen(count, panels):
    figure = plot_film({f"step {k}": BOARD for k in range(count)}, "all")
    titles = [ax.get_title() for ax in figure.axes if ax.axison]
    assert len(titles) == panels
    assert (titles[0], titles[-1]) == ("step 0", f"step {count - 1}")
    assert [t.get_text() for t in plot_film({}, "none").axes[0].texts] == ["no boards"]


def test_progress_draws_the_trace_beside_the_board_and_marks_the_step():
    columns = dict(
        right=[3, 9], blanks=10, q_halt=[-1.0, 2.0], q_continue=[0.0, 1.0], moved_H=[1, 0.5], moved_L=[1, 0.2]
    )
    figure = plot_progress(BOARD, pandas.DataFrame({"step": [1, 2], **columns}), 2, "it")
    _, filled, sure, moved = figure.axes
    assert filled.lines[0].get_ydata().tolist() == [3, 9]
    assert [line.get_label() for line in sure.lines[:2]] == ["halt", "go on"]
    assert moved.lines[1].get_ydata().tolist() == [1, 0.2]
    assert all(ax.lines[-1].get_xdata()[0] == 2 for ax in (filled, sure, moved))


# many puzzles ---------------------------------------------------------------------------------------------------------


def runs_of(frame):
    """The frame as of two runs of residual and one of mhc."""
    named = (("residual-1", "residual"), ("residual-2", "residual"), ("mhc-1", "mhc"))
    return pandas.concat([frame.assign(run=run, method=method) for run, method in named], ignore_index=True)


STEPS = pandas.DataFrame(
    dict(step=[1, 2], puzzles=100, accuracy=[0.5, 0.9], blank_accuracy=[0.3, 0.8], exact_accuracy=[0, 0.5])
)
BLANKS = pandas.DataFrame(
    dict(low=[4, 6], high=[5, 6], puzzles=[60, 40], blank_accuracy=[0.9, 0.7], exact_accuracy=[0.6, 0.35])
)
HALTING = pandas.DataFrame(dict(step=[1, 2, 3], right=[10, 30, 20], wrong=[5, 5, 30]))
DISTANCES = pandas.DataFrame(
    dict(level=["H", "H", "L", "L"], step=[1, 2, 1, 2], low=0.1, median=[1, 0.5, 1.5, 0.25], high=2)
)


@pytest.mark.parametrize(
    ("plot", "frame", "lines"),
    [(reasoning.plot_steps, STEPS, 2), (reasoning.plot_blanks, BLANKS, 2), (reasoning.plot_distances, DISTANCES, 2)],
)
def test_a_line_a_run_and_a_name_a_method(plot, frame, lines):
    figure = plot(runs_of(frame))
    drawn = [ax for ax in figure.axes if ax.lines]
    assert [len(ax.lines) for ax in drawn] == [3] * lines
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["residual", "mhc"]


def test_the_lines_are_the_figures():
    figure = reasoning.plot_blanks(runs_of(BLANKS))
    exact, below = figure.axes[1], figure.axes[3]
    assert exact.lines[0].get_xydata().tolist() == [[4.5, 0.6], [6, 0.35]]
    assert [bar.get_height() for bar in below.patches] == [60, 40]


def test_halting_stacks_what_was_not_solved_on_what_was():
    figure = reasoning.plot_halting(runs_of(HALTING))
    panels = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in panels] == ["residual-1", "residual-2", "mhc-1"]
    assert [bar.get_height() for bar in panels[0].patches] == [10, 30, 20, 5, 5, 30]
    assert [bar.get_y() for bar in panels[0].patches[3:]] == [10, 30, 20]


def test_words_say_the_figures():
    one = {"run": "r", "method": "mhc"}
    assert reasoning.say_steps(STEPS.assign(**one)) == [
        "mhc (r): from step 1 to 2 it goes from 0.3 to 0.8 of the blank cells that are right, from 0 to 0.5 of the "
        "puzzles that are solved (± 0.05, 100 puzzles); of all cells 0.9."
    ]
    (words,) = reasoning.say_blanks(BLANKS.assign(**one))
    assert "of 60 puzzles with 4 to 5 blanks it solves 0.6 and" in words
    assert "of 40 puzzles with 6 blanks it solves 0.35 and has 0.7" in words
    (words,) = reasoning.say_halting(HALTING.assign(**one))
    assert (
        "before step 3 in 50 of 100 puzzles, 40 of them solved; 2.35 steps on average, 60 puzzles solved then" in words
    )
    (words,) = reasoning.say_distances(DISTANCES.assign(**one))
    assert words.startswith(
        "mhc (r) moves H by 1 in step 1 and 0.5 in the last, L by 1.5 in step 1 and 0.25 in the last"
    )


def test_what_one_run_solves_and_another_does_not_is_counted_and_sorted_by_blanks():
    solved = pandas.DataFrame(
        dict(blanks=[9, 4, 4, 9, 6], residual=[True, True, False, False, True], mhc=[False, True, False, True, True])
    )
    assert say_solved(solved) == [
        "Of 5 puzzles all runs solve 2, none solves 1.",
        "mhc solves 1 that residual does not; residual solves 1 that mhc does not.",
    ]
    ax = plot_solved(solved).axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1, 0, 1, 1, 0], [1, 0, 1, 0, 1]])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["4", "6", "9"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["residual  0.6", "mhc  0.6"]
