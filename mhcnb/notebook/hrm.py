"""What 07-hrm looks at: runs of models that answer in steps, each given the same puzzles of validation data."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas
import torch
from pydantic import Field

from mhcnb import registry
from mhcnb.analysis import comparable, compare, reasoning
from mhcnb.analysis.compare import Member
from mhcnb.analysis.gains import Frame
from mhcnb.analysis.reasoning import Reasoning, reason
from mhcnb.config import RunConfig, load_config
from mhcnb.errors import MhcnbError, NotebookError
from mhcnb.models.base import Batch
from mhcnb.notebook.monitor import still
from mhcnb.notebook.parameters import checked
from mhcnb.notebook.start import start
from mhcnb.paths import find
from mhcnb.run import find_runs
from mhcnb.training.checkpoint import load_model

AT_ONCE = 128  # puzzles in a batch
Count = Annotated[int, Field(ge=1)]
From0 = Annotated[int, Field(ge=0)]


class Page(NamedTuple):
    """What the notebook is about. `members` is empty until a run is trained, as `config` says. Puzzles count from 1;
    steps 0: as many as each model makes; puzzle 0: the liveliest; step 0: the last."""

    members: list[Member]
    folder: Path
    config: RunConfig
    puzzles: int
    steps: int
    puzzle: int
    step: int
    own: str


class Player(NamedTuple):
    """A run and its model, what it made of the puzzles, and its label: the method, or the run where several have it."""

    label: str
    member: Member
    model: Any
    result: Reasoning


class Seen(NamedTuple):
    """The players, who all had the same puzzles, and where to begin looking at them."""

    players: list[Player]
    page: Page

    @property
    def folder(self) -> Path:
        """The run, or the folder of all."""
        return self.page.folder

    @property
    def figures(self) -> Path:
        """Where the figures go."""
        return self.folder / "figures"

    @property
    def row(self) -> int:
        """The chosen puzzle, from 0; that of which the first run's answer changes most often, where none is chosen."""
        r = self.players[0].result
        changes = (r.answers[1:] != r.answers[:-1]).sum((0, 2))
        return min(self.page.puzzle, len(r.givens)) - 1 if self.page.puzzle else int(changes.argmax())

    @property
    def steps(self) -> Frame:
        """`reasoning.by_step` of all players."""
        return self._joined(reasoning.by_step)

    @property
    def blanks(self) -> Frame:
        """`reasoning.by_blanks` of all players."""
        return self._joined(reasoning.by_blanks)

    @property
    def halting(self) -> Frame:
        """`reasoning.halting` of all players."""
        return self._joined(reasoning.halting)

    @property
    def distances(self) -> Frame:
        """`reasoning.distances` of all players."""
        return self._joined(reasoning.distances)

    @property
    def solved(self) -> Frame:
        """A row a puzzle: its blanks, and for each player, by label, whether it is solved after the last step."""
        columns = {p.label: p.result.solved[-1].numpy() for p in self.players}
        return pandas.DataFrame({"blanks": self.players[0].result.blanks.sum(1).numpy(), **columns})

    def _joined(self, of: Callable[[Reasoning], Frame]) -> Frame:
        frames = (of(p.result).assign(run=p.member.run.name, method=p.member.method) for p in self.players)
        return pandas.concat(frames, ignore_index=True)


@checked
def page(
    runs: str,
    params: Annotated[str, Field(min_length=1)],
    overrides: dict[str, Any],
    puzzles: Count = 200,
    steps: From0 = 0,
    puzzle: From0 = 0,
    step: From0 = 0,
    own: str = "",
) -> Page:
    """Says which runs it will be: those at or below the folder `runs`, or where that is empty one that is trained with
    params and overrides. Raises NotebookError, ConfigError and DataError before anything is trained."""
    members = _members(runs) if runs else []
    config = members[0].config if members else load_config(find(params), overrides)
    if not members:
        _require_steps(config, params)
        many = f"{config.train.epochs} epochs" if config.train.epochs else f"{config.train.steps} updates"
        print(f"{many} of {params} will be made; connection {config.connection.name}")
    if puzzle > puzzles:
        raise NotebookError(f"parameter puzzle = {puzzle}; expected 1 to {puzzles}, the parameter puzzles, or 0")
    return Page(members, find(runs), config, puzzles, steps, puzzle, step, own)


def trained(page: Page) -> Page:
    """With runs: trains one here, where none was given, waits, and shows its losses."""
    if page.members:
        return page
    run = start(page.config, background=False).run
    still(run)
    members, _ = compare.read([run])
    return page._replace(members=members, folder=run.path)


def think(page: Page) -> Seen:
    """Gives the first `page.puzzles` puzzles of the first run's validation data to every run, and says in words what is
    left out and what does not compare. Raises NotebookError where nothing is left."""
    if not page.members:
        raise NotebookError("no run yet: run the cell that trains, first")
    for caution in comparable.cautions(page.members):
        print(caution)
    batches, players = list(_puzzles(page)), []
    for member in page.members:
        try:
            players.append(_player(page, member, batches))
        except (MhcnbError, OSError) as error:
            print(f"{member.run.name} is left out: {error}")
    if not players:
        raise NotebookError("no run could be given puzzles; what is wrong is said above")
    r = players[0].result
    print(f"{len(r.givens)} puzzles of validation data, {span(r)} blanks each; runs: {_listed(players)}")
    return Seen(players, page)


def _members(runs: str) -> list[Member]:
    """The readable runs of models that make steps; prints why others are left out. Raises NotebookError without any."""
    folder = find(runs)
    members, remarks = compare.read(find_runs(folder) if folder.is_dir() else [])
    fit = [m for m in members if m.config.objective.name == "act"]
    remarks += [f"{m.run.name} is left out: {_no_steps(m.config)}" for m in members if m not in fit]
    print("\n".join([f"{folder}: {len(fit)} runs of models that answer in steps", *remarks]))
    if not fit:
        raise NotebookError(
            f"parameter runs = {runs!r}: no run of an hrm there; `mhcnb train params/hrm/tiny4x4.yaml --out {runs}/one`"
            " makes one, and with runs = '' this notebook does"
        )
    return fit


def _require_steps(config: RunConfig, params: str) -> None:
    if config.objective.name != "act":
        raise NotebookError(f"parameter params = {params!r}: {_no_steps(config)}; take one of params/hrm")


def _no_steps(config: RunConfig) -> str:
    return f"its {config.model.name} with the objective {config.objective.name} does not answer in steps"


def _puzzles(page: Page) -> Iterator[Batch]:
    """The first puzzles of the validation split, the last batch padded where there are fewer."""
    source = registry.load("data", page.config.data.name)(page.config)
    for first in range(0, page.puzzles, AT_ONCE):
        yield source.evaluation_batch("val", first, min(AT_ONCE, page.puzzles - first), page.puzzles)


def _player(page: Page, member: Member, batches: list[Batch]) -> Player:
    model, config = load_model(member.run.path)
    sizes: Any = config.model
    cells = batches[0]["inputs"].shape[1]
    if sizes.seq_len != cells:
        raise NotebookError(f"its puzzles have {sizes.seq_len} cells, those of {page.members[0].run.name} {cells}")
    place = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    result = reason(model.to(place), batches, page.steps or None)
    alone = sum(m.method == member.method for m in page.members) == 1
    return Player(member.method if alone else member.run.name, member, model, result)


def span(r: Reasoning) -> str:
    """`6 to 10`: the fewest and the most blanks of its puzzles."""
    counts = r.blanks.sum(1)
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _listed(players: list[Player]) -> str:
    return ", ".join(f"{p.label} ({len(p.result.answers)} steps)" for p in players)
