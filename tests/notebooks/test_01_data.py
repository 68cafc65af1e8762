import json

import pytest

from mhcnb.data.prepare import prepare
from mhcnb.data.recipe import Recipe


@pytest.fixture
def prepared(tmp_path):
    """Shards of a small text of the user's own."""
    text = tmp_path / "text.txt"
    text.write_text(
        "<|endoftext|>".join(f"Document {k} of a small text. " * (k + 3) for k in range(30)), encoding="utf-8"
    )
    prepare([text], tmp_path / "data", Recipe(vocab=300))
    return tmp_path / "data"


def test_it_shows_formats_counts_lengths_and_samples(prepared, tmp_path, execute):
    words, printed = execute(
        "01-data", "notebooks", root=str(prepared), out=str(tmp_path / "out"), samples=1, length=40
    )
    meta = json.loads((prepared / "meta.json").read_text())
    assert "headered uint16, vocabulary 300" in printed
    for split in ("train", "val"):
        assert f"{split}: {meta[split]['tokens']:,} tokens in 1 file(s)" in printed
        assert f"{split}: {meta[split]['documents']} documents of" in printed
        assert f"{split}: {meta[split]['tokens']:,} tokens counted" in printed
        assert f"--- {split} 1 ---\n<|endoftext|>Document" in printed
    assert len(words) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}.{kind}" for name in ("lengths", "unigrams") for kind in ("png", "pdf")
    }


def test_shards_without_a_tokenizer_are_shown_as_ids(runs, tmp_path, execute):
    words, printed = execute("01-data", ".", root=str(runs.parent), out=str(tmp_path / "out"))
    assert "none named" in printed
    assert "no whole document" in printed
    assert len(words) == 2
