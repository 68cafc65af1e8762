"""Norm and projection, and mhc's maps with the read, as operators: for torch.compile a node each, for autograd with
gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from mhcnb.connections.kernels import coefficients
from mhcnb.connections.kernels.launch import block, columns, launch, precision, stand_in, tokens_each


@custom_op("mhcnb::enter", mutates_args=())
def enter(
    X: Tensor, weight: Tensor, bias: Tensor, l2: bool, norm_eps: float, pre_eps: float, iterations: int, first: int,
    eps: float, floor: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """u, maps, the stand-in; and for backward the products with the weights and the norm's factors [2, T]."""
    T, n, d = X.shape
    u, maps, on, raw, norm = _entered(X)
    tokens = tokens_each(n * d)
    launch(
        coefficients.enter_forward, (-(-T // tokens),), X, weight, bias, u, maps, raw, norm, T, d, norm_eps, pre_eps,
        l2, iterations, first, eps, floor, n=n, BT=tokens, BC=block(n * d, 128), precision=precision(X),
        num_warps=8,
    )  # fmt: skip
    return u, maps, on, raw, norm


@enter.register_fake
def _entered(X: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    T, _, d = X.shape
    factors = X.new_empty((2, T), dtype=torch.float32)
    return X.new_empty((T, d)), _packed(X), stand_in(X), _packed(X), factors


@custom_op("mhcnb::enter_backward", mutates_args=())
def enter_backward(
    X: Tensor, weight: Tensor, bias: Tensor, maps: Tensor, raw: Tensor, norm: Tensor, du: Tensor, dmaps: Tensor,
    G: Tensor, iterations: int, first: int, eps: float, floor: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dX, dweight, dbias; the weights' in shares of tokens, then summed."""
    T, n, d = X.shape
    tokens = tokens_each(n * d)
    programs = -(-T // tokens)
    dX, dp, dbias = torch.empty_like(X), torch.empty_like(maps), bias.new_empty(programs, 8 * n)
    launch(
        coefficients.enter_backward, (programs,), X, weight, bias, maps, raw, norm, du, dmaps, G, dX, dp, dbias, T, d,
        iterations, first, eps, floor, n=n, BT=tokens, BC=block(d, 64), precision=precision(X), num_warps=8,
    )  # fmt: skip
    return dX, _weight_backward(X.view(T, n * d), dp.flatten(1)), dbias.sum(0)[: bias.numel()]


@enter_backward.register_fake
def _(X: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(X), torch.empty_like(weight), torch.empty_like(bias)


def _keep_enter(ctx: Any, inputs: tuple, output: tuple) -> None:
    _, maps, _, raw, norm = output
    ctx.mark_non_differentiable(raw, norm)
    ctx.save_for_backward(*inputs[:3], maps, raw, norm)
    ctx.rounds = inputs[6:]


def _back_through_enter(ctx: Any, du: Tensor, dmaps: Tensor, G: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    grads = (du.contiguous(), dmaps.contiguous(), G.contiguous())
    return (*enter_backward(*ctx.saved_tensors, *grads, *ctx.rounds), *[None] * 7)


enter.register_autograd(_back_through_enter, setup_context=_keep_enter)


@custom_op("mhcnb::project", mutates_args=())
def project(x: Tensor, weight: Tensor, l2: bool, norm_eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """norm(x) @ weight, the norm's factors [2, T], and a stand-in."""
    T, D = x.shape
    raw, norm, on = _projected(x, weight)
    launch(
        coefficients.project_forward, (-(-T // 64),), x, weight, raw, norm, T, D, norm_eps, l2,
        BT=64, BC=block(D, 64), precision=precision(x), num_warps=8, **columns(weight),
    )  # fmt: skip
    return raw, norm, on


@project.register_fake
def _projected(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    T = x.shape[0]
    return weight.new_empty((T, weight.shape[1])), weight.new_empty((2, T)), stand_in(x)


@custom_op("mhcnb::project_backward", mutates_args=())
def project_backward(
    x: Tensor, weight: Tensor, raw: Tensor, norm: Tensor, g: Tensor, so_far: Tensor
) -> tuple[Tensor, Tensor]:
    """dx, with the gradient `so_far` in it, and dweight."""
    T, D = x.shape
    r, slope = norm
    dp, along, dx = g * r.unsqueeze(-1), -slope * (g * raw).sum(-1), torch.empty_like(x)
    wide = block(D, 64)
    launch(
        coefficients.project_backward, (-(-T // 32), -(-D // wide)), x, weight, dp, along, so_far, dx, T, D,
        BT=32, BC=wide, precision=precision(x), num_warps=8, **columns(weight),
    )  # fmt: skip
    return dx, _weight_backward(x, dp)


@project_backward.register_fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _keep_project(ctx: Any, inputs: tuple, output: tuple) -> None:
    raw, norm, _ = output
    ctx.mark_non_differentiable(norm)
    ctx.save_for_backward(*inputs[:2], raw, norm)


def _back_through_project(ctx: Any, g: Tensor, _: Any, so_far: Tensor) -> tuple[Tensor | None, ...]:
    return (*project_backward(*ctx.saved_tensors, g.contiguous(), so_far.contiguous()), None, None)


project.register_autograd(_back_through_project, setup_context=_keep_project)


def _packed(X: Tensor) -> Tensor:
    T, n, _ = X.shape
    return X.new_empty((T, n + 2, n), dtype=torch.float32)


def _weight_backward(x: Tensor, dp: Tensor) -> Tensor:
    """xᵀ dp of x [T, D] and dp [T, k]: the tokens in shares, so that there is work for all multiprocessors."""
    T, D = x.shape
    blocks = -(-D // 64)
    shares = max(1, min(-(-T // 256), 512 // blocks))
    dW = dp.new_empty(shares, D, dp.shape[1])
    launch(
        coefficients.weight_backward, (blocks, shares), x, dp, dW, T, D, -(-T // shares),
        BT=64, BC=64, precision=precision(x), **columns(dp),
    )  # fmt: skip
    return dW.sum(0)
