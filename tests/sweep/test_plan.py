"""What a sweep file means, and that what is wrong with it is said before anything runs."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhcnb.config import load_config
from mhcnb.errors import ConfigError
from mhcnb.run import NAME
from mhcnb.sweep.plan import plan
from mhcnb.sweep.run import run_sweep

METHODS = ("residual", "hc", "mhc", "mhc_lite")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    methods=st.lists(st.sampled_from(METHODS), min_size=1, unique=True),
    rates=st.lists(st.sampled_from([1e-3, 2e-3, 0.5]), max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_cells_are_the_product_of_grid_and_seeds(project, sweep_file, methods, rates, seeds):
    rate = f", train.lr: {rates}" if rates else ""
    path = sweep_file(f"seeds: {seeds}", grid=f"{{connection.name: {methods}{rate}}}".replace("'", ""))
    cells = plan(path, {"train.steps": 7}).cells
    expected = []
    for method, lr, seed in itertools.product(methods, rates or [1e-3], seeds):
        overrides = {"connection.name": method, "train.lr": lr, "seed": seed, "train.steps": 7}
        expected.append(load_config(project / "params/tiny.yaml", overrides))
    assert [cell.config for cell in cells] == expected
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    assert all(NAME.fullmatch(name) for name in names)
    assert all(load_config(cell.params, cell.overrides) == cell.config for cell in cells)  # what the notebook does


def test_names_say_method_preset_seed_and_further_keys(sweep_file):
    def names(grid: str) -> list[str]:
        return [cell.name for cell in plan(sweep_file(grid=grid)).cells]

    assert names("{connection.name: [hc], train.lr: [1e-3, 2e-3]}") == [
        "hc-tiny-s1-train.lr=0.001",
        "hc-tiny-s1-train.lr=0.002",
    ]
    # of mappings only what tells cells apart: residual and hc do by their names, hc and hc by their dialects
    residual, hc, lite = "{name: residual}", "{name: hc}", "{name: hc, dialect: mhc_lite}"
    assert names(f"{{connection: [{residual}, {lite}]}}") == ["residual-tiny-s1", "hc-tiny-s1"]
    assert names(f"{{connection: [{hc}, {lite}]}}") == ["hc-tiny-s1", "hc-tiny-s1-connection.dialect=mhc_lite"]
    assert names("{data.root: [a/b, 'c d']}") == ["mhc-tiny-s1-data.root=a_b", "mhc-tiny-s1-data.root=c_d"]


def test_params_files_are_an_axis_too(project, sweep_file):
    text = (project / "params/tiny.yaml").read_text()
    (project / "params/wide.yaml").write_text(text.replace("tiny", "wide").replace("width: 32", "width: 64"))
    cells = plan(sweep_file(grid="{params: [params/tiny.yaml, params/wide.yaml]}")).cells
    assert [(cell.name, cell.config.model.width) for cell in cells] == [("mhc-tiny-s1", 32), ("mhc-wide-s1", 64)]


def test_paths_are_found_above_the_sweep_file(sweep_file, tmp_path_factory, monkeypatch):
    path = sweep_file()
    here = [(cell.params, cell.notebook) for cell in plan(path).cells]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert [(cell.params, cell.notebook) for cell in plan(path).cells] == here


def test_no_grid_is_one_cell(project):
    path = project / "one.yaml"
    path.write_text("base: params/tiny.yaml")
    assert [cell.name for cell in plan(path).cells] == ["mhc-tiny-s1"]


def test_overrides_of_the_sweep_and_of_all_cells(sweep_file):
    path = sweep_file("overrides: {train.steps: 9, train: {lr: 0.5}}\nworkers: 3")
    planned = plan(path, {"workers": 5, "seeds": [3], "train.steps": 11, "processes": 2})
    assert planned.workers == 5
    for cell in planned.cells:
        assert (cell.config.train.steps, cell.config.train.lr, cell.config.seed, cell.processes) == (11, 0.5, 3, 2)


@pytest.mark.parametrize(
    ("grid", "text", "overrides", "expected"),
    [
        ("{}", "worker: 2", {}, r"pair.yaml:3: unknown key worker; did you mean workers"),
        ("{}", "workers: two", {}, r"pair.yaml:3: workers = 'two' \(str\); expected a valid integer"),
        ("{}", "seeds: [1, -1]", {}, r"pair.yaml:3: seeds.1 = -1"),
        ("{connection.name: mhc}", "", {}, r"pair.yaml:2: grid.connection.name = 'mhc' \(str\); expected a valid list"),
        ("{train.lr: []}", "", {}, r"pair.yaml:2: grid: train.lr has an empty list"),
        ("{}", "", {"workers": 0}, r"override: workers = 0"),
        ("{}", "", {"worker": 2}, r"override: unknown key worker; did you mean workers"),
        ("{}", "", {"trian.steps": 2}, r"override: unknown key trian.steps; did you mean train"),
        ("{}", "", {"seed": 2}, r"override seed: .*seeds=\[1,2\]"),
        ("{train.lr: [1e-3]}", "", {"train.lr": 1.0}, r"train.lr is set by the grid .* --only"),
        ("{train.lr: [1e-3], train: [{lr: 1e-3}]}", "", {}, r"train.lr is set by .* another part of the grid"),
        ("{connection.name: [mhcc]}", "", {}, r"'mhcc'; did you mean mhc\?(.|\n)*in: connection.name=mhcc, seed=1"),
        ("{connection: [{name: residual, dialect: mhc_lite}]}", "", {}, r"unknown key connection.dialect"),
        ("{}", "processes: 3", {}, r"cannot be shared by 3 processes"),
        ("{}", "", {"base": "nowhere.yaml"}, r"params: no such file: nowhere.yaml; looked in"),
        ("{}", "notebook: nowhere.ipynb", {}, r"notebook: no such file: nowhere.ipynb"),
        ("{params: [3]}", "", {}, r"params: 3 \(int\)"),
        ("{data.root: [" + "a" * 99 + "]}", "", {}, "is no name for a run"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(project, sweep_file, grid, text, overrides, expected):
    path, before = sweep_file(text, grid=grid), set(project.rglob("*"))
    with pytest.raises(ConfigError, match=expected):
        run_sweep(path, overrides, project / "out")
    assert set(project.rglob("*")) == before


def test_every_problem_comes_once_with_all_its_cells(sweep_file):
    with pytest.raises(ConfigError) as error:
        plan(sweep_file("seeds: [1, 2]", grid="{train.lr: [1e-3, -1.0], connection.name: [hc, mhcc]}"))
    text = str(error.value)
    assert text.count("'mhcc'") == 1
    assert text.count("train.lr = -1.0") == 1
    assert text.count("seed=") == 6  # of 8: hc at 1e-3 is sound


def test_fields_that_a_method_lacks_are_told_once(project, sweep_file, caplog):
    text = (project / "params/tiny.yaml").read_text()
    (project / "params/tiny.yaml").write_text(text.replace("{name: mhc}", "{name: mhc, iterations: 3}"))
    plan(sweep_file("seeds: [1, 2]", grid="{connection.name: [residual, hc, mhc]}"))
    told = [record.getMessage() for record in caplog.records if "iterations" in record.getMessage()]
    assert told == ["connection.iterations no longer applies and is dropped (in 4 cells)"]


def test_dry_run_prints_the_plan_and_writes_nothing(project, sweep_file, capsys):
    path, before = sweep_file("then: [notebooks/03-overview.ipynb]"), set(project.rglob("*"))
    assert run_sweep(path, dry_run=True, only="hc-*") == 0
    assert set(project.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"residual-tiny-s1 +skipped +tiny.yaml: connection.name=residual, seed=1$", lines[0])
    assert re.match(r"hc-tiny-s1 +planned ", lines[1])
    assert "2 cells" in lines[2]
    assert lines[3] == "then: 03-overview.ipynb"


def test_only_that_matches_nothing(sweep_file):
    with pytest.raises(ConfigError, match=r"'hc-tiny' matches no cell; did you mean hc-tiny-s1\?"):
        run_sweep(sweep_file(), only="hc-tiny")


@pytest.mark.parametrize("name", ["smoke", "demo", "mhc-single"])
def test_shipped_sweeps(name):
    cells = plan(Path(__file__).parents[2] / "params" / "sweeps" / f"{name}.yaml").cells
    assert {cell.config.connection.name for cell in cells} == set(METHODS)
    assert len(cells) == (12 if name == "mhc-single" else 4)
    if name == "mhc-single":
        dialects = {getattr(cell.config.connection, "dialect", "mhc_lite") for cell in cells}
        assert (dialects, {cell.config.train.steps for cell in cells}) == ({"mhc_lite"}, {10001})
