"""What 08-speed calls: cases of `mhcnb bench` at sizes that a notebook has time for, or the figures of a whole one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from mhcnb.bench import compile, connection, sinkhorn, step
from mhcnb.bench.gpt import Size
from mhcnb.bench.measure import Timing, held, table
from mhcnb.bench.peers import peers
from mhcnb.bench.place import Place, place
from mhcnb.errors import NotebookError
from mhcnb.notebook.parameters import checked
from mhcnb.paths import find, outputs

FIGURES = "outputs/08-speed"
METHODS = ("residual", "hc", "mhc", "mhc_lite")
Positive = Annotated[int, Field(gt=0)]


class Lab(NamedTuple):
    """What is timed: `size` where nothing varies, `axes` what varies, in `rounds` interleaved rounds. `bench`: a file
    of figures to show in place of timing the cases; `figures`: the folder for pictures."""

    size: Size
    axes: Mapping[str, Sequence[int]]
    rounds: int
    where: Place
    compiles: bool
    bench: Path | None
    figures: Path


@checked
def lab(
    width: Positive,
    layers: Positive,
    batch: Positive,
    tokens: Positive,
    vocabulary: Positive,
    rounds: Annotated[int, Field(ge=2)],
    streams: str,
    widths: str,
    lengths: str,
    depths: str,
    peer: str,
    device: Annotated[str, Field(min_length=1)],
    compiles: bool,
    figures: str,
) -> Lab:
    """What the notebook's parameters ask for. Raises NotebookError, and ConfigError for a peer or a device that is not
    there."""
    given = {"n": ("streams", streams), "C": ("widths", widths), "T": ("lengths", lengths), "depth": ("depths", depths)}
    axes = {axis: _numbers(name, text) for axis, (name, text) in given.items()}
    where = place(device, peers([f"mhc-lite={peer}"] if peer else []))
    print(f"On {where.words()}; {rounds} interleaved rounds.")
    size = Size(width, layers, max(1, width // 64), batch, tokens, vocabulary)
    return Lab(size, axes, rounds, where, compiles, find(figures) if figures else None, outputs(FIGURES))


def _numbers(name: str, text: str) -> list[int]:
    """`2 4 8` -> [2, 4, 8]."""
    parts = text.split()
    if not all(part.isdecimal() and int(part) for part in parts):
        raise NotebookError(
            f"parameter {name} = {text!r}; expected whole numbers above 0 between spaces, as in '2 4 8'"
        )
    return [int(part) for part in parts]


def timed(lab: Lab) -> list[Timing]:
    """The cases step, connection and sinkhorn, and compile where it was asked for; or those in the file of a bench."""
    if lab.bench:
        return _read(lab.bench)
    size, where, rounds = lab.size, lab.where, lab.rounds
    shape = connection.Streams(size.batch, size.tokens, size.width)
    timings = step.at(size, where, rounds) + connection.at(shape, where, rounds)
    timings += sinkhorn.at(size.batch * size.tokens, where, rounds)
    return timings + (compile.compile(where, 1) if lab.compiles else [])


def _read(file: Path) -> list[Timing]:
    try:
        return [Timing(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise NotebookError(f"figures: {file} is not what `mhcnb bench --json` writes: {error}") from error


def rows(timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """As plots.speed takes them."""
    return [t._asdict() for t in timings]


def words(timings: list[Timing]) -> list[str]:
    """The table, then how they stand to peers and to the floor."""
    return [table(timings), *held(timings)]
