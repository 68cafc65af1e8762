"""Triton kernels of the shared operations, for 2 and 4 streams on CUDA: nothing but `fused` imports Triton's part, and
that where it is used.

choice: whether they can be taken. streams: read, carry over and write. rounds: Sinkhorn–Knopp on chip. coefficients:
norm and projection; mhc's maps and the read in one pass. mixing and projecting make operators of them, launch says with
what tiles, and operators is what connections call.
"""

from torch import Tensor

ON = {"cuda"}  # types of device; tests add the CPU, for Triton's interpreter


def fused(X: Tensor) -> bool:
    """Whether the kernels take streams X [*b, n, d]: n = 2 or 4, bfloat16 or float32, CUDA, Triton there. The log says
    once why not, on a GPU."""
    n = X.shape[-2]
    if n == 1 or X.device.type not in ON:
        return False
    from mhcnb.connections.kernels.choice import take  # brings torch's compiler, a second to start

    return take(n, X.dtype, X.device.type, X.device.index)
