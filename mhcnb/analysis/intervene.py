"""What a trained model owes to its maps: res is replaced at chosen sites while the model is evaluated."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mhcnb.errors import ConfigError, nearest
from mhcnb.layers.site import probing, sites
from mhcnb.models.base import Batch, Model, evaluating


class Evaluates(Protocol):
    """An objective, as far as it is needed here."""

    def evaluate(self, model: Model, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """{"loss": (sum, count)} of one batch, and other metrics."""
        ...


class LossChange(NamedTuple):
    """Mean loss in nats under a rule at the `count` sites that `sites` names; change: from the loss without it."""

    rule: str
    sites: str
    count: int
    loss: float
    change: float


@contextmanager
def intervened(model: Model, rule: str, sites: str | Iterable[str] | None = None, seed: int = 0) -> Iterator[list[str]]:
    """For a while the named sites (all) mix by another res: `identity` I, `average` J/n, or `shuffled`, that of another
    token of the same batch. `sites` are names or patterns such as "main.[0-3].*". Gives the names of the sites.

    Other probes see the res that is used. Shuffled: one cycle through all tokens, drawn from `seed`, the same at every
    site, so no token keeps its own; the donor may come later in the text. Raises ConfigError for an unknown rule or
    site.
    """
    if rule not in RULES:
        raise ConfigError(f"no intervention is called {rule!r}{nearest(rule, RULES)}")
    replace, names = RULES[rule], matching(model, sites)
    with probing(model, lambda _, maps: maps._replace(res=replace(maps.res, seed)), names):
        yield names


def loss_changes(
    model: Model,
    objective: Evaluates,
    batches: Iterable[Batch],
    rules: Iterable[str] | None = None,
    sites: Iterable[str] = ("*",),
    seed: int = 0,
) -> list[LossChange]:
    """The loss over `batches` under each rule (all) at each entry of `sites`, one name or pattern at a time, beside
    the loss without intervention. In evaluation mode, without gradient."""
    batches = list(batches)
    with evaluating(model):
        plain, found = _loss(model, objective, batches), []
        for rule in RULES if rules is None else rules:
            for pattern in sites:
                with intervened(model, rule, pattern, seed) as names:
                    loss = _loss(model, objective, batches)
                found.append(LossChange(rule, pattern, len(names), loss, loss - plain))
    return found


def matching(model: Model, patterns: str | Iterable[str] | None = None) -> list[str]:
    """The sites, in their order, that are named or matched (None: all). Raises ConfigError where one fits no site."""
    known = list(sites(model))
    if patterns is None:
        return known
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError(f"no site is called {pattern!r}{nearest(pattern, known)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _loss(model: Model, objective: Evaluates, batches: Iterable[Batch]) -> float:
    place = next(model.parameters()).device
    total, count = 0.0, 0.0
    with torch.no_grad():
        for batch in batches:
            found = objective.evaluate(model, {name: value.to(place) for name, value in batch.items()})["loss"]
            total, count = total + float(found[0]), count + float(found[1])
    return total / count


def _identity(res: Tensor, seed: int) -> Tensor:
    return torch.eye(res.shape[-1], dtype=res.dtype, device=res.device).expand_as(res)


def _average(res: Tensor, seed: int) -> Tensor:
    return torch.full_like(res, 1 / res.shape[-1])


def _shuffled(res: Tensor, seed: int) -> Tensor:
    tokens = res.flatten(end_dim=-3)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    donors = torch.empty_like(order)
    donors[order] = order.roll(1)  # each takes that of its predecessor in a random round
    return tokens[donors.to(res.device)].view_as(res)


RULES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "identity": _identity,
    "average": _average,
    "shuffled": _shuffled,
}
