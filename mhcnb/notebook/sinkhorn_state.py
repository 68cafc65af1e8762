"""The state of the Sinkhorn laboratory: which logits, which rounds, in which precision."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mhcnb.analysis.sinkhorn import half_rounds
from mhcnb.connections.config import DIALECTS
from mhcnb.errors import NotebookError
from mhcnb.notebook.recorded import sinkhorn_inputs
from mhcnb.paths import find


class Lab(NamedTuple):
    """The state of the laboratory; the fields are the notebook's parameters. order "" and eps -1: the dialect's."""

    n: int
    iterations: int
    temperature: float
    dialect: str
    order: str
    eps: float
    dtype: str
    source: str
    seed: int
    matrix: str
    run: str
    site: int
    token: int
    mixture: str

    @property
    def recipe(self) -> dict[str, Any]:
        """order, eps and first as the numerics take them."""
        preset = DIALECTS[self.dialect]
        eps = preset["eps"] if self.eps < 0 else self.eps
        return dict(order=self.order or preset["order"], eps=eps, first=preset["first"])

    def logits(self) -> Tensor:
        """The input [n, n] over the temperature, float64. Raises NotebookError where it is not to be had."""
        if self.source == "chosen":
            return parse(self.matrix) / self.temperature
        if self.source == "trained":
            sites = list(trained(self.run)[1].values())
            tokens = sites[min(self.site, len(sites)) - 1]
            return tokens[min(self.token, len(tokens)) - 1].double() / self.temperature
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.n, self.n, dtype=torch.float64, generator=generator) / self.temperature

    def rounds(self, iterations: int) -> np.ndarray:
        """exp(logits) and the matrix after every round [iterations + 1, n, n], computed in `dtype`."""
        L = self.logits().to(getattr(torch, self.dtype))
        return torch.stack([L, *list(half_rounds(L, iterations, **self.recipe))[1::2]]).exp().double().numpy()

    @property
    def origin(self) -> str:
        """Where the input is from, in words."""
        if self.source == "trained":
            run, sites = trained(self.run)
            name = list(sites)[min(self.site, len(sites)) - 1]
            return f"Trained input: {run}, site {name}, token {min(self.token, len(sites[name]))}. "
        return f"Random input, seed {self.seed}. " if self.source == "random" else "Chosen input. "


def parse(text: str) -> Tensor:
    """A square matrix [n, n], float64, from "1 2; 0 1": rows between semicolons. Raises NotebookError for others."""
    try:
        rows = [[float(x) for x in row.replace(",", " ").split()] for row in text.strip().strip(";").split(";")]
    except ValueError as error:
        raise NotebookError(f"matrix {text!r}: {error}; write numbers, rows between semicolons: 1 2; 0 1") from error
    n = len(rows)
    if not 2 <= n <= 8 or any(len(row) != n for row in rows):
        sizes = ", ".join(str(len(row)) for row in rows)
        raise NotebookError(f"matrix {text!r}: rows of {sizes} numbers; expected n rows of n, n from 2 to 8")
    return torch.tensor(rows, dtype=torch.float64)


@lru_cache(maxsize=2)
def trained(run: str) -> tuple[str, dict[str, Tensor]]:
    """`sinkhorn_inputs` of a notebook's path, read once."""
    return sinkhorn_inputs(find(run))
