"""Which text the ids mean: a tokenizer from a file, a folder or a hub, or one trained on the texts."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mhcnb.durable import write_text
from mhcnb.errors import DataError
from mhcnb.paths import find

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

END = "<|endoftext|>"
OTHER_ENDS = ("<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>")  # what else tokenizers call it
FILE = "tokenizer.json"
ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class Codec(NamedTuple):
    """Text to ids and back. `mark` is the id that stands in front of each document."""

    tokenizer: "Tokenizer"
    mark: int

    @property
    def size(self) -> int:
        """The largest id and one."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def digest(self) -> str:
        """SHA-256 of what the ids mean: the same whichever version of the library wrote the file."""
        vocab = self.tokenizer.get_vocab(with_added_tokens=True)
        return hashlib.sha256(json.dumps(sorted((i, token) for token, i in vocab.items())).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without a mark; a mark that is spelled out in it is text like any other."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids [t], marks included."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come; a character of several ids comes with its last."""
        from tokenizers.decoders import DecodeStream

        decoder = DecodeStream(skip_special_tokens=False)
        for i in ids:
            yield decoder.step(self.tokenizer, int(i)) or ""

    def save(self, path: Path) -> None:
        """A tokenizers JSON file, whole or not there."""
        write_text(path, self.tokenizer.to_str())


def open_tokenizer(name: str | Path) -> Codec:
    """The tokenizer of a tokenizers JSON file, of a folder with one (or with what transformers reads), or of an id on
    the Hugging Face hub. One that knows no mark gets <|endoftext|>. Raises DataError."""
    file, path = tokenizer_file(name), find(name)
    if file is not None:
        return _marked(_read(file), _end_beside(file), str(file))
    if path.exists():
        return _from_pretrained(str(path), f"{path} holds no {FILE}")
    if not ID.fullmatch(str(name)) or str(name).endswith(".json"):
        raise DataError(f"{name}: no such file; expected a tokenizer.json of the tokenizers library")
    return _from_pretrained(str(name), f"{name} is no file or folder here, so it was taken for an id")


def tokenizer_file(name: str | Path) -> Path | None:
    """The tokenizers JSON file that a name means, if it means one on this machine: itself, or the one in a folder."""
    path = find(name)
    path = path / FILE if path.is_dir() else path
    return path if path.is_file() else None


def run_tokenizer(folder: str | Path) -> Codec:
    """The tokenizer of the data that a run (its folder, or that of one of its checkpoints) was trained on.

    Raises DataError where the run has kept none and the one that it names is gone.
    """
    codec, mark = open_tokenizer(kept_tokenizer(folder)), _data_of(folder).get("end_of_text")
    return codec if mark is None else codec._replace(mark=mark)


def kept_tokenizer(folder: str | Path) -> Path:
    """Its file: in the run's folder, else where the run's env.json says. Raises DataError."""
    run, named = _run_of(folder), _data_of(folder).get("tokenizer")
    for path in (run / FILE, Path(named or run / FILE)):
        if path.is_file():
            return path
    raise DataError(
        f"{run}: no {FILE} in it, and its data name {named or 'none'}: nothing says which text its ids mean; give the "
        "tokenizer that they were made with, as `mhcnb generate` takes it by --tokenizer"
    )


def _run_of(folder: str | Path) -> Path:
    folder = find(folder)
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder


def _data_of(folder: str | Path) -> dict[str, Any]:
    """What its env.json says of its data."""
    data = _json(_run_of(folder) / "env.json").get("data")
    return data if isinstance(data, dict) else {}


def train_tokenizer(documents: Iterable[str], vocab: int, progress: bool = False) -> Codec:
    """A byte-level BPE tokenizer of at most `vocab` entries, the mark <|endoftext|> being the first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=progress
    )
    tokenizer.train_from_iterator(documents, trainer)
    return _marked(tokenizer, None, "the trained tokenizer")


def _read(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from error


def _marked(tokenizer: "Tokenizer", end: str | None, name: str) -> Codec:
    """Ready for whole documents. `end` is what its own configuration calls the end of a text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    mark = next((mark for mark in (END, end, *OTHER_ENDS) if mark in vocab), None)
    if mark is None:
        tokenizer.add_special_tokens([END])
        vocab, mark = tokenizer.get_vocab(with_added_tokens=True), END
        log.info("%s has no %s; added as id %d", name, END, vocab[END])
    return Codec(tokenizer, vocab[mark])


def _end_beside(file: Path) -> str | None:
    """The eos_token of the tokenizer_config.json in the same folder."""
    value = _json(file.with_name("tokenizer_config.json")).get("eos_token")
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; {} where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _from_pretrained(name: str, why: str) -> Codec:
    """Through transformers where it is installed, else through the tokenizers library's own client."""
    try:
        tokenizer, end = _fetched(name)
    except Exception as error:  # theirs are of many kinds
        said = next(iter(str(error).strip().splitlines()), "").rstrip(".") or type(error).__name__
        raise DataError(
            f"{why}; it could not be read as one: {said[:300]}. Without a connection give a {FILE} or the folder that "
            "holds one, or leave the tokenizer out: one is trained on the texts"
        ) from error
    if tokenizer is None:
        raise DataError(f"{name}: its tokenizer has no form of the tokenizers library; give a {FILE}")
    return _marked(tokenizer, end, name)


def _fetched(name: str) -> tuple[Any, str | None]:
    """(the library's Tokenizer or None, what it calls the end of a text)."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        from tokenizers import Tokenizer

        return Tokenizer.from_pretrained(name), None
    found: Any = AutoTokenizer.from_pretrained(name)
    return getattr(found, "backend_tokenizer", None), found.eos_token
