"""What 06-rlm shows beside its words: requirements, tables of names and of healthy ranges, and one run of a language
model, given or trained there, from its losses to what it writes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from mhcnb import renames
from mhcnb.analysis import healthy
from mhcnb.analysis.gains import mean_matrices
from mhcnb.config import RunConfig, load_config
from mhcnb.errors import DataError, NotebookError
from mhcnb.notebook import prompt as box
from mhcnb.notebook import recorded
from mhcnb.notebook.monitor import describe, still
from mhcnb.notebook.parameters import checked
from mhcnb.notebook.plan import plan
from mhcnb.notebook.show import show
from mhcnb.notebook.start import start
from mhcnb.paths import find
from mhcnb.plots.heatmaps import plot_heatmaps, say_heatmaps
from mhcnb.run import Run
from mhcnb.training.checkpoint import newest_sound

Text = Annotated[str, Field(min_length=1)]


class Page(NamedTuple):
    """What the notebook is about. `run` is None until it is trained, as `config` says."""

    run: Run | None
    config: RunConfig
    sizes: Path
    layer: int
    prompt: str
    tokens: int
    temperature: float


@checked
def page(
    run: str,
    params: Text,
    overrides: dict[str, Any],
    sizes: Text,
    layer: Annotated[int, Field(ge=0)],
    prompt: Text,
    tokens: box.Tokens,
    temperature: box.Temperature,
) -> Page:
    """Says which run it will be: `run`, or where that is empty one that is trained with params and overrides. Raises
    NotebookError, ConfigError and RunError before anything is trained."""
    given = Run.open(find(run)) if run else None
    config = given.config if given else load_config(find(params), overrides)
    layers = getattr(config.model, "layers", 1)
    if layer >= layers:
        raise NotebookError(f"parameter layer = {layer}; the model has layers 0 to {layers - 1}")
    say = describe(given) if given else f"{config.train.steps} updates of {params} will be made"
    print(f"{say}; connection {config.connection.name}")
    return Page(given, config, find(sizes), layer, prompt, tokens, temperature)


def needs(page: Page) -> None:
    """Prints what each size needs, by arithmetic."""
    print(plan(page.sizes, measured=False))


def names() -> None:
    """Displays the names of the public guide, each beside the kit's."""
    _table(("there", "here", ""), renames.rows("rlm"))


def ranges(page: Page) -> None:
    """Displays what is worth watching, and where it is healthy."""
    _table(("name", "what it is", "healthy"), healthy.ranges(page.config.log))


def trained(page: Page) -> Page:
    """With a run: trains it here, where none was given, and waits. Shows its losses."""
    run = page.run or start(page.config, background=False).run
    if run.results("train"):
        still(run)
    else:
        print(f"{run.name} has no losses: it was not trained here")
    return page._replace(run=run)


def maps(page: Page) -> None:
    """Shows the mean res of one layer over a window of validation data, and saves the figure."""
    run = _run(page)
    checkpoint, _ = newest_sound(run)
    try:
        matrices = mean_matrices(recorded.records(run.path, int(checkpoint.name.removeprefix("step-"))))
    except DataError as error:
        print(f"{run.name}: no maps: {error}")
        return
    some = {site: P for site, P in matrices.items() if site.startswith(f"main.{page.layer}.")}
    title = f"{page.config.connection.name}, mean res of layer {page.layer}"
    show(plot_heatmaps(some, title), say_heatmaps(some, run.name), run.figures, f"layer-{page.layer}")


def write(page: Page) -> None:
    """The prompt box; where nobody watches, what follows the prompt. Says why where the run has no tokenizer."""
    run = _run(page)
    try:
        box.prompt_box(run.path, page.prompt, page.tokens, page.temperature)
    except DataError as error:
        print(f"{run.name} writes nothing: {error}")


def _run(page: Page) -> Run:
    if page.run is None:
        raise NotebookError("no run yet: run the cell that trains, first")
    return page.run


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Markdown for the eye, and the same as plain text for papermill's logs."""
    from IPython.display import display

    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    text = "\n".join(lines)
    display({"text/markdown": text, "text/plain": text}, raw=True)
