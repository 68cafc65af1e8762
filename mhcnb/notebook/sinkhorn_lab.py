"""What 05-sinkhorn-lab touches: one matrix on its way to doubly stochastic, and what its gradient is worth.

Every explorer changes some fields of the `Lab` that the notebook's parameters make, and draws the rest as they are.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from mhcnb.analysis import polytope as birkhoff
from mhcnb.analysis.sinkhorn import errors, gradients
from mhcnb.connections.config import DIALECTS
from mhcnb.errors import MhcnbError
from mhcnb.notebook import controls
from mhcnb.notebook.controls import Control, Jump, Menu, Slider, Text, explore
from mhcnb.notebook.parameters import checked
from mhcnb.notebook.sinkhorn_state import Lab, trained
from mhcnb.paths import outputs
from mhcnb.plots import sinkhorn as plots
from mhcnb.plots.style import canvas, empty, style

FIGURES = "outputs/05-sinkhorn-lab"
MOST = 100  # rounds
ROUNDS = (1, 2, 3, 5, 10, 20, 50, 100)  # at which gradients are compared
HARD = "0 15 0 -15; 0 0 0 0; -15 0 15 0; 15 0 0 15"
DEGENERATE = "0 -30 -30; 0 -30 -30; 0 0 0"
Source = Literal["random", "chosen", "trained"]
Dialect = Literal["paper", "mhc_lite", "deepseek_v4"]


@checked
def lab(
    n: Annotated[int, Field(ge=2, le=8)],
    iterations: Annotated[int, Field(ge=0, le=MOST)],
    temperature: Annotated[float, Field(gt=0)],
    dialect: Dialect,
    order: Literal["", "rows", "columns"],
    eps: Annotated[float, Field(ge=-1)],
    dtype: Literal["float64", "float32", "bfloat16"],
    source: Source,
    seed: Annotated[int, Field(ge=0)],
    matrix: str,
    run: Annotated[str, Field(min_length=1)],
    site: Annotated[int, Field(ge=1)],
    token: Annotated[int, Field(ge=1)],
    mixture: Literal["decomposed", "softmax"],
) -> Lab:
    """The laboratory in the state of the notebook's parameters; says what can be touched."""
    state = Lab(n, iterations, temperature, dialect, order, eps, dtype, source, seed, matrix, run, site, token, mixture)
    state.logits()
    print("Change the values below, or the parameters above; under papermill the parameters draw the pictures.")
    return state


def bench(state: Lab) -> None:
    """The input, the matrix after the chosen rounds, and the errors of both sides against rounds."""

    def draw(now: Lab) -> tuple[Any, str]:
        logits = now.logits()
        found = errors(logits, MOST, dtype=getattr(torch, now.dtype), **now.recipe)
        sides = {"rows": found.rows.numpy(), "columns": found.columns.numpy()}
        matrix = now.rounds(now.iterations)[-1]
        figure = plots.plot_bench(logits.numpy(), matrix, sides, now.iterations)
        return figure, now.origin + plots.say_bench(logits.numpy(), sides, now.iterations, now.dtype)

    hard = Jump("Hard case, range 30", lambda **_: dict(source="chosen", matrix=HARD), "a matrix that converges slowly")
    near = Jump(
        "Near-degenerate 3 × 3",
        lambda **_: dict(source="chosen", matrix=DEGENERATE),
        "one whose pattern hardly carries a doubly stochastic matrix",
    )
    _explore(state, draw, [*_input(state), *_recipe(state), hard, near], "bench")


def backward(state: Lab) -> None:
    """The three backward modes against finite differences, in float64."""

    def draw(now: Lab) -> tuple[Any, str]:
        logits = now.logits()
        G = torch.randn(logits.shape, dtype=logits.dtype, generator=torch.Generator().manual_seed(now.seed + 1))
        rounds = sorted({*ROUNDS, now.iterations} - {0}) if now.iterations else [0, *ROUNDS]
        each = {mode: np.array([]) for mode in plots.MODES}
        for count in rounds:
            found = gradients(logits, G, count, **now.recipe)
            size = found["finite"].norm()
            each = {m: np.append(each[m], float((found[m] - found["finite"]).norm() / size)) for m in each}
        words = now.origin + plots.say_gradients(each, rounds, now.iterations)
        return plots.plot_gradients(each, rounds, now.iterations), words

    _explore(state, draw, [*_input(state), *_recipe(state, dtype=False)], "backward")


def permutations(state: Lab) -> None:
    """Sinkhorn's matrix taken apart into permutations, or mHC-lite's softmax over all of them; n up to 6."""

    def draw(now: Lab) -> tuple[Any, str]:
        if now.mixture == "softmax":
            generator = torch.Generator().manual_seed(now.seed)
            count = len(birkhoff.permutations(now.n))
            mix = birkhoff.mixture(torch.randn(count, generator=generator).double().numpy() / now.temperature)
            return plots.plot_permutations(mix, f"softmax over {count} logits"), plots.say_permutations(mix)
        mix = birkhoff.decompose(now.rounds(now.iterations)[-1])
        title = f"Sinkhorn's matrix after {now.iterations} rounds, taken apart"
        return plots.plot_permutations(mix, title), now.origin + plots.say_permutations(mix)

    kinds = [("Sinkhorn's matrix, taken apart", "decomposed"), ("mHC-lite: softmax over permutations", "softmax")]
    menu = Menu("mixture", "mixture", state.mixture, kinds)
    _explore(state, draw, [menu, *_input(state, most=birkhoff.LARGEST), *_recipe(state)], "permutations")


def polytope(state: Lab) -> None:
    """The rounds on their way into the Birkhoff polytope of n = 2 or 3."""

    def draw(now: Lab) -> tuple[Any, str]:
        path = now.rounds(now.iterations)
        return plots.plot_polytope(path), now.origin + plots.say_polytope(path)

    if len(state.logits()) > 3:  # it cannot be drawn: a random one can
        state = state._replace(n=3, source="random")
    _explore(state, draw, [*_input(state, most=3), *_recipe(state)], "polytope")


def _explore(state: Lab, draw: Callable[[Lab], Any], shown: list[Control], name: str) -> None:
    """Draws `state` with the controls' values in it; what cannot be drawn is said in the picture's place."""

    def drawn(**values: Any) -> Any:
        try:
            return draw(state._replace(**values))
        except MhcnbError as error:
            with style():
                figure, ax = canvas(None, 7.2, 1.2)
                empty(ax, str(error))
            return figure, str(error)

    explore(drawn, shown, name, outputs(FIGURES))


def _input(state: Lab, most: int = 8) -> list[Control]:
    """Where the logits come from. A trained input is offered where a run is found."""
    kinds = ["random", "chosen"]
    where: list[Control] = []
    if state.source == "trained" or (not controls.headless() and _found(state.run)):
        _, sites = trained(state.run)
        tokens = max(len(logits) for logits in sites.values())
        kinds.append("trained")
        where = [
            Slider("site", "trained: site", min(state.site, len(sites)), 1, len(sites)),
            Slider("token", "trained: token", min(state.token, tokens), 1, tokens),
        ]
    return [
        Slider("n", "streams n", min(state.n, most), 2, most),
        Slider("temperature", "temperature", state.temperature, -2, 1, log=True, help="logits are divided by it"),
        Menu("source", "input", state.source, _same(kinds)),
        Slider("seed", "random: seed", state.seed, 0, max(100, state.seed)),
        Text("matrix", "chosen: logits", state.matrix, "rows between semicolons"),
        *where,
    ]


def _recipe(state: Lab, dtype: bool = True) -> list[Control]:
    values = sorted({0.0, 1e-8, 1e-6, 1e-4, 1e-2, state.eps} - {-1.0})
    found: list[Control] = [
        Slider("iterations", "rounds", state.iterations, 0, MOST, help="each divides by the sums of both sides"),
        Menu("dialect", "dialect", state.dialect, _same(DIALECTS)),
        Menu("order", "normalised last", state.order, [("as the dialect", ""), *_same(["rows", "columns"])]),
        Menu("eps", "eps", state.eps, [("as the dialect", -1.0), *((f"{value:g}", value) for value in values)]),
    ]
    if dtype:
        found.append(Menu("dtype", "dtype", state.dtype, _same(["float64", "float32", "bfloat16"])))
    return found


def _same(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def _found(run: str) -> bool:
    try:
        return bool(trained(run))
    except (MhcnbError, OSError):
        return False
