"""Explorers over a run with two checkpoints, against the recorded maps."""

from types import SimpleNamespace

import numpy as np
import pytest

from mhcnb.analysis.record import record
from mhcnb.errors import NotebookError
from mhcnb.notebook import controls, explore, recorded, views
from mhcnb.notebook.controls import Jump
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model
from mhcnb.training.loop import train_steps


@pytest.fixture
def run(small, tmp_path):
    """hc, saved at steps 2 and 6, its maps recorded every other step."""
    given = {"connection.name": "hc", "model.layers": 2, "log.maps_every": 2, "train.lr": 0.05, "train.eval_every": 6}
    config = small(**given)
    for info in train_steps(config, tmp_path / "runs" / "hc"):
        if info.step == 1:
            Run(tmp_path / "runs" / "hc").request("checkpoint")
    return Run(tmp_path / "runs" / "hc")


@pytest.fixture
def asked(monkeypatch):
    """What `explore` was given."""
    given = []
    monkeypatch.setattr(explore, "explore", lambda *arguments: given.append(arguments))
    return given


def test_a_matrix_is_the_product_of_the_recorded_maps_later_ones_on_the_left(run):
    assert recorded.steps(run.path) == [2, 6]
    model, config = load_model(run.path)
    expected = [r.maps.res.double().flatten(end_dim=-3).numpy() for r in record(model, recorded.window(config))]
    found = recorded.records(run.path, 6)
    P = expected[3] @ expected[2] @ expected[1]
    np.testing.assert_allclose(recorded.matrix(found, 2, 4, 5), P[4])
    np.testing.assert_allclose(recorded.matrix(found, 2, 4, 0), P.mean(0))
    np.testing.assert_allclose(recorded.matrix(found, 3, 3, 1), expected[2][0])
    assert np.abs(P[4] - expected[1][4] @ expected[2][4] @ expected[3][4]).max() > 1e-6  # order matters


def test_products_end_where_a_stack_does(run):
    found = recorded.records(run.path, 6)
    moved = (*found[:2], *(r._replace(site=r.site.replace("main", "other")) for r in found[2:]))
    with pytest.raises(NotebookError, match=r"several stacks or calls: main .*, other"):
        recorded.matrices(moved, 1, 3)


def test_two_checkpoints_stand_side_by_side_and_the_words_are_their_sums(run, asked):
    explore.matrices(views.stability(str(run.path), 1))
    draw, shown, _, folder = asked[0]
    assert folder == run.path / "figures"
    state = {c.name: c.value for c in shown if not isinstance(c, Jump)}
    assert state == {"a": (run.path, 6), "b": (run.path, 2), "first": 1, "last": 1, "token": 0}
    figure, words = draw(**state | {"last": 4, "token": 3})
    P = recorded.matrix(recorded.records(run.path, 6), 1, 4, 3)
    rows, columns = np.abs(P.sum(1)).max(), np.abs(P.sum(0)).max()
    assert f"A, hc, step 6, main.0.attn to main.1.mlp: gain forward {rows:.4g}, backward {columns:.4g}." in words
    assert "B, hc, step 2, main.0.attn to main.1.mlp" in words
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert images[0].norm is images[1].norm


def test_the_worst_token_is_that_of_all_whose_sums_are_furthest_from_one(run, asked):
    explore.matrices(views.stability(str(run.path), 1))
    worst, whole = (c for c in asked[0][1] if isinstance(c, Jump))
    assert whole.to(a=(run.path, 6), first=2, last=3) == {"first": 1, "last": 4}
    found = recorded.records(run.path, 6)
    tokens = len(recorded.matrices(found, 1, 4))
    each = [recorded.matrix(found, 1, 4, t) for t in range(1, tokens + 1)]
    away = [max(np.abs(P.sum(0) - 1).max(), np.abs(P.sum(1) - 1).max()) for P in each]
    assert worst.to(a=(run.path, 6), b=None, first=1, last=4, token=0) == {"token": int(np.argmax(away)) + 1}


def test_entry_to_exit_is_one_call_of_the_stack_in_which_the_first_site_lies(run, asked, monkeypatch):
    """As of a recurrent model: L, L again, then H, two sites each."""
    explore.matrices(views.stability(str(run.path), 1))
    one = recorded.records(run.path, 6)[0]
    calls = [
        one._replace(site=f"{s}.0.{b}", call=c) for s, c in (("L", 0), ("L", 1), ("H", 0)) for b in ("attn", "mlp")
    ]
    monkeypatch.setattr(recorded, "records", lambda *_: calls)
    whole = [c for c in asked[0][1] if isinstance(c, Jump)][1]
    ends = [whole.to(a=(run.path, 6), first=k, last=6) for k in (1, 2, 3, 6, 9)]
    assert [(e["first"], e["last"]) for e in ends] == [(1, 2), (1, 2), (3, 4), (5, 6), (5, 6)]


def test_a_product_at_the_start_goes_as_far_as_one_stack_does_in_both_runs(run, asked, monkeypatch):
    one = recorded.records(run.path, 6)[0]

    def sites(*spans):
        return tuple(one._replace(site=f"{stack}.{k}.mlp", call=c) for stack, c, n in spans for k in range(n))

    recurrent, deeper = sites(("L", 0, 2), ("L", 1, 2), ("H", 0, 1)), sites(("L", 0, 3), ("H", 0, 3))
    for at_6, at_2, end in ((recurrent, deeper, 2), (sites(("main", 0, 4)), sites(("main", 0, 7)), 7)):
        monkeypatch.setattr(recorded, "records", lambda _, step, a=at_6, b=at_2: a if step == 6 else b)
        explore.matrices(views.Laboratory([SimpleNamespace(figures=run.figures)], run.figures), last=1000)
        assert next(c.value for c in asked[-1][1] if getattr(c, "name", "") == "last") == end


def test_gains_are_those_recorded_at_the_nearest_update(run, asked):
    explore.gains(views.comparison(str(run.path), 1))
    draw, shown, *_ = asked[0]
    assert [(c.low, c.high, c.step) for c in shown if c.name == "step"] == [(0, 6, 2)]
    record = next(r for r in run.results("maps") if r["step"] == 4)
    _, words = draw(setting=shown[0].value, step=5, panel=("suffix", "backward"))
    top = max(record["composite"]["backward"].values())
    assert "Update 4" in words
    assert f"hc {top:.4g}" in words


def test_without_maps_it_says_so(capsys, tmp_path):
    explore.matrices(views.Laboratory([], tmp_path))
    assert "No run with maps" in capsys.readouterr().out


def test_every_touch_of_a_control_is_drawn_and_said(run, monkeypatch):
    monkeypatch.setattr(controls, "headless", lambda: False)
    made, Explorer = [], controls.Explorer
    monkeypatch.setattr(controls, "Explorer", lambda *a: made.append(Explorer(*a)) or made[-1])
    explore.matrices(views.stability(str(run.path), 1))
    pictures = {made[0].picture.value}
    for token in range(1, 6):
        made[0].widgets["token"].value = token
        assert f"Token {token}." in made[0].words.value
        pictures.add(made[0].picture.value)
    assert len(pictures) == 6
