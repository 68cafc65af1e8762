"""The laboratory's numbers against the definition, and its refusals."""

import numpy as np
import pytest
import torch

from mhcnb.connections.birkhoff import sinkhorn_plain
from mhcnb.errors import NotebookError
from mhcnb.notebook import controls, sinkhorn_lab
from mhcnb.notebook.controls import Jump
from mhcnb.notebook.sinkhorn_state import Lab, parse

STATE = Lab(4, 20, 0.25, "paper", "", -1.0, "float64", "random", 1, "0 1; 2 3", "nowhere", 1, 1, "decomposed")


@pytest.fixture
def asked(monkeypatch):
    given = {}
    monkeypatch.setattr(sinkhorn_lab, "explore", lambda draw, shown, name, folder: given.update({name: (draw, shown)}))
    return given


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ({}, ("rows", 0.0, "sums")),
        ({"dialect": "mhc_lite"}, ("columns", 0.0, "sums")),
        ({"dialect": "deepseek_v4"}, ("rows", 1e-6, "softmax")),
        ({"dialect": "deepseek_v4", "order": "columns", "eps": 0.01}, ("columns", 0.01, "softmax")),
    ],
)
def test_rounds_are_those_of_the_dialect(changes, recipe):
    state = STATE._replace(**changes)
    logits, path = state.logits(), state.rounds(20)
    for count in (0, 1, 7, 20):
        np.testing.assert_allclose(path[count], sinkhorn_plain(logits, count, *recipe), rtol=1e-9)


def test_precision_is_that_which_was_asked_for():
    exact = STATE.rounds(20)[-1]
    assert 1e-9 < np.abs(STATE._replace(dtype="float32").rounds(20)[-1] - exact).max() < 1e-4
    assert 1e-4 < np.abs(STATE._replace(dtype="bfloat16").rounds(20)[-1] - exact).max() < 0.2


def test_temperature_stretches_the_input_and_a_seed_fixes_it():
    hot = STATE._replace(temperature=2.0).logits()
    torch.testing.assert_close(STATE.logits(), hot * 8)
    assert not torch.equal(STATE._replace(seed=2).logits(), STATE.logits())
    torch.testing.assert_close(STATE._replace(source="chosen", temperature=1.0).logits(), parse("0 1; 2 3"))


@pytest.mark.parametrize("text", ["1 2; 3", "1", "a b; c d", "", "1 2 3; 4 5 6"])
def test_what_is_no_square_matrix_is_refused_with_its_text(text):
    with pytest.raises(NotebookError, match="matrix"):
        parse(text)


@pytest.mark.parametrize("name", ["bench", "backward", "permutations", "polytope"])
@pytest.mark.parametrize("iterations", [0, 1, 100])
def test_every_picture_is_drawn_for_any_number_of_rounds(asked, name, iterations):
    getattr(sinkhorn_lab, name)(STATE)
    draw, shown = asked[name]
    state = {c.name: c.value for c in shown if not isinstance(c, Jump)}
    figure, words = draw(**state | {"iterations": iterations})
    assert figure.axes
    assert words.startswith("Random input, seed 1. ")
    assert draw(
        **state | {"iterations": iterations, "temperature": 0.02, "dtype": "float32"} if "dtype" in state else state
    )


@pytest.mark.parametrize("n", range(2, 9))
def test_every_size_is_drawn_or_refused_in_words(asked, n):
    sinkhorn_lab.bench(STATE)
    sinkhorn_lab.permutations(STATE)
    assert f"n = {n}, range" in asked["bench"][0](n=n)[1]
    words = asked["permutations"][0](n=n)[1]
    assert ("permutations; mixtures go up to n = 6" in words) is (n > 6)


def test_the_implicit_gradient_is_praised_only_where_the_rounds_converged(asked):
    sinkhorn_lab.backward(STATE)
    draw = asked["backward"][0]
    assert "Here the implicit gradient is wrong" in draw(iterations=1)[1]
    assert "Here the implicit gradient is as good as exact" in draw(iterations=100, temperature=2.0)[1]


def test_the_polytope_says_its_dimension(asked):
    sinkhorn_lab.polytope(STATE)
    draw = asked["polytope"][0]
    assert "has 4 dimensions, drawn on 2" in draw(n=3)[1]
    assert "is a segment" in draw(n=2)[1]


def test_a_trained_input_is_offered_only_where_there_is_one(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(controls, "headless", lambda: False)
    sinkhorn_lab.bench(STATE._replace(run=str(tmp_path)))
    (menu,) = (c for c in asked["bench"][1] if getattr(c, "name", "") == "source")
    assert [value for _, value in menu.options] == ["random", "chosen"]
