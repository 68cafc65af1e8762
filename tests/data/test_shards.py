"""Batches are windows of the concatenated split, at places that depend on seed, step and index alone."""

import itertools
import json
import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb.data import matching
from mhcnb.data.shardfile import Shard
from mhcnb.data.shards import Shards, check_all
from mhcnb.data.tokenizer import run_tokenizer, train_tokenizer
from mhcnb.data.tokens import Tokens, document_lengths, mix, unigram_entropy
from mhcnb.errors import DataError
from mhcnb.objectives.base import Clock
from mhcnb.training.loop import train


def split(folder, name):
    paths = sorted(folder.glob(f"*{name}*"))
    return np.concatenate([np.frombuffer(path.read_bytes()[1024:], "<u2") for path in paths]).astype(np.int64)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_windows_are_slices_of_the_concatenation(tmp_path_factory, data, sizes):
    root = tmp_path_factory.mktemp("shards")
    whole = np.random.default_rng(len(sizes)).integers(9, 50257, sum(sizes))
    shards = []
    for i, part in enumerate(np.split(whole, np.cumsum(sizes)[:-1])):
        (root / f"{i}.bin").write_bytes(part.astype("<u2").tobytes())
        shards.append(Shard(root / f"{i}.bin"))
    length = data.draw(st.integers(1, len(whole)))
    starts = np.array(data.draw(st.lists(st.integers(0, len(whole) - length), min_size=1, max_size=10)))
    tokens = Tokens(shards)
    assert len(tokens) == len(whole)
    assert tokens.windows(starts, length).tolist() == [whole[s : s + length].tolist() for s in starts]


def test_targets_are_inputs_moved_by_one_and_both_come_from_the_split(folder, config):
    batch = Shards(config(folder)).train_batch(Clock(1, 2), 0, 500)
    assert batch["inputs"].dtype == batch["targets"].dtype == torch.int64
    assert torch.equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    whole = split(folder, "train")
    windows = {tuple(w) for w in np.lib.stride_tricks.sliding_window_view(whole, 9)}
    rows = np.concatenate([batch["inputs"], batch["targets"][:, -1:]], axis=1)
    assert {tuple(row) for row in rows} == windows  # 92 windows, those over the border among them, all drawn


@given(cuts=st.lists(st.integers(0, 24), max_size=5), step=st.integers(0, 10**6), seed=st.integers(0, 2**70))
def test_rows_do_not_depend_on_how_they_are_dealt_to_ranks(cuts, step, seed):
    edges = sorted({0, 24, *cuts})
    parts = [mix(seed, step, np.arange(a, b)) for a, b in itertools.pairwise(edges)]
    assert np.concatenate(parts).tolist() == mix(seed, step, np.arange(24)).tolist()


def test_draws_depend_on_each_of_seed_step_and_index_and_are_even():
    draws = np.concatenate([mix(seed, step, np.arange(500)) for seed in range(10) for step in range(10)])
    assert len(set(draws.tolist())) == 50_000
    counts = np.bincount((draws % np.uint64(100)).astype(int))
    assert ((counts - 500) ** 2 / 500).sum() < 160  # chi-squared with 99 degrees of freedom: 1e-4


def test_a_batch_is_the_same_in_one_process_and_in_four(folder, config):
    source, clock = Shards(config(folder)), Clock(3, 7)
    whole = source.train_batch(clock, 0, 16)
    parts = [source.train_batch(clock, first, 4) for first in (0, 4, 8, 12)]
    for name in ("inputs", "targets"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


def test_a_flat_copy_gives_the_batches_of_the_headered_one(folder, config, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.iterdir():
        (flat / path.name).write_bytes(path.read_bytes()[1024:])
    one, other = Shards(config(folder)), Shards(config(flat))
    assert [source.describe()["format"] for source in (one, other)] == ["headered uint16", "flat uint16"]
    for read in (lambda s: s.train_batch(Clock(0, 5), 0, 9), lambda s: s.evaluation_batch("val", 0, 9, 9)):
        assert all(torch.equal(read(one)[name], read(other)[name]) for name in ("inputs", "targets"))


@pytest.mark.parametrize("name", ["train", "val"])
def test_evaluation_windows_are_even_fixed_and_the_same_for_every_seed(folder, config, name):
    sources = [Shards(config(folder)), Shards(config(folder).model_copy(update={"seed": 99}))]
    rows = [source.evaluation_batch(name, 0, 6, 6)["inputs"] for source in sources]
    whole = split(folder, name)
    starts = [i * (len(whole) - 8) // 6 for i in range(6)]
    assert rows[0].tolist() == rows[1].tolist() == [whole[s : s + 8].tolist() for s in starts]
    assert torch.equal(sources[0].evaluation_batch(name, 4, 2, 6)["inputs"], rows[0][4:])


def test_auto_is_the_vocabulary_of_the_meta_file_or_an_error(folder, config):
    auto = config(folder, vocab_size="auto")
    with pytest.raises(DataError, match=r"no meta\.json that says vocab_size; give it, e\.g\. model\.vocab_size=50304"):
        Shards(auto).check(auto)
    (folder / "meta.json").write_text('{"vocab_size": 1000}')
    source = Shards(auto)
    source.check(auto)
    assert source.vocab_size == 1000


def test_uint32_shards_hold_ids_that_uint16_cannot(folder, config, shard):
    for path in folder.iterdir():
        path.write_bytes(shard(np.random.default_rng(len(path.name)).integers(70_000, 100_000, 50), dtype="<u4"))
    (folder / "x_val_000000.bin").write_bytes(shard(np.arange(70_000, 70_050), dtype="<u4"))
    (folder / "x_train_000002.bin").write_bytes(shard(np.arange(80_000, 80_050), dtype="<u4"))
    (folder / "meta.json").write_text('{"dtype": "uint32", "vocab_size": 100000}')
    source = Shards(config(folder, vocab_size=100_000))
    source.check(config(folder, vocab_size=100_000))
    assert source.evaluation_batch("val", 0, 1, 1)["inputs"].tolist() == [list(range(70_000, 70_008))]


def test_the_entropy_is_that_of_the_frequencies(tmp_path):
    ids = np.repeat([5, 6, 7], [50, 25, 25]).astype("<u2")
    (tmp_path / "x.bin").write_bytes(ids.tobytes())
    tokens = Tokens([Shard(tmp_path / "x.bin")])
    assert unigram_entropy(tokens) == (pytest.approx(1.5 * np.log(2)), 100)
    assert unigram_entropy(tokens, most=50) == (0.0, 50)


def test_documents_run_from_mark_to_mark(tmp_path):
    ids = np.array([0, 5, 6, 0, 7, 0, 8, 9, 9, 0, 1], "<u2")
    (tmp_path / "x.bin").write_bytes(ids.tobytes())
    tokens = Tokens([Shard(tmp_path / "x.bin")])
    assert document_lengths(tokens, 0).tolist() == [3, 2, 4]
    assert document_lengths(tokens, 0, most=6).tolist() == [3, 2]


def test_what_was_found_is_described_in_plain_values(folder, config):
    found = Shards(config(folder)).describe()
    assert found["tokens"] == {"train": 100, "val": 50}
    assert [file["tokens"] for file in found["files"]["train"]] == [50, 50]
    assert len({file["digest"] for files in found["files"].values() for file in files}) == 3
    counts = np.bincount(split(folder, "val"))
    p = counts[counts > 0] / 50
    assert found["val_unigram_entropy"] == pytest.approx(-(p * np.log(p)).sum())


def test_the_full_check_finds_an_id_that_the_check_at_the_start_does_not_read(tmp_path, config, shard, monkeypatch):
    monkeypatch.setattr("mhcnb.data.shards.EDGES", 20)
    ids = np.arange(100)
    (tmp_path / "train.bin").write_bytes(shard(ids))
    (tmp_path / "val.bin").write_bytes(shard(ids[::-1]))
    assert check_all(str(tmp_path)) == {
        "root": str(tmp_path),
        "format": "headered uint16",
        "vocab_size": None,
        "train": {"files": 1, "tokens": 100, "largest_id": 99},
        "val": {"files": 1, "tokens": 100, "largest_id": 99},
    }
    ids[50] = 200
    (tmp_path / "train.bin").write_bytes(shard(ids))
    Shards(config(tmp_path, vocab_size=100)).check(config(tmp_path, vocab_size=100))
    with pytest.raises(DataError, match="token 200 at offset 50 "):
        check_all(str(tmp_path), vocab_size=100)


# texts ---------------------------------------------------------------------------------------------------------------

WORDS = ["windows", "of", "the", "split", "at", "places", "that", "depend", "on", "seed", "step"]


@pytest.fixture
def text(tmp_path, monkeypatch):
    """text("a.jsonl", 300): a file of so many documents; what is made of it lies in a cache of the test's own."""
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path / "cache"))

    def write(name, count, seed=0):
        rng = random.Random(seed)
        lines = [json.dumps({"text": " ".join(rng.choices(WORDS, k=rng.randint(3, 9)))}) + "\n" for _ in range(count)]
        (tmp_path / name).write_text("".join(lines))
        return tmp_path / name

    return write


def test_documents_are_numbered_within_a_window_from_their_marks(text, config):
    source = Shards(config(text("a.jsonl", 300), vocab_size="auto", block_size=32, documents=True))
    batch = source.train_batch(Clock(1, 2), 0, 20)
    for inputs, documents in zip(batch["inputs"].tolist(), batch["documents"].tolist(), strict=True):
        number = 0
        for token, found in zip(inputs, documents, strict=True):
            number += token == source.layout.meta.end_of_text
            assert found == number
    assert batch["documents"].max() > 2
    assert "documents" not in Shards(config(source.layout.root)).train_batch(Clock(1, 2), 0, 2)


def test_documents_of_shards_that_do_not_say_their_mark_are_refused(folder, config):
    with pytest.raises(DataError, match=r"data\.documents = true, but .*data has no meta\.json that says end_of_text"):
        Shards(config(folder, documents=True))
    (folder / "meta.json").write_text('{"end_of_text": 3}')
    batch = Shards(config(folder, documents=True)).evaluation_batch("val", 0, 2, 2)
    assert torch.equal(batch["documents"], (batch["inputs"] == 3).cumsum(1))


def test_a_text_gets_a_tokenizer_as_large_as_is_useful(text, config, monkeypatch):
    path = text("a.jsonl", 300)
    path.write_bytes(path.read_bytes() + b"\n" * (-path.stat().st_size % 280))
    asked = {"auto": 270, 265: 265, 275: 275, 5000: 280}
    monkeypatch.setattr(matching, "VOCAB", 270)
    monkeypatch.setattr(matching, "BYTES_AN_ENTRY", path.stat().st_size // 280)
    assert {vocab: Shards(config(path, vocab_size=vocab)).vocab_size for vocab in asked} == asked
    with pytest.raises(DataError, match=r"model\.vocab_size = 256: a tokenizer trained on .* has at least 257"):
        Shards(config(path, vocab_size=256))


def test_a_tokenizer_is_taken_where_it_is_that_of_the_shards(text, config, tmp_path):
    root = Shards(config(text("a.jsonl", 300), vocab_size="auto")).layout.root
    own = root / "tokenizer.json"
    for name in (own, root):
        assert Shards(config(root, tokenizer=str(name))).codec.digest == json.loads(
            (root / "meta.json").read_text()
        ).get("tokenizer_sha256")
    train_tokenizer(["other words"], 270).save(tmp_path / "other.json")
    says = r"data\.tokenizer = .*other\.json is not the tokenizer of the shards in .*: SHA-256 of its entries"
    with pytest.raises(DataError, match=says):
        Shards(config(root, tokenizer=str(tmp_path / "other.json")))
    meta = json.loads((root / "meta.json").read_text())
    del meta["tokenizer_sha256"]  # as shards were that an earlier version prepared
    (root / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=says):
        Shards(config(root, tokenizer=str(tmp_path / "other.json")))


def test_shards_of_others_are_given_their_tokenizer(folder, config, tmp_path):
    """They name none; the one that is given is what a run keeps, and says the vocabulary."""
    train_tokenizer(["other words"], 270).save(tmp_path / "other.json")
    source = Shards(config(folder, vocab_size="auto", tokenizer=str(tmp_path / "other.json")))
    source.keep(tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == (tmp_path / "other.json").read_text()
    assert source.vocab_size == source.codec.size
    with pytest.raises(DataError, match="Wrong tokenizer"):
        source.check(config(folder, vocab_size="auto"))


@pytest.mark.parametrize("name", ["a.jsnol", "b.jsonl", "none/b.jsonl.gz", "b.txt"])
def test_a_text_that_is_not_there_is_no_id_of_a_hub(text, config, monkeypatch, tmp_path, name):
    text("a.jsonl", 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"data.root = {name}: no such f"):
        Shards(config(name))


def test_a_run_keeps_its_tokenizer_and_one_that_starts_from_it_reads_its_text_with_it(text, small, tmp_path, caplog):
    settings = {"model.vocab_size": "auto", "train.steps": 1}
    train(small(**settings, **{"data.root": str(text("a.jsonl", 300))}), tmp_path / "first")
    other = {"data.root": str(text("b.jsonl", 400, seed=1)), "train.weights": str(tmp_path / "first")}
    train(small(**settings, **other), tmp_path / "second")
    kept = [(tmp_path / name / "tokenizer.json").read_text() for name in ("first", "second")]
    assert kept[0] == kept[1]
    assert run_tokenizer(tmp_path / "first").decode(
        Shards(small(**settings, **other)).splits["val"].shards[0].read(0, 9)
    )
    assert "another tokenizer" not in caplog.text
    own = {"data.root": str(Shards(small(**settings, **{"data.root": other["data.root"]})).layout.root)}
    Shards(small(**settings, **(other | own)))
    assert "first were trained with another tokenizer than that of data.root" in caplog.text
    (tmp_path / "first" / "tokenizer.json").unlink()
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DataError, match=r"first: no tokenizer\.json in it, and its data name"):
        Shards(small(**settings, **other))
