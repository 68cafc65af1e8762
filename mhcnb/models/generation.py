"""Text goes on, token by token: what follows a prompt, drawn from a model that decodes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhcnb import registry
from mhcnb.errors import ConfigError, DataError
from mhcnb.layers.cache import Cache
from mhcnb.models.base import Model, evaluating

Prompts = Tensor | Sequence[Tensor | Sequence[int]]  # ids [b, t], or rows of different lengths


class Sampling(NamedTuple):
    """How the next token is drawn: temperature 0 takes the most likely one; top_k 0 leaves all to choose from."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def check(self) -> None:
        """Raises ConfigError."""
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature = {self.temperature}; expected 0 (the most likely token) or a number above")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p = {self.top_p}; expected a share of the probability in (0, 1]; 1 keeps all of it")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise ConfigError(f"top_k = {self.top_k}; expected a number of tokens, or 0 for all")

    def probabilities(self, logits: Tensor) -> Tensor:
        """logits [b, v] to [b, v]: softmax(logits / temperature) over the top_k most likely tokens, then over the
        fewest most likely of these that have a share top_p of it. Temperature above 0."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            kept, index = logits.topk(self.top_k)
            logits = torch.full_like(logits, -torch.inf).scatter(-1, index, kept)
        p = logits.softmax(-1)
        if self.top_p == 1:
            return p
        likely, index = p.sort(descending=True, stable=True)
        likely = likely.where(likely.cumsum(-1) - likely < self.top_p, 0.0)
        return torch.zeros_like(p).scatter(-1, index, likely / likely.sum(-1, keepdim=True))

    def draw(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """logits [b, v] to a token of each row, [b]."""
        if self.temperature == 0:
            return logits.argmax(-1)
        return torch.multinomial(self.probabilities(logits), 1, generator=generator).squeeze(-1)


def generate(
    model: Model,
    ids: Prompts,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    eos: int | None = None,  # a row ends with it
    generator: torch.Generator | None = None,  # of the model's device
) -> Any:
    """Prompts and what follows them. A tensor [b, t] gives a tensor [b, t + new], rows that ended filled up with eos; a
    list of rows gives a list of tensors, each up to its eos. Raises as `stream` does."""
    rows = _rows(ids)
    tokens = stream(model, rows, max_new_tokens, Sampling(temperature, top_p, top_k), eos, generator)
    new = torch.stack(list(tokens), dim=-1)
    if isinstance(ids, Tensor):
        return torch.cat([ids.to(new.device), new], dim=-1)
    return [torch.cat([row.to(new.device), _until(eos, tail)]) for row, tail in zip(rows, new, strict=True)]


def stream(
    model: Model,
    ids: Prompts,
    max_new_tokens: int,
    sampling: Sampling,
    eos: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The next token of each row, [b], as they come, in evaluation mode and without gradient; of a row that has ended,
    eos; nothing more when all have. Raises ConfigError, or DataError for prompts that the model cannot take, at once.
    """
    sampling.check()
    rows = _rows(ids)
    _check(model, rows, max_new_tokens, eos)
    return _stream(model, rows, max_new_tokens, sampling, eos, generator)


def _stream(
    model: Model, rows: list[Tensor], most: int, sampling: Sampling, eos: int | None, generator: torch.Generator | None
) -> Iterator[Tensor]:
    place = next(model.parameters()).device
    tokens, padding = _aligned([row.to(place) for row in rows])
    cache = Cache(tokens.shape[1] + most - 1, padding)  # what is drawn last is not looked at
    ended = torch.zeros(len(rows), dtype=torch.bool, device=place)
    with evaluating(model):
        for _ in range(most):
            chosen = sampling.draw(_last_logits(model, tokens, cache), generator)
            if eos is not None:
                chosen = chosen.where(~ended, eos)
                ended |= chosen == eos
            yield chosen
            if ended.all():
                return
            tokens = chosen.unsqueeze(-1)


@torch.no_grad()
def _last_logits(model: Model, tokens: Tensor, cache: Cache) -> Tensor:
    """tokens [b, t] to the logits after the last of them, [b, v]."""
    output = model({"inputs": tokens}, cache=cache)
    return output.head(output.hidden[:, -1])


def _rows(ids: Prompts) -> list[Tensor]:
    """Prompts [t_i]. Raises DataError."""
    if isinstance(ids, Tensor) and ids.ndim != 2:
        raise DataError(f"prompts of shape {list(ids.shape)}; expected [b, t], as ids[None] of one prompt, or a list")
    rows = [torch.as_tensor(row) for row in ids]
    for i, row in enumerate(rows):
        if not row.numel():
            raise DataError(f"prompt {i} is empty; give it a token at least, as the end of text")
        if row.ndim != 1 or row.is_floating_point():
            raise DataError(f"prompt {i} is {row.dtype} of shape {list(row.shape)}; expected token ids [t]")
    if not rows:
        raise DataError("no prompt is given; expected at least one")
    return [row.long() for row in rows]


def _check(model: Model, rows: list[Tensor], most: int, eos: int | None) -> None:
    """Whether the model can go on so far from there. Raises ConfigError and DataError."""
    if not model.decodes:
        known = ", ".join(name for name in registry.entries("models") if registry.load("models", name).decodes)
        raise ConfigError(f"{type(model).__name__} does not decode token by token; models that do: {known}")
    if not isinstance(most, int) or most < 1:
        raise ConfigError(f"max_new_tokens = {most}; expected 1 or more")
    config: Any = model.config
    if eos is not None and not 0 <= eos < config.vocab_size:
        raise ConfigError(f"eos = {eos}; the model has tokens 0 to {config.vocab_size - 1}")
    longest = max(len(row) for row in rows)
    if longest >= config.block_size:
        raise DataError(f"a prompt of {longest} tokens; model.block_size is {config.block_size}, so shorten it")
    if longest + most > config.block_size:
        raise ConfigError(
            f"a prompt of {longest} tokens and max_new_tokens = {most} make {longest + most}; model.block_size is "
            f"{config.block_size}: ask for {config.block_size - longest} at most"
        )
    largest, least = (int(f(torch.cat(rows))) for f in (torch.max, torch.min))
    if least < 0 or largest >= config.vocab_size:
        wrong = least if least < 0 else largest
        raise DataError(f"token {wrong} in a prompt; the model has 0 to {config.vocab_size - 1}. Another tokenizer's?")


def _aligned(rows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Prompts as one tensor [b, t], filled up before them, and how far [b]; None for equal lengths."""
    padding = torch.tensor([max(map(len, rows)) - len(row) for row in rows], device=rows[0].device)
    tokens = torch.stack([F.pad(row, (before, 0)) for row, before in zip(rows, padding.tolist(), strict=True)])
    return tokens, padding if padding.any() else None


def _until(eos: int | None, tail: Tensor) -> Tensor:
    """tail [t] up to its first eos."""
    ends = [] if eos is None else (tail == eos).nonzero().flatten().tolist()
    return tail[: ends[0] + 1] if ends else tail
