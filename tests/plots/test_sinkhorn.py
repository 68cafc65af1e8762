"""The laboratory's figures hold the numbers they were given, and their words say them."""

import numpy as np
import pytest

from mhcnb.analysis.polytope import decompose, one_hot, permutations
from mhcnb.plots import sinkhorn as plots

ERRORS = {"rows": np.geomspace(1, 1e-6, 11), "columns": np.geomspace(10, 1e-2, 11)}


def test_convergence_draws_both_sides_and_the_chosen_round():
    ax = plots.plot_convergence(ERRORS, 4).axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    for side in ("rows", "columns"):
        np.testing.assert_allclose(lines[side].get_ydata(), ERRORS[side])
    assert list(lines["4 rounds"].get_xdata()) == [4, 4]
    assert ax.get_yscale() == "log"
    looks = {(line.get_linestyle(), line.get_marker()) for line in (lines["rows"], lines["columns"])}
    assert len(looks) == 2  # told apart without colour


def test_infinite_and_zero_errors_are_drawn_around():
    errors = {"rows": np.array([np.inf, 0.0, 0.0]), "columns": np.array([np.nan, 1e-3, 0.0])}
    figure = plots.plot_convergence(errors, 1)
    figure.savefig("/dev/null", format="png")
    low, high = figure.axes[0].get_ylim()
    assert 0 < low < 1e-3 < high < np.inf


def test_words_name_the_round_from_which_both_sides_are_close():
    logits = np.array([[0.0, 2.0], [1.0, 0.0]])
    words = plots.say_bench(logits, ERRORS, 2, "float32")
    assert "range of the logits (log 1/ν) 2. After 2 rounds in float32" in words
    assert f"row sums differ from 1 by at most {ERRORS['rows'][2]:.3g} and column sums by at most" in words
    assert "not both under 0.001 within 10 rounds" in words
    near = {"rows": ERRORS["rows"], "columns": ERRORS["rows"]}
    assert "both are under 0.001 from round 6 on" in plots.say_bench(logits, near, 2, "float32")


def test_gradients_draw_every_mode_and_say_the_chosen_round():
    errors = {
        "unrolled": np.array([1e-10, 2e-10]),
        "recomputed": np.array([1e-10, 3e-10]),
        "implicit": np.array([1, 1e-8]),
    }
    ax = plots.plot_gradients(errors, [1, 20], 20).axes[0]
    for mode, values in errors.items():
        (line,) = (line for line in ax.lines if line.get_label() == mode)
        np.testing.assert_allclose(line.get_ydata(), values)
    words = plots.say_gradients(errors, [1, 20], 20)
    assert "after 20 rounds: unrolled 2.0e-10, recomputed 3.0e-10, implicit 1.0e-08" in words
    assert "as good as exact" in words


def test_bars_are_the_weights_and_the_identity_is_hatched():
    P = 0.5 * np.eye(3) + 0.3 * np.eye(3)[[1, 2, 0]] + 0.2 * np.eye(3)[[0, 2, 1]]
    mix = decompose(P)
    left = plots.plot_permutations(mix, "P").axes[0]
    assert [bar.get_height() for bar in left.patches] == pytest.approx([0.5, 0.3, 0.2])
    assert [bar.get_hatch() for bar in left.patches] == ["//", "", ""]
    assert [label.get_text() for label in left.get_xticklabels()] == ["012", "120", "021"]
    assert plots.say_permutations(mix).startswith(
        "3 permutations, 3 of them carry nine tenths; the heaviest is 012 with"
    )


@pytest.mark.parametrize("n", [2, 3])
def test_the_path_ends_where_the_words_say(n):
    path = np.stack([np.full((n, n), 5.0), np.full((n, n), 1 / n), one_hot(permutations(n))[1]])
    ax = plots.plot_polytope(path).axes[0]
    (rounds,) = (line for line in ax.lines if line.get_label() == "rounds")
    (last,) = (line for line in ax.lines if line.get_label() == "the last")
    assert len(rounds.get_xdata()) == 3
    assert last.get_xydata()[0] == pytest.approx(rounds.get_xydata()[-1])
    assert {text.get_text() for text in ax.texts} == {"".join(map(str, p)) for p in permutations(n)}
    name = "".join(map(str, permutations(n)[1]))
    assert f"the matrix is 0 from the permutation {name}" in plots.say_polytope(path)
