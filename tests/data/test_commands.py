"""`mhcnb data` by its options: what each does is told in meta.json, and what was made can be trained on."""

import json

import pytest
from click.testing import CliRunner

from mhcnb.cli import main
from mhcnb.data.tokenizer import open_tokenizer


@pytest.fixture
def mhcnb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path / "cache"))
    texts = [f"Line {i % 90}: a fox and {i % 90 * 7} dogs." * (1 + i % 3) for i in range(300)]
    lines = [json.dumps({"id": i, "body": text}) for i, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("\n".join(["{}", *lines]))

    def run(*args):
        done = CliRunner().invoke(main, ["data", *map(str, args)])
        assert done.exit_code == 0, done.output
        return done.output

    run.texts = texts
    return run


def test_every_option_of_prepare(mhcnb, tmp_path):
    assert "mine.json, 280 entries" in mhcnb(
        "tokenizer", "a.jsonl", "--key", "body", "--vocab", 280, "--on-bad", "skip", "--out", "mine.json"
    )
    options = ["--key", "body", "--tokenizer", "mine.json", "--seed", 4, "--val-fraction", 0.2, "--min-tokens", 20]
    options += ["--max-tokens", 30, "--dedup", "--shuffle", "--on-bad", "skip", "--processes", 1]
    said = mhcnb("prepare", "a.jsonl", "--out", "out", *options)
    assert "data.root=out" in said
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    expected = {"key": "body", "min_tokens": 20, "max_tokens": 30, "dedup": True, "shuffle": True}
    assert meta["options"] == expected | {"val_fraction": 0.2, "on_bad": "skip"}
    assert (meta["seed"], meta["vocab_size"], meta["read"]["bad_lines"]) == (4, 280, 1)
    kept = meta["train"]["documents"] + meta["val"]["documents"]
    assert (meta["read"]["documents"], kept + meta["read"]["too_short"] + meta["read"]["duplicates"]) == (300, 300)
    assert kept == len({text for text in mhcnb.texts if len(open_tokenizer("mine.json").encode(text)) >= 20}) < 90
    assert meta["tokenizer_sha256"] == open_tokenizer("mine.json").digest
    assert meta["val"]["documents"] == round(0.2 * kept)
    found = json.loads(mhcnb("check", "out"))
    assert found["train"]["tokens"] == meta["train"]["tokens"]


def test_a_text_is_checked_like_a_folder(mhcnb, tmp_path):
    (tmp_path / "b.txt").write_text("".join(f"Line {i}: a fox and {i * 7} dogs.\n\n" for i in range(2000)))
    found = json.loads(mhcnb("check", "b.txt"))
    assert found["train"]["largest_id"] < found["vocab_size"] <= 2048
    assert found["root"].startswith(str(tmp_path / "cache"))
