"""Controls as a person and a screen reader meet them, in the kernel's half."""

import ipywidgets
import numpy as np
import pytest

from mhcnb.errors import NotebookError
from mhcnb.notebook import controls
from mhcnb.notebook.controls import Explorer, Jump, Menu, Slider, Text, explore
from mhcnb.plots.heatmaps import plot_matrix

CONTROLS = [
    Slider("n", "streams n", 3, 2, 8, help="how many"),
    Slider("heat", "temperature", 0.5, -2, 1, log=True),
    Menu("side", "side", "rows", [("rows", "rows"), ("columns", "columns")]),
    Text("name", "name", "x"),
    Jump("Largest", lambda **now: {"n": 8, "name": f"{now['name']}!"}, "as many as there are"),
]
STATE = {"n": 3, "heat": 0.5, "side": "rows", "name": "x"}


def draw(n, heat, side, name):
    if name == "bad":
        raise NotebookError("no such name")
    if name == "worse":
        raise ZeroDivisionError("a fault")
    return plot_matrix(np.eye(n)), f"{name}: {n} streams at {heat:g}, {side}"


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kwargs: shown.append((data, kwargs)))
    return shown


@pytest.fixture
def explorer():
    return Explorer(draw, CONTROLS, dict(STATE))


def widgets(box):
    """All of them, in the order of the page."""
    for child in getattr(box, "children", ()):
        yield child
        yield from widgets(child)


@pytest.mark.parametrize("alone", [True, False])
def test_picture_and_words_are_the_same_with_and_without_controls(displayed, monkeypatch, tmp_path, alone):
    monkeypatch.setattr(controls, "headless", lambda: alone)
    explore(draw, CONTROLS, "it", tmp_path)
    (data, kwargs) = displayed[0]
    assert data["text/plain"] == "x: 3 streams at 0.5, rows"
    assert len(data["image/png"]) > 1000
    assert ("application/vnd.jupyter.widget-view+json" in data) is not alone
    assert kwargs["raw"]
    assert (tmp_path / "it.png").is_file()


def test_every_control_has_a_name_of_its_own_and_every_slider_a_field(monkeypatch):
    linked = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: linked.append(ends))
    explorer = Explorer(draw, CONTROLS, dict(STATE))
    found = list(widgets(explorer.box))
    sliders = [w for w in found if isinstance(w, ipywidgets.IntSlider | ipywidgets.FloatLogSlider)]
    fields = [w for w in found if isinstance(w, ipywidgets.BoundedIntText | ipywidgets.BoundedFloatText)]
    assert [f.description for f in fields] == ["streams n", "temperature"]
    assert [s.continuous_update for s in sliders] == [False, False]
    links = (
        {(id(w.source[0]), id(w.target[0])) for w in ipywidgets.Widget._instances.values() if hasattr(w, "target")}
        if hasattr(ipywidgets.Widget, "_instances")
        else None
    )
    assert links is None or {(id(s), id(f)) for s, f in zip(sliders, fields, strict=True)} <= links
    assert linked == [((s, "value"), (f, "value")) for s, f in zip(sliders, fields, strict=True)]
    named = [w for w in found if isinstance(w, ipywidgets.Dropdown | ipywidgets.Text | ipywidgets.Button)]
    assert [w.description for w in named] == ["side", "name", "Largest"]
    rows = [w for w in found if isinstance(w, ipywidgets.HBox)]
    assert all(row.layout.flex_flow == "row wrap" for row in rows)


def test_a_change_draws_anew_and_says_the_new_result(explorer):
    explorer.redraw()
    before = explorer.picture.value
    explorer.widgets["n"].value = 5
    assert "x: 5 streams at 0.5, rows" in explorer.words.value
    assert 'role="status"' in explorer.words.value
    assert 'alt="x: 5 streams at 0.5, rows"' in explorer.picture.value
    assert explorer.picture.value != before


@pytest.mark.parametrize("length", [3, 81])
def test_a_line_of_text_is_shown_whole(length):
    (row,) = Explorer(draw, [Text("text", "puzzle", "." * length)], {}).box.children[0].children
    assert int(row.layout.width.removesuffix("ch")) >= length + len("puzzle")
    assert row.layout.max_width == "100%"


def test_a_button_sets_several_values_and_draws_once(explorer):
    drawn = []
    explorer.draw = lambda **state: drawn.append(dict(state)) or draw(**state)
    next(w for w in widgets(explorer.box) if isinstance(w, ipywidgets.Button)).click()
    assert drawn == [STATE | {"n": 8, "name": "x!"}]
    assert explorer.widgets["n"].value == 8


@pytest.mark.parametrize(("name", "words"), [("bad", "no such name"), ("worse", "ZeroDivisionError: a fault")])
def test_an_error_is_said_in_place_and_the_next_change_draws_again(explorer, name, words):
    explorer.widgets["name"].value = name
    assert 'role="alert"' in explorer.words.value
    assert words in explorer.words.value
    explorer.widgets["name"].value = "<good>"
    assert "&lt;good&gt;: 3 streams" in explorer.words.value
