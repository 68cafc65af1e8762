"""How much of the n streams is in use: numbers of a state X [n, d] per token, all from its scalar products."""

import torch
from torch import Tensor


def state(X: Tensor) -> dict[str, Tensor]:
    """Of X [*b, n, d], each [T] in float64 on the CPU, T tokens in all:

    cosine: mean over pairs of streams; 1 for one stream, 0 with a stream of zeros
    effective_rank: exp(-Σ p log p), p = σ/Σσ of X's singular values: 1 where all are one direction, at most n
    rms_0, rms_1, ...: √(mean of squares) of each stream

    Streams that differ by less than 1e-7 count as equal in effective_rank, for σ² is what is computed.
    """
    X = (X.cpu() if X.device.type == "mps" else X).flatten(end_dim=-3).double()  # mps has no float64
    n, d = X.shape[-2:]
    gram = (X @ X.mT).cpu()
    size = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    found = {"cosine": _cosine(gram, size), "effective_rank": _effective_rank(gram)}
    return found | {f"rms_{i}": size[:, i] / d**0.5 for i in range(n)}


def _cosine(gram: Tensor, size: Tensor) -> Tensor:
    n = size.shape[-1]
    if n == 1:
        return torch.ones(len(gram), dtype=gram.dtype)
    unit = torch.where(size > 0, 1 / size, 0.0)
    pairs = torch.ones(n, n).triu(1).bool()
    return (unit.unsqueeze(-1) * gram * unit.unsqueeze(-2))[:, pairs].mean(-1)


def _effective_rank(gram: Tensor) -> Tensor:
    """Of matrices with these scalar products [T, n, n]; nan where they are not finite."""
    finite = gram.isfinite().flatten(1).all(1)
    square = torch.linalg.eigvalsh(torch.where(finite[:, None, None], gram, 0.0)).clamp_min(0)
    noise = torch.finfo(gram.dtype).eps * len(gram[0]) * square[:, -1:]
    sigma = torch.where(square > noise, square, 0.0).sqrt()
    p = sigma / sigma.sum(-1, keepdim=True).clamp_min(torch.finfo(gram.dtype).tiny)
    return torch.where(finite, torch.special.entr(p).sum(-1).exp(), torch.nan)
