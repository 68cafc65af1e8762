"""Adam with an arctangent in place of the quotient (Everett et al. 2024, arXiv 2407.05872), as HRM trains by it."""

from typing import Any

import torch
from torch import Tensor


class AdamAtan2(torch.optim.Optimizer):
    """For each parameter p with gradient g, at its update t:

        p ← p·(1 - lr·decay)
        m ← m + (1 - β₁)(g - m),  v ← v + (1 - β₂)(g² - v)
        p ← p - lr/(1 - β₁^t) · atan2(m, √(v/(1 - β₂^t)))

    There is no ε, for nothing is divided by; and no scale at all in or around the arctangent, unlike in other packages
    of this name, whose updates are up to 27 % longer. An update is at most about π/2·lr.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.95)) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=0.0, updates=0))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            if parameters := [p for p in group["params"] if p.grad is not None]:
                group["updates"] += 1
                self._update(group, parameters)

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        (b1, b2), lr, t = group["betas"], group["lr"], group["updates"]
        grads = [p.grad for p in parameters if p.grad is not None]
        m, v = (self._moments(parameters, name) for name in ("m", "v"))
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_lerp_(m, grads, 1 - b1)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(v, b2)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_addcmul_(v, grads, grads, 1 - b2)  # pyright: ignore[reportPrivateImportUsage]
        roots = torch._foreach_sqrt(v)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_div_(roots, (1 - b2**t) ** 0.5)  # pyright: ignore[reportPrivateImportUsage]
        angles = [torch.atan2(a, b, out=b) for a, b in zip(m, roots, strict=True)]
        torch._foreach_sub_(parameters, angles, alpha=lr / (1 - b1**t))  # pyright: ignore[reportPrivateImportUsage]

    def _moments(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]
