"""A user's text to shards: everything is in one of the splits, once, and what cannot be used is refused whole."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhcnb.data import encoder, text
from mhcnb.data.decode import decode, tokenizer_of
from mhcnb.data.meta import read_meta
from mhcnb.data.prepare import prepare
from mhcnb.data.recipe import Recipe
from mhcnb.data.shardfile import Shard
from mhcnb.data.shards import Shards
from mhcnb.data.tokenizer import open_tokenizer
from mhcnb.errors import DataError
from mhcnb.objectives.base import Clock

WORDS = list(dict.fromkeys(__doc__.lower().replace(":", "").replace(",", "").replace(".", "").split()))


@pytest.fixture(scope="module")
def play():
    """120 kB in the manner of a play: a name, some lines, a blank line; no marks."""
    rng = random.Random(0)

    def speech():
        lines = [" ".join(rng.choices(WORDS, k=8)).capitalize() for _ in range(rng.randint(1, 6))]
        return f"{rng.choice(['ROMEO', 'JULIET', 'NURSE'])}:\n" + ",\n".join(lines) + ".\n\n"

    return "".join(speech() for _ in range(800))


def ids(path):
    shard = Shard(path, read_meta(path.parent))
    return shard.read(0, shard.tokens)


def pieces(out, name):
    """The documents of a split, decoded."""
    mark = open_tokenizer(out / "tokenizer.json").mark
    found = np.split(ids(out / f"{name}.bin"), np.flatnonzero(ids(out / f"{name}.bin") == mark))
    return [decode(part[1:], tokenizer_of(out)) for part in found if len(part)]


def test_a_text_without_marks_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path, play, config):
    (tmp_path / "play.txt").write_text(play)
    meta = prepare([tmp_path / "play.txt"], tmp_path / "out", Recipe(vocab=300))
    whole = text.split_documents(play)
    assert "".join(whole) == play
    assert all(text.PIECE <= len(piece) < text.PIECE + 400 and piece.endswith("\n\n") for piece in whole[:-1])
    train, val = pieces(tmp_path / "out", "train"), pieces(tmp_path / "out", "val")
    assert len(val) == round(len(whole) / 10) == meta["val"]["documents"]
    assert sorted(train + val) == sorted(whole)
    assert train == [piece for piece in whole if piece in train]  # in the text's order
    source = Shards(config(tmp_path / "out", vocab_size="auto"))
    source.check(config(tmp_path / "out", vocab_size="auto"))
    assert source.vocab_size == 300
    assert source.train_batch(Clock(0, 0), 0, 4)["inputs"].shape == (4, 8)


def test_marks_divide_documents(tmp_path):
    documents = [f"document {i}: " + " ".join(random.Random(i).choices(WORDS, k=60)) for i in range(40)]
    (tmp_path / "a.txt").write_text(text.END.join(documents[:25]))
    (tmp_path / "b.txt").write_text(f"\n{text.END}\n".join(["", *documents[25:]]))
    prepare([tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path / "out", Recipe(vocab=300))
    assert sorted(pieces(tmp_path / "out", "train") + pieces(tmp_path / "out", "val")) == sorted(documents)


def test_the_seed_decides_the_split_and_nothing_else_does(tmp_path, play):
    (tmp_path / "play.txt").write_text(play)
    outs = [tmp_path / name for name in ("a", "b", "c")]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        prepare([tmp_path / "play.txt"], out, Recipe(vocab=300, seed=seed))
    contents = [(out / "val.bin").read_bytes() for out in outs]
    assert contents[0] == contents[1] != contents[2]


def test_a_given_tokenizer_is_used_and_gets_the_mark_where_it_lacks_it(tmp_path, play):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["?", *WORDS])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(5)
    tokenizer.save(str(tmp_path / "words.json"))
    (tmp_path / "play.txt").write_text(play)
    meta = prepare([tmp_path / "play.txt"], tmp_path / "out", Recipe(tokenizer=str(tmp_path / "words.json")))
    assert meta["vocab_size"] == len(WORDS) + 2
    assert meta["end_of_text"] == len(WORDS) + 1
    assert meta["train"]["tokens"] > 10 * meta["train"]["documents"]  # not cut at five


def test_a_vocabulary_above_65536_is_stored_in_32_bits_and_says_so(tmp_path, play, config):
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {f"w{i}": i for i in range(70_000)} | {word: 70_000 + i for i, word in enumerate(["?", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "big.json"))
    (tmp_path / "play.txt").write_text(play)
    meta = prepare([tmp_path / "play.txt"], tmp_path / "out", Recipe(tokenizer=str(tmp_path / "big.json")))
    assert meta["dtype"] == "uint32"
    assert ids(tmp_path / "out" / "train.bin").min() >= 70_000
    Shards(config(tmp_path / "out", vocab_size="auto")).check(config(tmp_path / "out", vocab_size="auto"))


REFUSED = {
    "bad UTF-8": (b"good text\n" + b"\xff" + b"more", r"a\.txt:2: not UTF-8 text: byte 0xff at offset 10"),
    "bad UTF-8 after a byte-order mark": (b"\xef\xbb\xbfgood\xff", "offset 7"),
    "empty": (b"", r"a\.txt: no text in it \(0 bytes\)"),
    "blank": (b" \n\n ", r"a\.txt: no text in it"),
    "one piece": (b"a line\n" * 2000, "too little text.*train: 0 tokens of 0 pieces; val: .* tokens of 1 pieces"),
    "a word": (b"word", "too little text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_text_that_cannot_be_used_leaves_nothing_behind(tmp_path, case):
    content, says = REFUSED[case]
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=says):
        prepare([tmp_path / "a.txt"], tmp_path / "out", Recipe(vocab=300))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_missing_text_and_a_wrong_tokenizer(tmp_path, play):
    (tmp_path / "play.txt").write_text(play)
    with pytest.raises(DataError, match=r"none\.txt: cannot be read: No such file"):
        prepare([tmp_path / "none.txt"], tmp_path / "out", Recipe())
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        prepare([tmp_path / "play.txt"], tmp_path / "out", Recipe(tokenizer=str(tmp_path / "none.json")))
    with pytest.raises(DataError, match=r"play\.txt: not a tokenizer\.json"):
        prepare([tmp_path / "play.txt"], tmp_path / "out", Recipe(tokenizer=str(tmp_path / "play.txt")))
    with pytest.raises(DataError, match="vocab 100: expected 257"):
        prepare([tmp_path / "play.txt"], tmp_path / "out", Recipe(vocab=100))
    assert [path.name for path in tmp_path.iterdir()] == ["play.txt"]


def test_a_folder_in_use_is_refused_and_an_empty_one_is_filled(tmp_path, play, on_disk):
    (tmp_path / "play.txt").write_text(play)
    out = tmp_path / "out"
    out.mkdir()
    prepare([tmp_path / "play.txt"], out, Recipe(vocab=300))
    before = on_disk(out)
    with pytest.raises(DataError, match="already holds something"):
        prepare([tmp_path / "play.txt"], out, Recipe(vocab=300))
    assert on_disk(out) == before


def test_an_interruption_leaves_nothing(tmp_path, play, monkeypatch):
    (tmp_path / "play.txt").write_text(play)

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare([tmp_path / "play.txt"], tmp_path / "out", Recipe(vocab=300))
    assert [path.name for path in tmp_path.iterdir()] == ["play.txt"]


@given(st.text(st.sampled_from("ab \n\r\té"), max_size=300), st.integers(1, 20))
def test_pieces_are_contiguous_and_cover_the_text(content, size):
    before, text.PIECE = text.PIECE, size
    try:
        found = text.split_documents(content)
    finally:
        text.PIECE = before
    assert "".join(found) == (content if content.strip() else "")
    assert all(piece.strip() for piece in found)


def test_tokens_without_a_tokenizer_are_shown_as_ids():
    assert decode([50256, 15496], None) == "(no tokenizer is recorded with these tokens) 50256 15496"


def test_a_tokenizer_that_the_meta_file_names_but_is_gone(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json: meta\.json names this tokenizer"):
        decode([1], tmp_path / "gone.json")
