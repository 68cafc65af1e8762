"""What every connection shares. A method is one file beside this one and writes only its maps.

Per token the state is X [n, d], n streams of width d (row = stream, stream-major when flattened). A site wraps a
branch f, its own norm included:

    pre [n], post [n], res [n_out, n_in] = maps(X)        X' = res·X + post ⊗ f(pre·X)

in the letters of mHC (arXiv 2512.24880, eq. 3): H_pre, H_post, H_res. res[i, j] is what stream i receives from j.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from mhcnb.connections import ops
from mhcnb.section import Named

Branch = Callable[..., Tensor]  # [*b, d] -> [*b, d]
Probe = Callable[["Maps"], "Maps | None"]


class Maps(NamedTuple):
    """pre [*b, n], post [*b, n], res [*b, n_out, n_in]: H_pre, H_post, H_res. As logits, res is [*b, res_width]."""

    pre: Tensor
    post: Tensor
    res: Tensor


# Which side of res is exact, norm, entry and exit, initial values, decay: what publications differ in besides the
# method. `paper`: mHC eq. 7-9 with an initial state equal to the residual network. `mhc_lite`: the code of 2601.05732.
# `deepseek_v4`: as that model runs; its own random start is no start for training, so the method's is kept.
DIALECTS: dict[str, dict[str, Any]] = {
    "paper": dict(
        init="exact_residual", norm="rms", norm_eps=1e-6, norm_weight=False, reduce="mean",
        order="rows", first="sums", eps=0.0, pre_eps=0.0,
    ),
    "mhc_lite": dict(
        init="method", norm="l2", norm_eps=1e-12, norm_weight=True, reduce="norm_sum",
        order="columns", first="sums", eps=0.0, pre_eps=0.0,
    ),
    "deepseek_v4": dict(
        init="method", norm="rms", norm_eps=1e-6, norm_weight=False, reduce="head",
        order="rows", first="softmax", eps=1e-6, pre_eps=1e-6,
    ),
}  # fmt: skip


class ConnectionConfig(Named):
    """Fields that every method with streams has. `dialect` fills those that are not given; all are written out."""

    dialect: Literal["paper", "mhc_lite", "deepseek_v4"] = "paper"
    streams: Annotated[int, Field(ge=1)] = 4
    init: Literal["method", "exact_residual"] = "exact_residual"
    norm: Literal["rms", "l2"] = "rms"  # x·rsqrt(mean x² + eps), or x·√D / max(|x|, eps)
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    norm_weight: bool = False  # multiply by a learned 1 + γ
    reduce: Literal["mean", "sum", "norm_sum", "head"] = "mean"  # at the exit; see Ends
    head_eps: Annotated[float, Field(ge=0, le=0.01)] = 1e-6  # added to the shares of reduce: head
    decay_static: bool = False  # weight decay on the bias logits too

    @classmethod
    def presets(cls, values: dict) -> dict:
        """What the dialect fills of this method's fields."""
        preset = DIALECTS.get(str(values.get("dialect", "paper")), {})
        return {field: value for field, value in preset.items() if field in cls.model_fields}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return {**cls.presets(values), **values} if isinstance(values, dict) else values

    @field_validator("streams")
    @classmethod
    def _several(cls, streams: int) -> int:
        if streams < 2:
            raise ValueError(f"at least 2 streams; {streams} is the connection residual")
        return streams

    @model_validator(mode="after")
    def _exact(self) -> "ConnectionConfig":
        if self.init == "exact_residual" and self.reduce != "mean":
            raise ValueError(
                f"init exact_residual needs reduce: mean, got {self.reduce} (only a mean gives equal streams back "
                "unscaled, as the residual network has them); use init: method or reduce: mean"
            )
        return self


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
        x = X.flatten(-2) if self.norm == "joint" else X
        dtype = torch.promote_types(X.dtype, torch.float32)
        gamma = self.gamma if self.config.norm_weight else None
        with torch.autocast(X.device.type, enabled=False):
            raw = ops.norm_project(x.to(dtype), self.weight.to(dtype), gamma, self.config.norm, self.config.norm_eps)
            parts = [
                self.gate[gate].to(dtype) * self.squash(part) + self.bias[name].to(dtype) if part.shape[-1] else part
                for name, gate, part in zip(Maps._fields, self.gates, self._split(raw), strict=True)
            ]
            return Maps(*parts)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.norm == "joint":
            return raw.split([self.n, self.n, self.res_width], dim=-1)  # type: ignore[return-value]
        pre, post, res = raw.split([1, 1, self.res_width // self.n], dim=-1)
        return pre.squeeze(-1), post.squeeze(-1), res.flatten(-2)

    def maps(self, X: Tensor) -> Maps:
        """The maps of each token of X [*b, n, d], in at least float32."""
        with torch.autocast(X.device.type, enabled=False):
            return self.constrain(self.logits(X))

    def forward(self, X: Tensor, branch: Branch, **context: Any) -> Tensor:
        """X' = res·X + post ⊗ f(pre·X). `context` (mask, positions, cache) goes to the branch, as does autocast: here
        it would round the whole state at every site."""
        maps = self.maps(X)
        if self.probe is not None:
            maps = self.probe(maps) or maps
        with torch.autocast(X.device.type, enabled=False):
            u = ops.read(maps.pre, X)
        y = branch(u, **context)
        with torch.autocast(X.device.type, enabled=False):
            return ops.write(maps.res, X, maps.post, y)

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
