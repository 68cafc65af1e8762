"""What a connection costs alone: forward and backward of one site around a branch that does nothing."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mhcnb import registry
from mhcnb.bench import floor
from mhcnb.bench.measure import FLOOR, Timing, side_by_side
from mhcnb.bench.peers import STREAMS, pack
from mhcnb.bench.place import Place, one_thread, there_and_back


class Streams(NamedTuple):
    """X [batch, tokens, 4, width]."""

    batch: int = 4
    tokens: int = 1024
    width: int = 512


# by whether there is an accelerator; where there is one, the widths of the targets
SHAPES = {False: [Streams()], True: [Streams(16, 1024, width) for width in (768, 1024, 2048, 4096)]}
ROUNDS = {False: 15, True: 51}


def connection(where: Place) -> list[Timing]:
    """Every connection and every peer's against residual: n = 4; 4096 tokens of width 512, float32, one CPU thread. On
    an accelerator 16,384 tokens of 768 to 4096, bfloat16. The rate: the least that n = 4 has to move, over the time."""
    shapes = SHAPES[where.accelerated]
    with one_thread():
        return [t for shape in shapes for t in at(shape, where, ROUNDS[where.accelerated], len(shapes) > 1)]


def at(shape: Streams, where: Place, rounds: int, several: bool = False) -> list[Timing]:
    """The case at one shape; of several, each has its width in its name."""
    names = sorted(registry.entries("connections"), key=lambda name: name != "residual")
    contenders = {name: _ours(name, shape, where) for name in names}
    for peer in where.peers:
        for name, make in peer.layers.items():
            layer = make(STREAMS, dim=shape.width, branch=nn.Identity(), layer_index=0)
            contenders[f"{peer.name}: {name}"] = _contender(layer, pack(_streams(shape, where, STREAMS)), where)
    tokens = shape.batch * shape.tokens
    moved = {n: floor.mixing_bytes(n, shape.width, tokens, where.dtype) for n in (1, STREAMS)}
    contenders[f"{FLOOR}copying as much"] = floor.copies(moved[STREAMS], where)
    timings = side_by_side(f"connection {shape.width}" if several else "connection", contenders, rounds)
    return floor.counted(timings, lambda name: moved[1 if name == "residual" else STREAMS], "B")


class Alone(nn.Module):
    """A connection around the branch y = u."""

    def __init__(self, rule: nn.Module) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, X: Tensor) -> Tensor:
        """X [*b, n, d] -> X' [*b, n, d]."""
        return self.rule(X, nn.Identity())


def _ours(name: str, shape: Streams, where: Place) -> Callable[[], None]:
    make = registry.load("connections", name)
    config = make.Config(name=name)
    X = _streams(shape, where, config.streams)
    return _contender(Alone(make(config, config.streams, shape.width, 0, torch.Generator())), X, where)


def _contender(module: nn.Module, X: Tensor, where: Place) -> Callable[[], None]:
    """Away from its start, where projections are zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return there_and_back(module, (X.requires_grad_(),), where)


def _streams(shape: Streams, where: Place, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(shape.batch, shape.tokens, n, shape.width, generator=generator)
    return X.to(where.device, where.dtype)
