"""x Wᵀ by oneDNN on a CPU. For float32 torch takes MKL there, which uses half of what processors of other makers can
do; on the small matrices of an HRM oneDNN is up to 1.8 times as fast, which takes a tenth off an update's time.

That is why an operation private to torch is called here. Nothing rests on it: where it is missing, for other types and
devices, under autocast and in torch.compile, all is torch's own linear."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# what torch.compile calls for the same purpose
_OP: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


class Product(nn.Linear):
    """A Linear without bias."""

    def forward(self, x: Tensor) -> Tensor:
        """x [*b, d_in] -> [*b, d_out]."""
        if not _applies(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            out: Any = _Product.apply(x, self.weight)
            return out
        return _linear(x, self.weight)


def _applies(x: Tensor, weight: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and _OP is not None and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return _OP(x, weight, None, "none", [], "")


class _Product(torch.autograd.Function):
    """dx = g W, dW = gᵀ x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        g = grads[0]
        dx = _linear(g, weight.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None
        wide, narrow = g.flatten(0, -2), x.flatten(0, -2)
        if weight.shape[0] > weight.shape[1]:  # its fewer columns as rows of the product: oneDNN is faster so
            return dx, _linear(narrow.t(), wide.t()).t()
        return dx, _linear(wide.t(), narrow.t())
