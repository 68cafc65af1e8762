"""Read, and carry over and write, as operators: for torch.compile a node each, for autograd with gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from mhcnb.connections.kernels import streams
from mhcnb.connections.kernels.launch import block, launch, stand_in


@custom_op("mhcnb::read", mutates_args=())
def read(maps: Tensor, on: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """u, and a stand-in; `on` is there for its gradient alone, which is X's."""
    T, n, d = X.shape
    u, on = _was_read(maps, on, X)
    wide = block(d, 256)
    launch(streams.read_forward, (-(-T // 4), -(-d // wide)), maps, X, u, T, d, n=n, BT=4, BC=wide)
    return u, on


@read.register_fake
def _was_read(maps: Tensor, on: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    return X.new_empty((X.shape[0], X.shape[2])), stand_in(X)


@custom_op("mhcnb::read_backward", mutates_args=())
def read_backward(maps: Tensor, X: Tensor, du: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    """dmaps and dX."""
    T, n, d = X.shape
    dmaps, dX = torch.empty_like(maps), torch.empty_like(X)
    launch(streams.read_backward, (-(-T // 4),), maps, X, du, G, dmaps, dX, T, d, n=n, BT=4, BC=block(d, 128))
    return dmaps, dX


@read_backward.register_fake
def _(maps: Tensor, X: Tensor, du: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(maps), torch.empty_like(X)


def _keep_read(ctx: Any, inputs: tuple, output: tuple) -> None:
    maps, _, X = inputs
    ctx.save_for_backward(maps, X)


def _back_through_read(ctx: Any, du: Tensor, G: Tensor) -> tuple[Tensor, Tensor, None]:
    return *read_backward(*ctx.saved_tensors, du.contiguous(), G.contiguous()), None


read.register_autograd(_back_through_read, setup_context=_keep_read)


@custom_op("mhcnb::write", mutates_args=())
def write(maps: Tensor, on: Tensor, X: Tensor, y: Tensor) -> Tensor:
    """X'; `on` is there for its gradient alone."""
    T, n, d = X.shape
    out, wide = torch.empty_like(X), block(d, 256)
    launch(streams.write_forward, (-(-T // 4), -(-d // wide)), maps, X, y, out, T, d, n=n, BT=4, BC=wide)
    return out


@write.register_fake
def _(maps: Tensor, on: Tensor, X: Tensor, y: Tensor) -> Tensor:
    return torch.empty_like(X)


@custom_op("mhcnb::write_backward", mutates_args=())
def write_backward(maps: Tensor, X: Tensor, y: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    """dmaps and dy."""
    T, n, d = X.shape
    dmaps, dy = torch.empty_like(maps), torch.empty_like(y)
    launch(streams.write_backward, (-(-T // 4),), maps, X, y, G, dy, dmaps, T, d, n=n, BT=4, BC=block(d, 128))
    return dmaps, dy


@write_backward.register_fake
def _(maps: Tensor, X: Tensor, y: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(maps), torch.empty_like(y)


def _keep_write(ctx: Any, inputs: tuple, output: Tensor) -> None:
    maps, _, X, y = inputs
    ctx.save_for_backward(maps, X, y)


def _back_through_write(ctx: Any, G: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
    G = G.contiguous()
    dmaps, dy = write_backward(*ctx.saved_tensors, G)
    return dmaps, G, None, dy


write.register_autograd(_back_through_write, setup_context=_keep_write)
