"""Rows 1-14, 16 and 23: shards and text that are damaged, mixed, of another kind, or not there."""

import os
import shutil

import pytest

from mhcnb.data.decode import decode, tokenizer_of
from mhcnb.data.shardfile import Shard
from mhcnb.data.text import END
from mhcnb.errors import DataError
from mhcnb.run import Run
from mhcnb.training.loop import train_steps

HEADER = 1024
MAGIC = (20240520).to_bytes(4, "little")


def number(value):
    return int(value).to_bytes(4, "little", signed=True)


def wide(tokens):
    """uint16 tokens as uint32: each followed by two bytes of zeros."""
    return b"".join(tokens[i : i + 2] + bytes(2) for i in range(0, len(tokens), 2))


# what becomes of a sound train.bin, a header and 4000 uint16 tokens -> what is said besides its path
DAMAGE = {
    "row01 empty": (lambda whole: b"", ["0 bytes"]),
    "row02 odd length": (
        lambda whole: whole[HEADER:-1],
        ["7,999 bytes", "uint16 needs an even number", "the last whole token is number 3,998"],
    ),
    "row03 cut off": (
        lambda whole: whole[:-20],
        ["header says 4,000 tokens, file holds 3,990 (9,004 bytes)", "cut off; fetch"],
    ),
    "row03 cut off inside a token": (lambda whole: whole[:-1], ["header says 4,000", "file holds 3,999 (9,023 bytes)"]),
    "row03 a header alone": (
        lambda whole: whole[:8] + number(0) + whole[12:HEADER],
        ["header says 0 tokens, file holds 0", "empty"],
    ),
    "row04 longer than it says": (
        lambda whole: whole + bytes(20),
        ["header says 4,000 tokens, file holds 4,010", "longer than it says"],
    ),
    "row04 a negative count": (
        lambda whole: whole[:8] + number(-1) + whole[12:],
        ["header says -1 tokens, file holds 4,000"],
    ),
    "row05 a header cut off": (lambda whole: whole[:700], ["700 bytes, but its header alone has 1024"]),
    "row06 unknown version": (lambda whole: whole[:4] + number(7) + whole[8:], ["header version 7; supported: 1"]),
    "row07 byte-swapped": (
        lambda whole: MAGIC[::-1] + whole[4:],
        [MAGIC[::-1].hex(" "), "magic reversed: byte-swapped?"],
    ),
    "row10 32-bit tokens, flat": (
        lambda whole: wide(whole[HEADER:]),
        ["every second uint16 token is at most 0: looks like 32-bit tokens", 'put {"dtype": "uint32"} into meta.json'],
    ),
    "row10 32-bit tokens, headered": (
        lambda whole: whole[:HEADER] + wide(whole[HEADER:]),
        ["header says 4,000 tokens, file holds 4 bytes a token: looks like 32-bit tokens", '{"dtype": "uint32"}'],
    ),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard(refused, params, shards, damage, says):
    """Training and `data check` refuse it in the same words."""
    path = shards / "train.bin"
    path.write_bytes(damage(path.read_bytes()))
    said = refused(DataError, "train", params(), "--out", "run", says=[str(path), *says])
    assert refused(DataError, "data", "check", shards, says=[]) == said


@pytest.mark.parametrize("magic", [number(20240801), MAGIC[::-1]], ids=["row07 another magic", "row07 swapped"])
def test_a_declared_header_that_is_not_there_is_not_read_as_512_tokens(refused, params, shards, magic):
    path = shards / "train.bin"
    path.write_bytes(magic + path.read_bytes()[4:])
    (shards / "meta.json").write_text('{"layout": "header"}')
    says = [f"{path}: starts with the bytes {magic.hex(' ')}, while meta.json says layout header", MAGIC.hex(" ")]
    said = refused(DataError, "train", params(), "--out", "run", says=says)
    assert ("byte-swapped?" in said) == (magic == MAGIC[::-1])


def test_row08_headered_and_flat_shards_together(refused, params, shards):
    flat = shards / "train_2.bin"
    flat.write_bytes((shards / "val.bin").read_bytes()[HEADER:])
    says = [f"{shards}: mixed formats", "headered uint16: train.bin, val.bin", "flat uint16: train_2.bin"]
    refused(DataError, "train", params(), "--out", "run", says=says)


@pytest.mark.parametrize("split", ["train", "val"], ids="row09 {}".format)
@pytest.mark.parametrize("at", [7, 993])
def test_a_token_outside_the_vocabulary(refused, mhcnb, params, shards, split, at):
    path = shards / f"{split}.bin"
    content = bytearray(path.read_bytes())
    content[HEADER + 2 * at : HEADER + 2 * at + 2] = (64).to_bytes(2, "little")
    path.write_bytes(content)
    says = [f"{path}: token 64 at offset {at} is outside the vocabulary of 64; read as headered uint16"]
    said = refused(DataError, "train", params(), "--out", "run", says=[*says, "Wrong tokenizer? Give model.vocab_size"])
    assert refused(DataError, "data", "check", shards, "--vocab", 64, says=[]) == said
    assert mhcnb("data", "check", shards, "--vocab", 65).exit_code == 0


@pytest.mark.parametrize("split", ["train", "val"], ids="row11 {}".format)
def test_a_shard_shorter_than_a_window(refused, mhcnb, params, shards, split):
    path = shards / f"{split}.bin"
    content = path.read_bytes()
    path.write_bytes(content[:8] + number(8) + content[12 : HEADER + 2 * 8])
    says = [f"{path}: 8 tokens; a window needs block_size + 1 = 9. Give a smaller model.block_size"]
    refused(DataError, "train", params(), "--out", "run", says=says)
    assert mhcnb("train", params(), "model.block_size=7", "train.steps=1", "--out", "run").exit_code == 0


def test_row12_no_file_matches(refused, params, shards):
    says = [f"{shards}: no train shards: no file matches trian*.bin", "nearest: train.bin", "data.train_glob"]
    refused(DataError, "train", params(), "data.train_glob=trian*.bin", "--out", "run", says=says)


@pytest.mark.parametrize("how", ["row13 missing", "row13 empty"])
def test_a_validation_split_that_is_not_there(refused, params, shards, how):
    path = shards / "val.bin"
    if "missing" in how:
        path.unlink()
        says = [f"{shards}: no val shards: no file matches *val*.bin; 1 file(s) of the other split", "data.val_glob"]
    else:
        path.write_bytes(b"")
        says = [f"{path}: 0 bytes: no tokens"]
    refused(DataError, "train", params(), "--out", "run", says=says)


@pytest.mark.parametrize("how", ["row14 a copy", "row14 one name that both patterns match"])
def test_validation_text_in_training(refused, params, shards, how):
    copy = shards / "train_2.bin"
    if "copy" in how:
        shutil.copy(shards / "val.bin", copy)
        says = [f"{copy} and {shards / 'val.bin'} are the same file"]
    else:
        (shards / "train.bin").rename(shards / "trainval.bin")
        says = [f"{shards / 'trainval.bin'} matches both *train*.bin and *val*.bin"]
    said = refused(DataError, "train", params(), "--out", "run", says=[*says, "remove one, or set the globs apart"])
    assert refused(DataError, "data", "check", shards, says=[]) == said


def test_row14_the_same_text_given_twice(refused, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("Some words.\n\n" * 3000)
    says = ["a.txt and b.txt are the same text; give it once"]
    refused(DataError, "data", "prepare", "a.txt", "b.txt", "--out", "out", says=says)
    refused(DataError, "data", "prepare", "a.txt", "a.txt", "--out", "out", says=["a.txt and a.txt are the same text"])


def test_row16_a_shard_that_shrinks_while_it_is_trained_on(small, shards, tmp_path):
    """No signal kills the process: an error names the file, and the last checkpoint stays."""
    run, path = Run(tmp_path / "run"), shards / "train.bin"

    def train():
        for info in train_steps(small(**{"train.steps": 200}), run.path):
            if info.step == 1:
                run.request("checkpoint")
            if run.checkpoints():
                os.truncate(path, 3000)

    with pytest.raises(DataError) as error:
        train()
    assert f"{path}: ends at byte 3,000; it had 9,024 bytes when it was opened" in str(error.value)
    assert run.status()["state"] == "failed"
    assert str(path) in run.status()["reason"]
    assert run.last_checkpoint().name == "step-00000002"


def test_row16_a_shard_that_vanishes_while_it_is_trained_on(refused, params, small, shards, tmp_path):
    """The open file still gives its tokens, so the run ends well. The next one says what is gone."""
    for info in train_steps(small(), tmp_path / "run"):
        if info.step == 1:
            (shards / "train.bin").unlink()
    assert Run(tmp_path / "run").status()["state"] == "done"
    refused(DataError, "train", params(), "--out", "next", says=[f"{shards}: no train shards: no file matches"])


LINES = "".join(f"Line {i}: some words, {i * 7919 % 1000} of them.\n\n" for i in range(900))


@pytest.mark.parametrize("how", ["row23 byte-order mark", "row23 CRLF"])
def test_text_of_windows_is_taken(mhcnb, tmp_path, how):
    """The mark is no token; ends of lines are text like any other and come back as they were."""
    text = LINES if "mark" in how else LINES.replace("\n", "\r\n")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" * ("mark" in how) + text.encode())
    done = mhcnb("data", "prepare", "a.txt", "--out", "out", "--vocab", 300)
    assert done.exit_code == 0, done.stderr
    pieces = []
    for split in ("train", "val"):
        shard = Shard(tmp_path / "out" / f"{split}.bin")
        pieces.append(decode(shard.read(0, shard.tokens), tokenizer_of(tmp_path / "out")))
    assert sorted("".join(pieces).replace(END, "").splitlines()) == sorted(text.splitlines())


REFUSED_TEXT = {  # bytes after the lines above, or all of them -> where and what
    "row23 NUL": (LINES.encode() + b"a\0b", f"a.txt:1801: UTF-16 or a binary file?: byte 0x00 at {len(LINES) + 1:,}"),
    "row23 UTF-16": (LINES.encode("utf-16"), "a.txt:1: not UTF-8 text: byte 0xff at 0;"),
    "row23 UTF-16 without a mark": (LINES.encode("utf-16-le"), "a.txt:1: UTF-16 or a binary file?: byte 0x00 at 1;"),
    "row23 a lone surrogate": (
        LINES.encode() + b"\xed\xa0\x80",
        f"a.txt:1801: not UTF-8 text: byte 0xed at {len(LINES):,}",
    ),
}


@pytest.mark.parametrize(("content", "where"), REFUSED_TEXT.values(), ids=REFUSED_TEXT)
def test_text_that_is_none(refused, tmp_path, content, where):
    (tmp_path / "a.txt").write_bytes(content)
    says = [where.replace(" at ", " at offset "), "convert it, e.g. `iconv -t UTF-8`"]
    refused(DataError, "data", "prepare", "a.txt", "--out", "out", "--vocab", 300, says=says)
