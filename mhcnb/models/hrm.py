"""The Hierarchical Reasoning Model (Wang et al. 2025, arXiv 2506.21734): two recurrent levels at two time scales, of
which a state is carried from one training step to the next until it halts; every branch behind a connection."""

import math
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mhcnb.errors import DataError
from mhcnb.layers.attention import FullAttention
from mhcnb.layers.linear import embedding, linear, truncated
from mhcnb.layers.mlp import FusedSwiGLU
from mhcnb.layers.rope import Rotation, rotation
from mhcnb.layers.stack import Branches, Stack
from mhcnb.layers.table import Table
from mhcnb.models.base import Batch, Head, Model, Output
from mhcnb.models.hrm_names import RENAMES
from mhcnb.section import Named, Natural, Positive

Size = Positive | Literal["auto"]
DRAWN = "min_halt_steps"  # of a batch, for this step alone


class HRMConfig(Named):
    """Sizes of an HRM. Those that are `auto` come from the data.

    `gradient: full` and `q_continue: false` depart from the original as its successors did (TRM, arXiv 2510.04871):
    gradients through all cycles, and no loss for going on, which saves the second pass of every step."""

    renames: ClassVar = RENAMES
    name: str = "hrm"
    width: Positive = 512
    H_layers: Positive = 4
    L_layers: Positive = 4
    H_cycles: Positive = 2
    L_cycles: Positive = 2
    heads: Positive = 8
    expansion: Annotated[float, Field(gt=0)] = 4.0
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: Annotated[float, Field(gt=0)] = 10000.0
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    vocab_size: Size = "auto"
    seq_len: Size = "auto"
    puzzles: Size = "auto"  # identifiers of puzzles
    puzzle_width: Natural | None = None  # of their vectors, laid out over tokens before the cells; None: width
    halt_max_steps: Positive = 16
    halt_exploration: Annotated[float, Field(ge=0, le=1)] = 0.1  # how often a row must go on for a drawn while
    gradient: Literal["last", "full"] = "last"
    q_continue: bool = True

    @property
    def block_size(self) -> int:
        """Cells of a puzzle, which are what counts as its tokens; 1 while only the data know."""
        return 1 if self.seq_len == "auto" else self.seq_len

    @property
    def puzzle_tokens(self) -> int:
        """p, the tokens that a puzzle's vector fills."""
        return 1 if self.puzzle_width is None else math.ceil(self.puzzle_width / self.width)

    @property
    def ffn_dim(self) -> int:
        """The inner width of SwiGLU: 2/3 of expansion · width, up to a multiple of 256."""
        return 256 * math.ceil(round(self.expansion * self.width * 2 / 3) / 256)

    @model_validator(mode="after")
    def _divides(self) -> "HRMConfig":
        if self.width % self.heads:
            below = self.width // self.heads * self.heads
            raise ValueError(
                f"width {self.width} is not divisible by heads {self.heads}; "
                f"nearest widths: {below or self.heads} and {below + self.heads}"
            )
        if self.positions == "rope" and self.width // self.heads % 2:
            raise ValueError(
                f"a head is {self.width // self.heads} wide; rotary positions turn pairs, so give an even width / "
                "heads, or positions: learned"
            )
        return self


class Carry(NamedTuple):
    """What goes on to the next step: states [b, p + t, d]; steps [b] that a row has made; halted [b]: it is given up
    for a new one; data: the batch that each row is at. All have their rows first."""

    z_H: Tensor
    z_L: Tensor
    steps: Tensor
    halted: Tensor
    data: Batch


class HRM(Model):
    """cells -> embeddings, after those of the puzzle -> cycles of the levels L and H -> logits of all cells at once.

    Each call is one step of every row; the rows that halted in the step before it begin anew, with the batch's. In
    evaluation none halts before `halt_max_steps`. Streams live within one call of a level: what passes between levels
    is one stream, the exit's mean or sum as it is, for there is no final norm.
    """

    Config = HRMConfig
    optimizer = "adam_atan2"
    vocab_multiple = 1
    decayed = ("q_head.bias",)
    H_init: Tensor
    L_init: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, config: HRMConfig, connection: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.config, d, v, std = config, config.width, int(config.vocab_size), config.width**-0.5
        t = config.puzzle_tokens + int(config.seq_len)
        self.wte = embedding(v, d, std, generator, truncated)
        self.wpe = embedding(t, d, std, generator, truncated) if config.positions == "learned" else None
        wide = d if config.puzzle_width is None else config.puzzle_width  # of a puzzle's vector
        self.puzzles = Table(int(config.puzzles), wide) if wide else None
        self.head = linear(d, v, False, std, generator, truncated)
        self.q_head = linear(d, 2, True, 0.0, generator)
        nn.init.constant_(self.q_head.bias, -5.0)  # nobody halts before something is learned
        for name in ("H_init", "L_init"):
            self.register_buffer(name, truncated(torch.empty(d), 1.0, generator))
        levels = [[self._block(generator) for _ in range(n)] for n in (config.L_layers, config.H_layers)]
        self.L, self.H = (Stack(connection, d, blocks, generator) for blocks in levels)
        if config.positions == "rope":
            by = rotation(torch.arange(t), d // config.heads, config.rope_theta, torch.get_default_dtype())
            each = 1, 2 * config.heads, 1  # laid out for the heads of q and k, which is faster than to spread it
            for name, x in by._asdict().items():
                self.register_buffer(name, x.repeat(each), persistent=False)

    def _block(self, generator: torch.Generator) -> Branches:
        c, d = self.config, self.config.width
        norm = nn.RMSNorm(d, c.norm_eps, elementwise_affine=False)  # learns nothing, so it serves both
        mlp = FusedSwiGLU(d, c.ffn_dim, generator)
        return {"attn": (FullAttention(d, c.heads, generator), None, norm), "mlp": (mlp, None, norm)}

    def initial_carry(self, batch: Batch, generator: torch.Generator | None = None) -> Carry:
        """All rows halted, so that the first step takes those of its batch."""
        b, t = batch["inputs"].shape
        z = self.H_init.new_zeros(b, self.config.puzzle_tokens + t, self.config.width)
        steps = torch.zeros(b, dtype=torch.int32, device=z.device)
        data = {name: torch.zeros_like(x) for name, x in batch.items() if name != DRAWN}
        return Carry(z, z, steps, torch.ones_like(steps, dtype=torch.bool), data)

    def pack_carry(self, carry: Carry) -> dict[str, Tensor]:
        states = {name: x for name, x in carry._asdict().items() if name != "data"}
        return states | {f"data.{name}": x for name, x in carry.data.items()}

    def unpack_carry(self, packed: dict[str, Tensor]) -> Carry:
        data = {name.removeprefix("data."): x for name, x in packed.items() if name.startswith("data.")}
        return Carry(**{name: x for name, x in packed.items() if "." not in name}, data=data)

    def forward(
        self, batch: Batch, carry: Carry | None = None, *, cache: Any = None, loops: int | None = None
    ) -> Output:
        """inputs [b, t], puzzle_identifiers [b] and whatever else the rows have; in training also min_halt_steps [b],
        before which a row does not halt by its own will (absent: 0). parts: the logits of halting and of going on [b],
        and in training what the latter should have been. Raises DataError for rows of another length."""
        carry = self._entered(batch, carry)
        x = self._embedded(carry.data)
        z_H, z_L = self._think(x, carry.z_H, carry.z_L)
        q_halt, q_continue = self._q(z_H)
        parts = {"q_halt_logits": q_halt, "q_continue_logits": q_continue}
        steps = carry.steps + 1
        halted = last = steps >= self.config.halt_max_steps
        after = z_H.detach(), z_L.detach()
        if self.training and self.config.halt_max_steps > 1:
            wish = q_halt > (q_continue if self.config.q_continue else 0)
            halted = (last | wish) & (steps >= batch.get(DRAWN, last))
            if self.config.q_continue:
                parts["target_q_continue"] = self._target(x, *after, last)
        hidden = z_H[:, self.config.puzzle_tokens :]
        return Output(hidden, Head(self.head.weight), parts, Carry(*after, steps, halted, carry.data))

    def _entered(self, batch: Batch, carry: Carry | None) -> Carry:
        """The carry with the rows that have halted replaced by those of the batch, at their start."""
        t = batch["inputs"].shape[-1]
        if t != self.config.seq_len:
            raise DataError(f"rows of {t} cells; model.seq_len is {self.config.seq_len}")
        c = self.initial_carry(batch) if carry is None else carry
        reset = c.halted[:, None, None]
        data = {name: torch.where(reset.view(-1, *[1] * (x.ndim - 1)), batch[name], x) for name, x in c.data.items()}
        z_H, z_L = torch.where(reset, self.H_init, c.z_H), torch.where(reset, self.L_init, c.z_L)
        return Carry(z_H, z_L, c.steps.masked_fill(c.halted, 0), c.halted, data)

    def _embedded(self, data: Batch) -> Tensor:
        """x [b, p + t, d], given to every call of L."""
        c, x = self.config, self.wte(data["inputs"])
        if self.puzzles is not None:
            found = self.puzzles(data["puzzle_identifiers"])
            room = c.puzzle_tokens * c.width - found.shape[-1]
            x = torch.cat([F.pad(found, (0, room)).unflatten(-1, (-1, c.width)), x], dim=1)
        if self.wpe is not None:
            x = math.sqrt(0.5) * (x + self.wpe.weight)
        return math.sqrt(c.width) * x

    def _think(self, x: Tensor, z_H: Tensor, z_L: Tensor, first: int | None = None) -> tuple[Tensor, Tensor]:
        """H_cycles times: L_cycles calls of L, then one of H, whose last gives the `first` tokens (all). Only the last
        call of each has gradients, unless all are to have them."""
        c = self.config
        rope = Rotation(self.cos, self.sin) if c.positions == "rope" else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and c.gradient == "full"):
            for left in reversed(range(c.H_cycles)):
                for _ in range(c.L_cycles if left else c.L_cycles - 1):
                    z_L = self.L(z_L + (z_H + x), _as_it_is, rope=rope)
                if left:
                    z_H = self.H(z_H + z_L, _as_it_is, rope=rope)
        z_L = self.L(z_L + (z_H + x), _as_it_is, rope=rope)
        return self.H(z_H + z_L, _as_it_is, first, rope=rope), z_L

    def _q(self, z_H: Tensor) -> tuple[Tensor, ...]:
        """Logits [b] of halting and of going on, read off the first token; at least float32."""
        q = self.q_head(z_H[:, 0])
        return q.to(torch.promote_types(q.dtype, torch.float32)).unbind(-1)

    def _target(self, x: Tensor, z_H: Tensor, z_L: Tensor, last: Tensor) -> Tensor:
        """What going on is worth [b]: the better of the two in the next step, by the weights of this one; where that
        is the last, halting."""
        with torch.inference_mode():  # cheaper than no_grad; only a copy leaves it
            q_halt, q_continue = self._q(self._think(x, z_H, z_L, first=1)[0])
            worth = torch.where(last, q_halt, torch.maximum(q_halt, q_continue))
        return worth.sigmoid()

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters as every model's, by Adam-atan2; q_head.bias decays with the matrices, as all did in the original.
        The puzzles' vectors by sign-SGD."""
        groups = super().param_groups()
        if self.puzzles is not None:
            table = dict(name="puzzles", optimizer="sign_sgd", lr_mult=1.0, decay=True, params=[self.puzzles.rows])
            groups.append(table)
        return groups

    def flops_per_token(self) -> float:
        """Of one cell in a training step: 2 a weight and token in each call of a level, 4 more where it has gradients,
        and attention's scores and sums."""
        c = self.config
        t, d, v = c.puzzle_tokens + int(c.seq_len), c.width, int(c.vocab_size)
        total = 6.0 * t * d * v
        for level, layers, calls in ((self.L, c.L_layers, c.H_cycles * c.L_cycles), (self.H, c.H_layers, c.H_cycles)):
            call = 2.0 * t * sum(p.numel() for p in level.parameters()) + 4.0 * layers * t * t * d
            total += call * (calls * (1 + c.q_continue) + 2 * (calls if c.gradient == "full" else 1))
        return total / c.block_size


def _as_it_is(x: Tensor) -> Tensor:
    """In place of a final norm."""
    return x
