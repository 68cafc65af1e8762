"""From a sweep file to its cells: every configuration is built, and every error raised, before anything runs."""

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator

from mhcnb import renames, yamlfile
from mhcnb.config import RunConfig, flatten, load_config
from mhcnb.errors import ConfigError, nearest
from mhcnb.notebook.execute import check_parameters
from mhcnb.paths import outputs
from mhcnb.section import Natural, Positive, Section
from mhcnb.sweep.names import cell_names, describe
from mhcnb.training.distributed import World, share

log = logging.getLogger(__name__)
RESUME = "train.resume"


class SweepFile(Section):
    """`grid`: {dotted key, or `params` for whole files: list of values, each a plain one or a mapping}."""

    base: str | None = None
    grid: dict[str, list[Any]] = Field(default={})
    overrides: dict[str, Any] = Field(default={})
    seeds: list[Natural] = Field(default=[1])
    processes: Positive = 1  # ranks a cell
    workers: Positive = 1  # cells at a time
    devices_per_cell: Positive | None = None  # accelerators; default one a process, where there are enough for all
    timeout_s: Annotated[float, Field(gt=0)] | None = None  # after which a cell is killed
    notebook: str = "notebooks/02-train.ipynb"
    then: list[str] = Field(default=[])

    @field_validator("grid", "seeds")
    @classmethod
    def _some(cls, value: Any) -> Any:
        for key, values in value.items() if isinstance(value, dict) else [("seeds", value)]:
            if not values:
                raise ValueError(f"{key} has an empty list, which gives no cell")
        return value


class Cell(NamedTuple):
    """One point of the grid: one run, made by one notebook in the folder `out`."""

    name: str
    point: dict[str, Any]  # the grid's choice, for tables and errors
    params: Path
    overrides: dict[str, Any]
    out: Path
    processes: int
    notebook: Path
    config: RunConfig

    @property
    def digest(self) -> str:
        """Identifies the configuration."""
        return self.config.digest()

    @property
    def digests(self) -> set[str]:
        """What an attempt may say that it ran: one that went on says so in its configuration."""
        trains = [self.config.train.model_copy(update={"resume": resume}) for resume in ("never", "auto")]
        return {self.config.model_copy(update={"train": train}).digest() for train in trains}

    @property
    def parameters(self) -> dict[str, Any]:
        """What the notebook is given. A checkpoint that is there is gone on from: that belongs to the attempt, not to
        the cell, so neither `overrides` nor `config` says it."""
        overrides = self.overrides | {RESUME: "auto"}
        return dict(params=str(self.params), overrides=overrides, out=str(self.out), processes=self.processes)


class Plan(NamedTuple):
    """Cells in the order in which they start, at most `workers` at a time; `then`: the notebooks to run over all of
    them. `devices` a cell, None: see engines.local; `timeout_s`: what an attempt may take."""

    out: Path
    cells: list[Cell]
    workers: int
    then: list[Path]
    devices: int | None = None
    timeout_s: float | None = None


def plan(path: str | Path, overrides: Mapping[str, Any] | None = None, out: str | Path | None = None) -> Plan:
    """The cells of a sweep file. `overrides` change its own fields (workers=4) or all cells (train.steps=20).

    Raises ConfigError and NotebookError; writes nothing.
    """
    path = Path(path)
    sweep, common = _read(path, overrides or {})
    folder = Path(out).absolute() if out else outputs(Path("outputs") / path.stem)
    points = list(_points(sweep, common, path))
    configs = _build(points, sweep.processes)
    names = cell_names([point.shown for point in points], configs)
    notebook = _find(sweep.notebook, path, "notebook")
    then = [_find(text, path, "then") for text in sweep.then]
    cells = [
        Cell(name, shown, params, given, folder / name, sweep.processes, notebook, config)
        for name, (shown, params, given), config in zip(names, points, configs, strict=True)
    ]
    check_parameters(notebook, cells[0].parameters)
    for book in then:
        check_parameters(book, {"runs": str(folder)})
    return Plan(folder, cells, sweep.workers, then, sweep.devices_per_cell, sweep.timeout_s)


class _Point(NamedTuple):
    shown: dict[str, Any]
    params: Path
    overrides: dict[str, Any]


def _read(path: Path, overrides: Mapping[str, Any]) -> tuple[SweepFile, dict[str, Any]]:
    """The sweep's own fields, and the dotted overrides of every cell, those of the command line last."""
    values, lines = yamlfile.read_mapping(path)
    fields = SweepFile.model_fields
    own = {key: value for key, value in overrides.items() if key in fields}
    sweep = SweepFile.build(values | own, str(path), lines, own)
    common = flatten(sweep.overrides) | flatten({key: value for key, value in overrides.items() if key not in own})
    for key in common:
        first = key.split(".")[0]
        if first == "seed":
            raise ConfigError(f"override {key}: a sweep has a list of seeds, as in seeds=[1,2]")
        if key == RESUME:
            raise ConfigError(f"override {key}: the cells of a sweep always go on from what an interruption left")
        if first not in RunConfig.model_fields and first not in renames.sections(RunConfig.model_fields):
            raise ConfigError(f"override: unknown key {key}{nearest(first, [*fields, *RunConfig.model_fields])}")
    return sweep, common


def _points(sweep: SweepFile, common: dict[str, Any], path: Path) -> Iterator[_Point]:
    """The product of the grid's lists, in its order, and the seeds. Raises ConfigError for a key set twice."""
    if not sweep.base and "params" not in sweep.grid:
        raise ConfigError(f"{path}: base is missing; name a params file, as in base: params/gpt/tiny.yaml")
    for *values, seed in itertools.product(*sweep.grid.values(), sweep.seeds):
        shown = dict(zip(sweep.grid, values, strict=True)) | {"seed": seed}
        given: dict[str, Any] = {}
        for key, value in shown.items():
            part = flatten({key: value}) if key != "params" else {}
            for twice in sorted(part.keys() & (given.keys() | common.keys())):
                other = "overrides too; choose cells with --only" if twice in common else "another part of the grid"
                raise ConfigError(f"{path}: {twice} is set by the grid ({key}) and by {other}")
            given |= part
        yield _Point(shown, _find(shown.get("params", sweep.base), path, "params"), common | given)


def _find(text: Any, near: Path, key: str) -> Path:
    """A path as the working directory has it, else as the nearest folder above the sweep file does."""
    if not isinstance(text, str):
        raise ConfigError(f"{near}: {key}: {text!r} ({type(text).__name__}); expected the path of a file")
    for folder in (Path.cwd(), *near.absolute().parents):
        if (found := folder / Path(text).expanduser()).is_file():
            return found
    raise ConfigError(f"{near}: {key}: no such file: {text}; looked in {Path.cwd()} and in each folder above {near}")


def _build(points: list[_Point], processes: int) -> list[RunConfig]:
    """All configurations, or one ConfigError with every problem and the cells that have it."""
    configs, problems = [], defaultdict(list)
    with _dropped_fields_told_once():
        for point in points:
            try:
                configs.append(load_config(point.params, point.overrides))
                share(configs[-1], World(size=processes))
            except ConfigError as error:
                problems[str(error)].append(describe(point.shown))
    if problems:
        raise ConfigError("\n".join(f"{text}\n  in: {'; '.join(where)}" for text, where in problems.items()))
    return configs


@contextmanager
def _dropped_fields_told_once() -> Iterator[None]:
    """load_config says for every cell which fields a method lacks: here each text comes once, with its count."""
    told: dict[str, int] = defaultdict(int)

    def count(record: logging.LogRecord) -> bool:
        told[record.getMessage()] += 1
        return False

    sources = [logging.getLogger(name) for name in ("mhcnb.config", "mhcnb.renames")]
    for source in sources:
        source.addFilter(count)
    try:
        yield
    finally:
        for source in sources:
            source.removeFilter(count)
    for text, cells in told.items():
        log.warning("%s (in %d cell%s)", text, cells, "s" * (cells > 1))
