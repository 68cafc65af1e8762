"""A run writes: text in, text out, piece by piece. What `mhcnb generate` and the prompt box stand on."""

import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from mhcnb.data.tokenizer import Codec, open_tokenizer, run_tokenizer
from mhcnb.errors import ConfigError, DataError
from mhcnb.models.base import Model
from mhcnb.models.generation import Sampling, stream
from mhcnb.paths import find
from mhcnb.training.checkpoint import load_model

USUAL = 200  # tokens, where nobody asks for a number
PLAIN = Sampling()


class Writing:
    """The text after a prompt, a piece for each token, to be gone through once. `words()`: how far it has come."""

    def __init__(self, pieces: Iterator[str], most: int, room: int) -> None:
        self.most, self.room, self.count, self.seconds = most, room, 0, 0.0
        self.stopped = False
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        """Ends before its time where `stopped` is set."""
        begun = time.monotonic()
        while not self.stopped and (piece := next(self._pieces, None)) is not None:
            self.count, self.seconds = self.count + 1, time.monotonic() - begun
            yield piece

    def words(self) -> str:
        """`64 tokens, 210 a second; the document ends here`."""
        why = "the document ends here"
        if self.stopped:
            why = "stopped"
        elif self.count == self.room:
            why = "with the prompt that fills model.block_size"
        elif self.count == self.most:
            why = "as many as asked for"
        return f"{self.count} tokens, {self.count / max(self.seconds, 1e-9):,.0f} a second; {why}"


class Writer:
    """A model that decodes, with the tokenizer of what it was trained on."""

    def __init__(self, model: Model, codec: Codec) -> None:
        self.model, self.codec = model, codec
        config: Any = model.config
        self.block_size: int = config.block_size

    @classmethod
    def open(cls, run: str | Path, tokenizer: str | Path | None = None) -> "Writer":
        """Of a run (its newest sound checkpoint), a checkpoint or a saved folder, on the accelerator if there is one.
        `tokenizer`, a file, folder or id, takes the place of the run's own.

        Raises CheckpointError or RunError where there is no model, ConfigError where it writes no text, DataError
        where no tokenizer is known.
        """
        path = find(run)
        model, config = load_model(path)
        if not model.decodes or config.objective.name != "lm":
            raise ConfigError(
                f"{run}: its {config.model.name} with the objective {config.objective.name} does not write text; give "
                "a run of a language model, as of params/rlm/tiny.yaml"
            )
        codec = open_tokenizer(tokenizer) if tokenizer else run_tokenizer(path)
        place = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        return cls(model.to(place), codec)

    def write(self, prompt: str, tokens: int = USUAL, sampling: Sampling = PLAIN, seed: int = 0) -> Writing:
        """What follows a prompt, up to the end of the document; at most `tokens`, and as many as model.block_size has
        room for. The same seed gives the same text. Raises ConfigError, DataError."""
        ids = self._ids(prompt)
        room = self.block_size - len(ids)
        most = min(tokens, max(1, room))
        generator = torch.Generator(next(self.model.parameters()).device).manual_seed(seed)
        new = stream(self.model, [ids], most, sampling, self.codec.mark, generator)
        written = (int(token) for token in new if int(token) != self.codec.mark)
        # the prompt's ids go through the decoder, too: some tokens have a space in front, but not at the beginning
        pieces = islice(self.codec.stream(chain(ids, written)), len(ids), None)
        return Writing(pieces, most, room)

    def _ids(self, prompt: str) -> list[int]:
        """Raises DataError."""
        if not prompt:
            raise DataError("the prompt is empty; give the beginning of a text, as one word of it")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the prompt is not UTF-8 text: character {error.start} is a byte of another kind"
            ) from error
        return self.codec.encode(prompt)
