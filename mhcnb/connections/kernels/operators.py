"""The kernels for streams of any batch.

A site uses X up to three times: for its coefficients, to read, to carry over. Backward makes one gradient of X on one
way through them. `write` gives the gradient of X' on as it came, the read multiplies it by resᵀ and adds its part, the
projection adds its own. So each but the last gives a stand-in on, which has X's shape and no memory, and takes what
comes back for it as the gradient so far. It is good for one use, by the next of them, with the maps that belong to it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mhcnb.connections.kernels import mixing, projecting


class Settings(NamedTuple):
    """What mhc's maps depend on beside X, weight and bias: the norm, "l2" or "rms", as in ops.norm_project; the axis of
    res that is divided first, 1 for columns; with `floor`, eps is first added to the entries, not to a sum."""

    l2: bool
    norm_eps: float
    pre_eps: float
    iterations: int
    first: int
    eps: float
    floor: bool


class Entered(NamedTuple):
    """What `write` needs of the read before it: packed maps [T, n+2, n], X [T, n, d], and the stand-in."""

    maps: Tensor
    X: Tensor
    on: Tensor


def enter(X: Tensor, weight: Tensor, bias: Tensor, settings: Settings) -> tuple[Tensor, Entered]:
    """u [*b, d] of X [*b, n, d] by the maps of mhc: weight [n·d, (n+2)n] and bias [(n+2)n], float32, columns pre, post
    and res, hold the gates and the norm's weight."""
    flat = _tokens(X)
    u, maps, on, _, _ = projecting.enter(flat, weight.contiguous(), bias.contiguous(), *settings)
    return u.view(*X.shape[:-2], X.shape[-1]), Entered(maps, flat.detach(), on)


def project(X: Tensor, weight: Tensor, l2: bool, norm_eps: float) -> tuple[Tensor, Tensor]:
    """norm(x) @ weight, float32, and a stand-in [T, n, d]; x is all of a token of X [*b, n, d] for weight [n·d, k], and
    each of its streams for weight [d, k]."""
    flat = _tokens(X)
    rows = flat.view(flat.numel() // weight.shape[0], weight.shape[0])
    raw, _, on = projecting.project(rows, weight.contiguous(), l2, norm_eps)
    each = X.shape[-2:-1] if weight.shape[0] == X.shape[-1] else ()
    return raw.view(*X.shape[:-2], *each, weight.shape[1]), on.view(flat.shape)


def read(X: Tensor, on: Tensor, pre: Tensor, post: Tensor, res: Tensor) -> tuple[Tensor, Entered]:
    """u = pre·X of X [*b, n, d] by the maps of any method, in float32; `on` is a projection's stand-in for X."""
    flat = _tokens(X).detach()
    maps = torch.cat([_tokens(m) for m in (pre.unsqueeze(-2), post.unsqueeze(-2), res)], dim=1)
    u, on = mixing.read(maps, on, flat)
    return u.view(*X.shape[:-2], X.shape[-1]), Entered(maps, flat, on)


def write(entered: Entered, y: Tensor) -> Tensor:
    """X' = res·X + post ⊗ y [*b, n, d], once, for y [*b, d] in any of the streams' types."""
    maps, X, on = entered
    out = mixing.write(maps, on, X, y.reshape(len(X), y.shape[-1]).contiguous())
    return out.view(*y.shape[:-1], *X.shape[1:])


def _tokens(X: Tensor) -> Tensor:
    return X.reshape(X.shape[:-2].numel(), *X.shape[-2:]).contiguous()
