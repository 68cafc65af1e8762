"""The board's picture: legible in colour and in grey, every tile in its place."""

import colorsys

import pandas
import pytest
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.colors import to_rgb

from mhcnb.plots.board import COLOURS, DETAILED, plot_board
from mhcnb.sweep.state import LETTERS


def frame(cells):
    """Of {(row, method): state}."""
    rows = [(row, method, state, LETTERS[state], f"step {k} of 9\nloss {k}.5") for k, ((row, method), state) in cells]
    return pandas.DataFrame(rows, columns=["row", "method", "state", "letter", "text"])


def numbered(cells):
    return frame(list(enumerate(cells.items())))


def luminance(colour):
    """Relative luminance of WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    dark, light = sorted(map(luminance, (a, b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("state", LETTERS)
def test_a_letter_is_legible_on_its_tile_in_colour_and_in_grey(state):
    fill, ink = COLOURS[state]
    assert contrast(fill, ink) >= 4.5
    grey = [str(sum(w * c for w, c in zip((0.299, 0.587, 0.114), to_rgb(x), strict=True))) for x in (fill, ink)]
    assert contrast(*grey) >= 4.5  # as a printer without colours shows them


def test_what_went_wrong_stands_out_from_what_is_well():
    bright = {state: colorsys.rgb_to_hsv(*to_rgb(fill))[1] for state, (fill, _) in COLOURS.items()}
    assert min(bright[state] for state in ("failed", "died", "timeout")) > 2 * max(
        bright[state] for state in ("planned", "skipped", "done")
    )


def drawn(figure):
    """{state's colour: tiles}, letters, texts."""
    ax = figure.axes[0]
    tiles = {c.get_facecolor()[0][:3].tobytes(): c.get_paths() for c in ax.collections if type(c) is PatchCollection}
    letters = sum(len(c.get_offsets()) for c in ax.collections if type(c) is PathCollection)
    return tiles, letters, [text.get_text() for text in ax.texts]


def test_each_cell_has_a_tile_a_letter_and_its_words_in_its_row_and_column():
    cells = {(f"tiny s{seed}", method): state for seed, method, state in (
        (1, "residual", "done"), (1, "mhc", "running"), (2, "residual", "failed"), (2, "mhc", "planned"),
    )}  # fmt: skip
    figure = plot_board(numbered(cells))
    tiles, letters, texts = drawn(figure)
    assert len(tiles) == letters == 4
    ax = figure.axes[0]
    at = {text.get_text(): text.get_position() for text in ax.texts}
    for k, (row, method) in enumerate(cells):
        x, y = at[f"step {k} of 9\nloss {k}.5"]
        assert abs(y - at[row][1]) < 0.1
        assert abs(x - at[method][0]) < 0.5
    assert {"done 1", "running 1", "failed 1", "planned 1"} <= set(texts)
    assert "died 0" not in texts


@pytest.mark.parametrize("count", [DETAILED, DETAILED + 4, 1000])
def test_all_is_inside_and_nothing_lies_on_anything_else(count):
    states = list(LETTERS)
    cells = {
        (f"small s{k // 4} lr=1e-{k // 4}", method): states[k % 8]
        for k in range(0, count, 4)
        for method in ("residual", "hc", "mhc", "mhc_lite")
    }
    figure = plot_board(numbered(cells))
    tiles, letters, texts = drawn(figure)
    assert letters == len(cells)
    width, height = figure.get_size_inches()
    boxes = [path.get_extents() for paths in tiles.values() for path in paths]
    assert len({(round(b.x0, 3), round(b.y0, 3)) for b in boxes}) == len(cells)
    assert max(b.x1 for b in boxes) <= width
    assert max(b.y1 for b in boxes) <= height
    assert any(text.startswith("step") for text in texts) == (len(cells) <= DETAILED)
    labels = [text.get_window_extent() for text in figure.axes[0].texts[:60]]  # each takes a while
    inside = figure.bbox
    assert all(inside.x0 <= b.x0 and b.x1 <= inside.x1 and inside.y0 <= b.y0 and b.y1 <= inside.y1 for b in labels)


def test_without_cells_it_says_so():
    assert [text.get_text() for text in plot_board(numbered({})).axes[0].texts] == ["no cells"]
