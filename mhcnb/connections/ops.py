"""The operations that all connections share, on X [*b, n, d] and maps in at least float32.

Each has a plain form, which is what the equation says and the oracle of the tests, and a fast form with a
hand-written backward that saves and moves less. The fast one runs where streams and maps have one type;
torch.compile gets the plain one, which it fuses itself. Products with the maps accumulate in the maps' type, so
streams may be bfloat16.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def norm_project(x: Tensor, weight: Tensor, gamma: Tensor | None, kind: str, eps: float) -> Tensor:
    """norm(x) @ weight for x [*b, D], weight [D, k]. The norm is a factor per row, so it comes after the product and
    no normed copy of x exists (mHC section 4.3.1); a norm weight 1 + γ [D] goes into the rows of `weight`.

    kind "rms": x·rsqrt(mean x² + eps). "l2": x·√D / max(|x|, eps).
    """
    if gamma is not None:
        weight = weight * (1 + gamma.to(weight.dtype)).unsqueeze(-1)
    if torch.compiler.is_compiling():
        return norm_project_plain(x, weight, kind, eps)
    rows: Any = _NormProject.apply(x.reshape(-1, x.shape[-1]), weight, kind, eps)
    return rows.view(*x.shape[:-1], weight.shape[1])


def norm_project_plain(x: Tensor, weight: Tensor, kind: str, eps: float) -> Tensor:
    """The definition: norm, then project."""
    if kind == "rms":
        return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)) @ weight
    return (x * x.shape[-1] ** 0.5 / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(eps)) @ weight


class _NormProject(torch.autograd.Function):
    """out = r·(x W), r the norm's factor: dx = r·g Wᵀ + c·x, where c is the part through r. x [T, D]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, kind: str, eps: float) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        if kind == "rms":
            factor = torch.rsqrt(size.square() / x.shape[-1] + eps)
            slope = factor.square() / x.shape[-1]  # -(dr/dx) / (r x)
        else:
            factor = x.shape[-1] ** 0.5 / size.clamp_min(eps)
            slope = torch.where(size > eps, size.square().reciprocal(), 0.0)
        out = (x @ weight).mul_(factor)
        ctx.save_for_backward(x, weight, factor, slope, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, factor, slope, out = ctx.saved_tensors
        (g,) = grads
        dp = g * factor
        dx = dw = None
        if ctx.needs_input_grad[0]:
            through_norm = (g * out).sum(-1, keepdim=True).mul_(-slope)
            dx = (x * through_norm).addmm_(dp, weight.T)
        if ctx.needs_input_grad[1]:
            dw = (dp.T @ x).T  # long rows first: twice as fast as x.T @ dp on a CPU
        return dx, dw, None, None


def read(pre: Tensor, X: Tensor) -> Tensor:
    """u = pre·X: [*b, n], [*b, n, d] -> [*b, d] in X's type."""
    return (pre.unsqueeze(-2) @ X.to(pre.dtype)).squeeze(-2).to(X.dtype)


def write(res: Tensor, X: Tensor, post: Tensor, y: Tensor) -> Tensor:
    """X' = res·X + post ⊗ y: [*b, n, n], [*b, n, d], [*b, n], [*b, d] -> [*b, n, d] in X's type."""
    if X.dtype != res.dtype or torch.compiler.is_compiling():
        return write_plain(res, X, post, y)
    n, d = X.shape[-2:]
    out: Any = _Write.apply(
        res.reshape(-1, n, n), X.reshape(-1, n, d), post.reshape(-1, n, 1), y.to(X.dtype).reshape(-1, 1, d)
    )
    return out.view(X.shape)


def write_plain(res: Tensor, X: Tensor, post: Tensor, y: Tensor) -> Tensor:
    """The definition of `write`."""
    mixed = res @ X.to(res.dtype) + post.unsqueeze(-1) * y.to(res.dtype).unsqueeze(-2)
    return mixed.to(X.dtype)


class _Write(torch.autograd.Function):
    """res [T, n, n], X [T, n, d], post [T, n, 1], y [T, 1, d]: no [T, n, d] product is kept or made in backward."""

    @staticmethod
    def forward(ctx: Any, res: Tensor, X: Tensor, post: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(res, X, post, y)
        return (res @ X).addcmul_(post, y)  # baddbmm_ is a slow loop over tokens on a CPU

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        res, X, post, y = ctx.saved_tensors
        G = grads[0].contiguous()
        return G @ X.mT if ctx.needs_input_grad[0] else None, res.mT @ G, G @ y.mT, post.mT @ G
