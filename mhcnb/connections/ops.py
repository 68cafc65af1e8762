"""The operations that all connections share, on X [*b, n, d] and maps in at least float32.

Each has a plain form, which is what the equation says and the oracle of the tests, and a fast one: an operator with a
hand-written backward that saves and moves less, one node for torch.compile. (Where there are Triton kernels, `kernels`
has a faster one.) Products with the maps accumulate in the maps' type, so streams may be bfloat16; what is kept for
backward has the streams' type.

A site uses X three times: for its coefficients, to read, to carry over. Backward has one gradient of X, made by `write`
and added to in place by `read` and `project`, instead of three and their sums: on a CPU a new tensor of that size costs
more than the arithmetic. To that end each but the last gives a stand-in on, which has X's shape and no memory, and
takes what comes back for it as the gradient so far. It is good for one use, by the next of them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op

# the plain forms -----------------------------------------------------------------------------------------------------


def norm_project_plain(x: Tensor, weight: Tensor, kind: str, eps: float) -> Tensor:
    """norm(x) @ weight for x [*b, D], weight [D, k].

    kind "rms": x·rsqrt(mean x² + eps). "l2": x·√D / max(|x|, eps).
    """
    if kind == "rms":
        return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)) @ weight
    return (x * x.shape[-1] ** 0.5 / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(eps)) @ weight


def read_plain(pre: Tensor, X: Tensor) -> Tensor:
    """u = pre·X: [*b, n], [*b, n, d] -> [*b, d] in X's type."""
    return (pre.unsqueeze(-2) @ X.to(pre.dtype)).squeeze(-2).to(X.dtype)


def write_plain(res: Tensor, X: Tensor, post: Tensor, y: Tensor) -> Tensor:
    """X' = res·X + post ⊗ y: [*b, n, n], [*b, n, d], [*b, n], [*b, d] -> [*b, n, d] in X's type."""
    mixed = res @ X.to(res.dtype) + post.unsqueeze(-1) * y.to(res.dtype).unsqueeze(-2)
    return mixed.to(X.dtype)


# the fast forms ------------------------------------------------------------------------------------------------------


class Gating(NamedTuple):
    """A gate for each of several groups of columns of these widths, by its place in `gate`; a bias for each column, in
    pieces: put together outside of the operator, that alone would be a kernel to compile. In the weight's type."""

    gate: Tensor
    bias: list[Tensor]
    widths: list[int]
    gates: list[int]


class Entered(NamedTuple):
    """What `write` needs of the read before it: res [T, n, n], X [T, n, d], the stand-in for it, post [T, 1, n]."""

    res: Tensor
    X: Tensor
    on: Tensor
    post: Tensor


def weighted(weight: Tensor, gamma: Tensor | None) -> Tensor:
    """The norm's weight 1 + γ [D], where there is one, in the rows of `weight` [D, k]."""
    return weight if gamma is None else weight * (1 + gamma.to(weight.dtype)).unsqueeze(-1)


def project(X: Tensor, weight: Tensor, kind: str, eps: float, gating: Gating | None = None) -> tuple[Tensor, Tensor]:
    """norm(x) @ weight in the weight's type, and a stand-in for X [*b, n, d]. x is all of a token for weight [n·d, k],
    and each of its streams for weight [d, k]. The norm is a factor per row, so it comes after the product and no normed
    copy of x exists (mHC section 4.3.1). With `gating`: gate · norm(x) @ weight + bias."""
    D, k = weight.shape
    gate, bias, widths, gates = gating or Gating(weight.new_ones(1), [weight.new_zeros(k)], [k], [0])
    out, _, _, on = _project(X.reshape(X.numel() // D, D), weight, gate, bias, widths, gates, kind, eps)
    each = X.shape[-2:-1] if X.shape[-1] == D else ()
    return out.view(*X.shape[:-2], *each, k), on.view(X.shape)


def read(X: Tensor, on: Tensor, pre: Tensor, post: Tensor, res: Tensor) -> tuple[Tensor, Entered]:
    """u = pre·X [*b, d] in X's type. `on` is a projection's stand-in for X, or X."""
    n, d = X.shape[-2:]
    rows = X.detach().reshape(-1, n, d)
    u, on = _read(rows, on.reshape(-1, n, d), pre.reshape(-1, 1, n))
    return u.view(*X.shape[:-2], d), Entered(res.reshape(-1, n, n), rows, on, post.reshape(-1, 1, n))


def write(entered: Entered, y: Tensor) -> Tensor:
    """X' = res·X + post ⊗ y [*b, n, d], once, for y [*b, d] in any type."""
    X = entered.X
    return _write(*entered, y.reshape(len(X), 1, X.shape[-1])).view(*y.shape[:-1], *X.shape[1:])


def _stand_in(x: Tensor) -> Tensor:
    return x.new_empty(()).expand(x.shape)


def _put(wide: Tensor, into: Tensor) -> None:
    """Rounded, where it is not what it was made of."""
    if wide is not into:
        into.copy_(wide)


def _scale(gate: Tensor, widths: list[int], gates: list[int]) -> Tensor:
    return torch.cat([gate[g].expand(width) for width, g in zip(widths, gates, strict=True)])


@custom_op("mhcnb::torch_project", mutates_args=())
def _project(
    x: Tensor, weight: Tensor, gate: Tensor, bias: list[Tensor], widths: list[int], gates: list[int], kind: str,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """gate · raw + bias, raw = r·(x W) of x [R, D], r the norm's factor; for backward raw, and r and -(dr/dx) / (r x),
    [2, R, 1]; the stand-in."""
    wide, D = x.to(weight.dtype), x.shape[-1]
    size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    if kind == "rms":
        factor = torch.rsqrt(size.square() / D + eps)
        slope = factor.square() / D
    else:
        factor = D**0.5 / size.clamp_min(eps)
        slope = torch.where(size > eps, size.square().reciprocal(), 0.0)
    raw = (weight.T @ wide.T).T.contiguous().mul_(factor)  # wide @ weight takes up to 2.7 times as long on a CPU
    out = torch.addcmul(torch.cat(bias), raw, _scale(gate, widths, gates))
    return out, raw, torch.stack([factor, slope]), _stand_in(x)


@_project.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    raw = weight.new_empty(len(x), weight.shape[1])
    return torch.empty_like(raw), raw, weight.new_empty(2, len(x), 1), _stand_in(x)


@custom_op("mhcnb::torch_project_backward", mutates_args={"dx"})
def _project_backward(
    dx: Tensor, g: Tensor, x: Tensor, weight: Tensor, gate: Tensor, raw: Tensor, norm: Tensor, widths: list[int],
    gates: list[int],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx += r·g Wᵀ + c·x, where c is the part through r; dW, dgate, dbias."""
    wide, (factor, slope), scale = x.to(weight.dtype), norm, _scale(gate, widths, gates)
    dp, by_raw = (g * scale).mul_(factor), g * raw
    through_norm = (by_raw @ scale).unsqueeze(-1).mul_(-slope)
    _put(dx.to(weight.dtype).addcmul_(wide, through_norm).addmm_(dp, weight.T), dx)
    dW, dgate = dp.T @ wide, torch.zeros_like(gate)  # long rows first: twice as fast as x.T @ dp on a CPU
    for part, of in zip(by_raw.sum(0).split(widths), gates, strict=True):
        dgate[of] += part.sum()
    return dW.T.contiguous(), dgate, g.sum(0)


@_project_backward.register_fake
def _(dx: Tensor, g: Tensor, x: Tensor, weight: Tensor, gate: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(weight), torch.empty_like(gate), weight.new_empty(weight.shape[1])


def _keep_project(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, weight, gate, bias, ctx.widths, ctx.gates, *_ = inputs
    ctx.pieces = [len(piece) for piece in bias]
    _, raw, norm, _ = output
    ctx.mark_non_differentiable(raw, norm)
    ctx.save_for_backward(x, weight, gate, raw, norm)


def _back_project(ctx: Any, g: Tensor, _raw: Tensor, _norm: Tensor, dx: Tensor) -> tuple[Any, ...]:
    dW, dgate, dbias = _project_backward(dx, g, *ctx.saved_tensors, ctx.widths, ctx.gates)
    return dx, dW, dgate, list(dbias.split(ctx.pieces)), *[None] * 4


_project.register_autograd(_back_project, setup_context=_keep_project)


@custom_op("mhcnb::torch_read", mutates_args=())
def _read(X: Tensor, on: Tensor, pre: Tensor) -> tuple[Tensor, Tensor]:
    """u [T, 1, d] of X [T, n, d], pre [T, 1, n]; and the next stand-in. `on` is there for its gradient alone."""
    return (pre @ X.to(pre.dtype)).to(X.dtype), _stand_in(X)


@_read.register_fake
def _(X: Tensor, on: Tensor, pre: Tensor) -> tuple[Tensor, Tensor]:
    return X.new_empty(len(X), 1, X.shape[-1]), _stand_in(X)


@custom_op("mhcnb::torch_read_backward", mutates_args={"dX"})
def _read_backward(dX: Tensor, du: Tensor, X: Tensor, pre: Tensor) -> Tensor:
    """dX += preᵀ·du; and dpre."""
    du = du.to(pre.dtype)
    _put(dX.to(pre.dtype).addcmul_(pre.mT, du), dX)
    return (X.to(pre.dtype) @ du.mT).view(pre.shape)


@_read_backward.register_fake
def _(dX: Tensor, du: Tensor, X: Tensor, pre: Tensor) -> Tensor:
    return pre.new_empty(pre.shape)


def _keep_read(ctx: Any, inputs: tuple, output: tuple) -> None:
    X, _, pre = inputs
    ctx.save_for_backward(X, pre)


def _back_read(ctx: Any, du: Tensor, dX: Tensor) -> tuple[None, Tensor, Tensor]:
    return None, dX, _read_backward(dX, du, *ctx.saved_tensors)


_read.register_autograd(_back_read, setup_context=_keep_read)


@custom_op("mhcnb::torch_write", mutates_args=())
def _write(res: Tensor, X: Tensor, on: Tensor, post: Tensor, y: Tensor) -> Tensor:
    """X' of res [T, n, n], X [T, n, d], post [T, 1, n], y [T, 1, d]."""
    mixed = (res @ X.to(res.dtype)).addcmul_(post.mT, y.to(res.dtype))  # baddbmm_ is a slow loop over tokens on a CPU
    return mixed.to(X.dtype)


@_write.register_fake
def _(res: Tensor, X: Tensor, on: Tensor, post: Tensor, y: Tensor) -> Tensor:
    return X.new_empty(X.shape)


@custom_op("mhcnb::torch_write_backward", mutates_args=())
def _write_backward(
    G: Tensor, res: Tensor, X: Tensor, post: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dres, dX, dpost, dy, without any product [T, n, d] but dX."""
    G = G.to(res.dtype).contiguous()
    dres, dX = G @ X.to(res.dtype).mT, res.mT @ G
    return dres, dX.to(X.dtype), (G @ y.to(res.dtype).mT).view(post.shape), (post @ G).to(y.dtype)


@_write_backward.register_fake
def _(G: Tensor, res: Tensor, X: Tensor, post: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return res.new_empty(res.shape), X.new_empty(X.shape), post.new_empty(post.shape), y.new_empty(y.shape)


def _keep_write(ctx: Any, inputs: tuple, output: Tensor) -> None:
    res, X, _, post, y = inputs
    ctx.save_for_backward(res, X, post, y)


def _back_write(ctx: Any, G: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
    dres, dX, dpost, dy = _write_backward(G, *ctx.saved_tensors)
    return dres, None, dX, dpost, dy


_write.register_autograd(_back_write, setup_context=_keep_write)
