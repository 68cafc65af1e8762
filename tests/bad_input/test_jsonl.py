"""Rows 17-24: lines of JSON that hold no text, or cannot be read; and text with options that leave nothing of it."""

import gzip
import json

import pytest

from mhcnb.data import jsonl
from mhcnb.errors import DataError

GOOD = [json.dumps({"id": i, "text": f"Line {i}: some words, {i * 7919 % 1000} of them."}) for i in range(150)]
BEFORE = "".join(line + "\n" for line in GOOD).encode()
HERE = len(BEFORE)
DEEP = b'{"text": "a", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

LINES = {  # line 151, at byte HERE of the file -> what is said of it
    "row17 a Latin-1 letter": (b'{"text": "caf\xe9"}', f"not UTF-8 text: byte 0xe9 at offset {HERE + 13:,}"),
    "row17 a character cut off": (b'{"text": "\xe2\x82"}', f"not UTF-8 text: byte 0xe2 at offset {HERE + 10:,}"),
    "row18 words": (b"just words", "not valid JSON: Expecting value at column 1"),
    "row18 a torn line": (b'{"text": "some wo', "not valid JSON: Invalid control character at column 18"),
    "row18 two objects": (b'{"text": "a"} {"text": "b"}', "not valid JSON: Extra data at column 15"),
    "row18 a number of 5000 digits": (b'{"n": ' + b"1" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
    "row18 a list": (b'["text"]', 'expected an object, as {"text": "..."}, got a list'),
    "row19 another key": (b'{"id": 1, "txt": "a"}', "no key text; did you mean txt? known: id, txt; name the one"),
    "row19 no key": (b"{}", "no key text; known: none"),
    "row19 a key that would move the cursor": (b'{"\\u001b[2Jx": 1}', r"no key text; known: \x1b[2Jx"),
    "row20 null": (b'{"text": null}', "text is null; expected text"),
    "row20 NaN": (b'{"text": NaN}', "text is NaN; expected text"),
    "row20 a number": (b'{"text": 1.5}', "text is a number; expected text"),
    "row20 true": (b'{"text": true}', "text is true; expected text"),
    "row20 a list": (b'{"text": ["a"]}', "text is a list; expected text"),
    "row20 an object": (b'{"text": {"a": 1}}', "text is an object; expected text"),
    "row23 NUL": (b'{"text": "a\0b"}', "NUL at column 12: UTF-16 or a binary file?"),
    "row23 NUL, escaped": (b'{"text": "a\\u0000b"}', "text has a NUL at character 2"),
    "row23 a lone surrogate": (b'{"text": "a\\ud800b"}', "text has a lone surrogate, \\ud800 at character 2"),
    "row23 UTF-16": ("\ufeff{}".encode("utf-16-le"), f"not UTF-8 text: byte 0xff at offset {HERE:,}"),
    "row24 nested deeply": (DEEP, "nested too deeply"),
}


def prepare(*options):
    return ["data", "prepare", "a.jsonl", "--out", "out", "--vocab", 300, *options]


@pytest.mark.parametrize(("line", "says"), LINES.values(), ids=LINES)
def test_a_line(refused, mhcnb, tmp_path, line, says):
    """Refused with its number; skipped and counted where that is asked for."""
    (tmp_path / "a.jsonl").write_bytes(BEFORE + line + b"\n" + BEFORE.replace(b"Line", b"And"))
    refused(DataError, *prepare(), says=[f"a.jsonl:151: {says}", "leave such lines out: --on-bad skip"])
    done = mhcnb(*prepare("--on-bad", "skip"))
    assert done.exit_code == 0, done.output
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["read"] == {"documents": 300, "bad_lines": 1, "too_short": 0, "duplicates": 0}


def test_row18_a_torn_last_line(refused, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(BEFORE + b'{"text": "some wo')
    says = ["a.jsonl:151: not valid JSON: Unterminated string", "at column 10; the file ends in this line: cut off?"]
    refused(DataError, *prepare(), says=says)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"], ids="row19 {}".format)
def test_training_on_a_file_with_another_key(refused, mhcnb, params, tmp_path, monkeypatch, tmp_path_factory, ending):
    """The same words as in preparation, before anything is begun; named, the key is found."""
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path_factory.mktemp("cache")))
    content = (BEFORE + BEFORE.replace(b"Line", b"And")).replace(b'"text"', b'"txt"')
    (tmp_path / f"a.{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    run = ["train", params(), f"data.root=a.{ending}", "model.vocab_size=auto", "train.steps=1", "--out", "run"]
    refused(DataError, *run, says=[f"a.{ending}:1: no key text; did you mean txt?", "data.text_key"])
    assert mhcnb(*run, "data.text_key=txt").exit_code == 0


@pytest.mark.parametrize("ends", [b"\n", b""], ids=["row21 in the middle", "row21 at the end"])
def test_a_huge_line(refused, mhcnb, tmp_path, monkeypatch, ends):
    """That no more of it is held than may be: tests/data/test_jsonl.py."""
    monkeypatch.setattr(jsonl, "LONGEST", 4096)
    monkeypatch.setattr("mhcnb.data.textfile.LONGEST", 4096)
    (tmp_path / "a.jsonl").write_bytes(BEFORE + b"a" * 10_000 + ends + (BEFORE if ends else b""))
    size = f"{10_000 + len(ends):,} bytes; at most 4,096"
    refused(DataError, *prepare(), says=[f"a.jsonl:151: a line of {size} are held in memory"])
    done = mhcnb(*prepare("--on-bad", "skip"))
    assert done.exit_code == 0, done.output
    read = json.loads((tmp_path / "out" / "meta.json").read_text())["read"]
    assert (read["documents"], read["bad_lines"]) == (300 if ends else 150, 1)


def test_row21_what_is_wrong_before_a_huge_line_is_said_first(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST", 4096)
    (tmp_path / "a.jsonl").write_bytes(BEFORE + b"{}\n" + b"a" * 10_000)
    refused(DataError, *prepare(), says=["a.jsonl:151: no key text"])


@pytest.mark.parametrize("content", [b"", b"\n\r\n \n", b"\xef\xbb\xbf\n"], ids="row22 {!r}".format)
def test_no_line_at_all(refused, tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    refused(DataError, *prepare(), says=[f"a.jsonl: no text in it ({len(content)} bytes)"])


@pytest.mark.parametrize("how", ["row23 a byte-order mark", "row23 CRLF"])
def test_lines_of_windows_are_taken(mhcnb, tmp_path, how):
    content = b"\xef\xbb\xbf" + BEFORE if "mark" in how else BEFORE.replace(b"\n", b"\r\n")
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "b.jsonl").write_bytes(BEFORE)
    assert mhcnb(*prepare()).exit_code == 0
    assert mhcnb("data", "prepare", "b.jsonl", "--out", "b", "--vocab", 300).exit_code == 0
    assert (tmp_path / "out" / "train.bin").read_bytes() == (tmp_path / "b" / "train.bin").read_bytes()


def test_row24_a_nested_file_as_the_data_of_a_run(refused, params, tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path_factory.mktemp("cache")))
    (tmp_path / "a.jsonl").write_bytes(DEEP + b"\n")
    says = ["a.jsonl:1: nested too deeply"]
    refused(DataError, "train", params(), "data.root=a.jsonl", "model.vocab_size=auto", "--out", "run", says=says)


OPTIONS = {
    ("--val-fraction", 0): "val fraction 0: the validation split would be empty; expected more than 0",
    ("--val-fraction", 1): "val fraction 1: the training split would be empty",
    ("--min-tokens", 1000): "train: 0 tokens of 0 pieces; val: 0 tokens of 0 pieces; each needs at least 65 tokens. "
    "150 documents read; left out: 150 too short",
    ("--val-fraction", 0.001): "val: 14 tokens of 1 pieces; each needs at least 65",
    ("--max-tokens", 1): "max tokens 1: expected 0 (no limit) or more, and at least 2",
    ("--vocab", 256): "vocab 256: expected 257",
    ("--tokenizer", "none.json"): "none.json: no such file",
}


@pytest.mark.parametrize(("options", "says"), OPTIONS.items(), ids=[" ".join(map(str, option)) for option in OPTIONS])
def test_options_that_leave_nothing_or_make_no_sense(refused, tmp_path, options, says):
    (tmp_path / "a.jsonl").write_bytes(BEFORE)
    refused(DataError, *prepare(*options), says=[says])


@pytest.mark.parametrize("cut", [10, 200, -9])
def test_a_damaged_gzip_file(refused, tmp_path, cut):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(BEFORE)[:cut])
    refused(DataError, "data", "prepare", "a.jsonl.gz", "--out", "out", says=["a.jsonl.gz: a damaged gzip file"])


def test_a_file_of_one_json_document(refused, tmp_path):
    (tmp_path / "a.json").write_bytes(b"[]")
    refused(DataError, "data", "prepare", "a.json", "--out", "out", says=["a.json: expected .jsonl, an object a line"])
