"""What every connection shares. A method is one file beside this one and writes only its maps.

Per token the state is X [n, d], n streams of width d (row = stream, stream-major when flattened). A site wraps a
branch f, its own norm included:

    pre [n], post [n], res [n_out, n_in] = maps(X)        X' = res·X + post ⊗ f(pre·X)

in the letters of mHC (arXiv 2512.24880, eq. 3): H_pre, H_post, H_res. res[i, j] is what stream i receives from j.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mhcnb.connections import ops
from mhcnb.connections.config import ConnectionConfig
from mhcnb.connections.kernels import fused
from mhcnb.section import Named

Branch = Callable[..., Tensor]  # [*b, d] -> [*b, d]
Probe = Callable[["Maps"], "Maps | None"]
Leave = Callable[[Tensor], Tensor]  # y [*b, d] -> X' [*b, n, d]


class Maps(NamedTuple):
    """pre [*b, n], post [*b, n], res [*b, n_out, n_in]: H_pre, H_post, H_res. As logits, res is [*b, res_width]."""

    pre: Tensor
    post: Tensor
    res: Tensor


class Connection(nn.Module):
    """The rule that carries information past one branch.

    A method gives `constrain`, `start` and `res_width`, and `norm`, `gates`, `squash`, `own_start` where they differ:

    norm: "joint" projects all n·d values of a token at once; "stream" (hc) each stream alone, weights shared.
    gates: which learned gate scales pre, post and res.
    """

    Config: ClassVar[type[Named]] = ConnectionConfig
    norm: ClassVar[str] = "joint"
    gates: ClassVar[tuple[int, int, int]] = (0, 1, 2)
    exact: ClassVar[tuple[str, ...]] = ()  # the sides of res that sum to one to rounding, whatever the input

    def __init__(self, config: Any, n: int, d: int, index: int = 0, generator: torch.Generator | None = None) -> None:
        """A connection over n streams of width d at site `index` of its stack. The paper's projections start at 0,
        so `generator` is drawn from only by methods that need it."""
        super().__init__()
        self.config, self.n, self.d, self.index = config, n, d, index
        self.probe: Probe | None = None  # set by analysis; what it returns, if anything, replaces the maps
        rows, shared = (n * d, 1) if self.norm == "joint" else (d, n)
        self.weight = nn.Parameter(torch.zeros(rows, (2 * n + self.res_width) // shared))
        self.gate = nn.Parameter(torch.full((max(self.gates) + 1,), 0.01))
        if config.norm_weight:
            self.gamma = nn.Parameter(torch.zeros(rows))
        bias = self.start(*(self.exact_start() if config.init == "exact_residual" else self.own_start()))
        flat = {name: value.flatten() for name, value in bias._asdict().items()}
        self.bias = nn.ParameterDict({name: nn.Parameter(value) for name, value in flat.items() if len(value)})

    # what a method writes ------------------------------------------------------------------------------------------

    @property
    def res_width(self) -> int:
        """Logits of res per token; 0 where res does not depend on the token."""
        raise NotImplementedError

    def constrain(self, logits: Maps) -> Maps:
        """Logits pre [*b, n], post [*b, n], res [*b, res_width] to maps."""
        raise NotImplementedError

    def start(self, pre: Tensor, post: Tensor) -> Maps:
        """The bias logits that give these pre and post [n], with the method's own initial res."""
        raise NotImplementedError

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        """Applied to the projection before the gate."""
        return x

    def own_start(self) -> tuple[Tensor, Tensor]:
        """Initial pre and post of `init: method`: σ(±1) and 2σ(±1), + at the stream of this site."""
        pre = torch.sigmoid(torch.where(self._own_stream(), 1.0, -1.0))
        return pre, 2 * pre

    # what all share ------------------------------------------------------------------------------------------------

    def exact_start(self) -> tuple[Tensor, Tensor]:
        """pre sums to 1, post is 1: while streams are equal, X' = X + f(x). Uneven, so that they part."""
        pre = torch.where(self._own_stream(), 0.7, 0.3 / max(self.n - 1, 1))
        return pre, torch.ones(self.n)

    def _own_stream(self) -> Tensor:
        return torch.arange(self.n) == self.index % self.n

    def logits(self, X: Tensor) -> Maps:
        """gate · squash(project(norm(X))) + bias, at least float32. mHC eq. 7; HC (arXiv 2409.19606) eq. 10-13."""
        with torch.autocast(X.device.type, enabled=False):
            return self._logits(X)[0]

    def _logits(self, X: Tensor) -> tuple[Maps, Tensor]:
        """And a stand-in for X, see ops."""
        c, dtype = self.config, torch.promote_types(X.dtype, torch.float32)
        weight = ops.weighted(self.weight.to(dtype), self.gamma if c.norm_weight else None)
        if self.norm == "joint" and type(self).squash is Connection.squash:
            bias = [piece.to(dtype) for piece in self._pieces()]
            gating = ops.Gating(self.gate.to(dtype), bias, self._widths, list(self.gates))
            logits, on = ops.project(X, weight, c.norm, c.norm_eps, gating)
            return self._split(logits), on
        raw, on = ops.project(X, weight, c.norm, c.norm_eps)
        return self._gated(raw), on

    def _gated(self, raw: Tensor) -> Maps:
        """gate · squash(raw) + bias, in raw's type."""
        if self.norm == "stream":
            raw = torch.cat([part.flatten(-2) for part in raw.split([1, 1, self.res_width // self.n], dim=-1)], dim=-1)
        return self._split(torch.addcmul(self._biases().to(raw), self.squash(raw), self._scales().to(raw)))

    @property
    def _widths(self) -> list[int]:
        return [self.n, self.n, self.res_width]

    def _split(self, logits: Tensor) -> Maps:
        return Maps(*logits.split(self._widths, dim=-1))

    def _scales(self) -> Tensor:
        """[2n + res_width]: the gate of each logit."""
        return torch.cat([self.gate[gate].expand(n) for gate, n in zip(self.gates, self._widths, strict=True)])

    def _biases(self) -> Tensor:
        """[2n + res_width], pre, post, res."""
        return torch.cat(self._pieces())

    def _pieces(self) -> list[Tensor]:
        return [self.bias[name] for name in Maps._fields if name in self.bias]

    def maps(self, X: Tensor) -> Maps:
        """The maps of each token of X [*b, n, d], in at least float32."""
        with torch.autocast(X.device.type, enabled=False):
            return self._maps(X)[0]

    def _maps(self, X: Tensor) -> tuple[Maps, Tensor]:
        logits, on = self._logits(X)
        return self.constrain(logits), on

    def forward(self, X: Tensor, branch: Branch, **context: Any) -> Tensor:
        """X' = res·X + post ⊗ f(pre·X). `context` (mask, positions, cache) goes to the branch, as does autocast: here
        it would round the whole state at every site."""
        u, leave = self.enter(X)
        y = branch(u, **context)
        with torch.autocast(X.device.type, enabled=False):
            return leave(y)

    def enter(self, X: Tensor) -> tuple[Tensor, Leave]:
        """u = pre·X, and what makes X' of the branch's output; by kernels where there are some and nobody looks."""
        with torch.autocast(X.device.type, enabled=False):
            if self.probe is None and fused(X):
                return self.enter_fused(X)
            maps, on = self._maps(X)
            if self.probe is not None:
                maps = self.probe(maps) or maps
            u, entered = ops.read(X, on, *maps)
            return u, partial(ops.write, entered)

    def enter_fused(self, X: Tensor) -> tuple[Tensor, Leave]:
        """`enter` by kernels: maps in float32, whatever the streams."""
        from mhcnb.connections.kernels import operators

        weight = ops.weighted(self.weight.float(), self.gamma if self.config.norm_weight else None)
        raw, on = operators.project(X, weight, self.config.norm == "l2", self.config.norm_eps)
        u, entered = operators.read(X, on, *self.constrain(self._gated(raw)))
        return u, partial(operators.write, entered)

    def extra_repr(self) -> str:
        return f"n={self.n}, d={self.d}, index={self.index}"


def gated(logits: Maps, res: Tensor, eps: float = 0.0) -> Maps:
    """pre = σ(·) + eps and post = 2σ(·) beside a finished res. mHC eq. 8."""
    return Maps(torch.sigmoid(logits.pre) + eps, 2 * torch.sigmoid(logits.post), res)


def ungated(pre: Tensor, post: Tensor, res: Tensor, eps: float = 0.0) -> Maps:
    """The logits that `gated` turns to these pre and post, beside those of res."""
    return Maps(logit(pre - eps), logit(post / 2), res)


def logit(p: Tensor) -> Tensor:
    """σ⁻¹, in float64 and back, so that σ(logit(p)) is p to rounding."""
    return torch.logit(p.double()).to(p.dtype)


def unlikely(likely: Tensor) -> Tensor:
    """Logits 0 where `likely` and -8 elsewhere, flat: the initial res of mhc and mhc_lite."""
    return torch.where(likely.flatten(), 0.0, -8.0)


def permutations(n: int) -> int:
    """n!, the number of permutation matrices of n streams."""
    return math.factorial(n)
