"""What is to become of texts: the options of a preparation, which its meta.json repeats."""

from typing import Any, NamedTuple

from mhcnb.errors import DataError

SMALLEST_VOCAB = 257  # the bytes and the mark


class Recipe(NamedTuple):
    """Same texts and same recipe: the same shards, byte for byte."""

    key: str = "text"  # of the objects in .jsonl files
    tokenizer: str | None = None  # see tokenizer.open_tokenizer; None: one is trained on the texts
    vocab: int = 2048  # of the trained one
    seed: int = 0  # of the split and of the order
    min_tokens: int = 0  # shorter documents are left out
    max_tokens: int = 0  # longer documents become chunks of at most so many, each with its mark; 0: none does
    dedup: bool = False  # of equal documents the first is kept
    shuffle: bool = False  # documents in an order drawn by `seed`; chunks of one stay together
    val_fraction: float = 0.1  # of the documents kept, drawn by `seed`; at least one
    on_bad: str = "raise"  # a .jsonl line that cannot be used is an error; `skip`: it is counted

    def check(self) -> None:
        """Raises DataError for the first option that makes no sense."""
        if self.tokenizer is None and not SMALLEST_VOCAB <= self.vocab <= 2**24:
            raise DataError(f"vocab {self.vocab}: expected {SMALLEST_VOCAB} (the bytes and the mark) to {2**24}")
        if not 0 < self.val_fraction < 1:
            left = "validation" if self.val_fraction <= 0 else "training"
            raise DataError(
                f"val fraction {self.val_fraction:g}: the {left} split would be empty; expected more than 0 and less "
                "than 1, as 0.01 of many documents or 0.1 of few"
            )
        if self.min_tokens < 0 or self.max_tokens < 0 or self.max_tokens == 1:
            raise DataError(
                f"min tokens {self.min_tokens}, max tokens {self.max_tokens}: expected 0 (no limit) or more, and at "
                "least 2 in a chunk: the mark and a token"
            )
        if self.on_bad not in ("raise", "skip"):
            raise DataError(f"on bad {self.on_bad!r}: expected raise or skip")

    def options(self) -> dict[str, Any]:
        """For meta.json: all but what it says elsewhere."""
        return {name: value for name, value in self._asdict().items() if name not in ("tokenizer", "vocab", "seed")}
