"""Texts to shards: what the options do, by hand; and the same bytes however many processes, however often killed."""

import gzip
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from filelock import FileLock

from mhcnb.data import assemble, encoder, prepare, spool, textfile
from mhcnb.data.recipe import Recipe
from mhcnb.data.shardfile import Shard
from mhcnb.data.tokenizer import END, open_tokenizer, train_tokenizer
from mhcnb.data.tokens import mix
from mhcnb.errors import DataError

WORDS = list(dict.fromkeys(__doc__.lower().replace(":", "").replace(",", "").replace(".", "").replace(";", "").split()))
OPTIONS = Recipe(vocab=300, seed=3, min_tokens=6, max_tokens=9, dedup=True, shuffle=True, val_fraction=0.3)


def document(i):
    """Of 1 to 30 words; every seventh is one that was there before."""
    rng = random.Random(i - 7 if i % 7 == 0 else i)
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 30)))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(textfile, "BATCH", 1000)


@pytest.fixture
def texts(tmp_path):
    """200 documents in two files, one of them gzipped."""
    whole = [json.dumps({"text": document(i)}).encode() + b"\n" for i in range(200)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(whole[:120]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(whole[120:])))
    return [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"]


@pytest.fixture
def tokenizer(tmp_path):
    train_tokenizer([document(i) for i in range(200)], 300).save(tmp_path / "mine.json")
    return str(tmp_path / "mine.json")


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def tokens(out, split):
    shards = [Shard(path) for path in sorted(out.glob(f"{split}*.bin"))]
    return [token for shard in shards for token in shard.read(0, shard.tokens).tolist()]


def test_the_options_by_hand(texts, tokenizer, tmp_path):
    meta = prepare.prepare(texts, tmp_path / "out", OPTIONS._replace(tokenizer=tokenizer))
    codec = open_tokenizer(tokenizer)
    read = [codec.encode(document(i)) for i in range(200)]
    long = [ids for ids in read if len(ids) >= 6]
    kept = [ids for i, ids in enumerate(long) if ids not in long[:i]]
    assert 0 < len(kept) < len(long) < len(read)
    draws = mix(3, 0, np.arange(len(kept))).tolist()
    val = sorted(range(len(kept)), key=draws.__getitem__)[: round(0.3 * len(kept))]
    for split in ("train", "val"):
        mine = [ids for i, ids in enumerate(kept) if (i in val) == (split == "val")]
        order = mix(3, 1, np.arange(len(mine))).tolist()
        mine = [mine[i] for i in sorted(range(len(mine)), key=order.__getitem__)]
        chunks = [[codec.mark, *ids[at : at + 8]] for ids in mine for at in range(0, len(ids), 8)]
        flat = [token for chunk in chunks for token in chunk]
        assert tokens(tmp_path / "out", split) == flat
        assert meta[split] == {"documents": len(mine), "chunks": len(chunks), "tokens": len(flat)}
    left_out = {"too_short": len(read) - len(long), "duplicates": len(long) - len(kept), "bad_lines": 0}
    assert meta["read"] == {"documents": 200} | left_out
    assert (meta["end_of_text"], meta["tokenizer_sha256"]) == (codec.mark, codec.digest)
    assert meta == json.loads((tmp_path / "out" / "meta.json").read_text())


def test_without_options_every_document_is_there_in_its_order(texts, tokenizer, tmp_path):
    meta = prepare.prepare(texts, tmp_path / "out", Recipe(tokenizer=tokenizer))
    codec = open_tokenizer(tokenizer)
    val = np.argsort(mix(0, 0, np.arange(200)))[:20]
    for split, count in (("train", 180), ("val", 20)):
        numbers = [i for i in range(200) if (i in val) == (split == "val")]
        assert codec.decode(tokens(tmp_path / "out", split)) == "".join(END + document(i) for i in numbers)
        assert meta[split]["documents"] == meta[split]["chunks"] == count


def test_the_same_bytes_whatever_the_number_of_processes(texts, tmp_path):
    for processes in (1, 3):
        prepare.prepare(texts, tmp_path / f"out{processes}", OPTIONS, processes)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out3")


def test_how_text_is_packed_does_not_matter(texts, tokenizer, tmp_path):
    plain = tmp_path / "b.jsonl"
    plain.write_bytes(gzip.decompress(texts[1].read_bytes()))
    for name, some in (("x", texts), ("y", [texts[0], plain])):
        prepare.prepare(some, tmp_path / name, OPTIONS._replace(tokenizer=tokenizer))
    for split in ("train.bin", "val.bin"):
        assert (tmp_path / "x" / split).read_bytes() == (tmp_path / "y" / split).read_bytes()


KILLED = """
import json, os, signal, sys
from pathlib import Path
from mhcnb.data import encoder, prepare, spool, textfile
from mhcnb.data.recipe import Recipe

textfile.BATCH, spool.EVERY, left, whole = 1000, 0, int(sys.argv[2]), encoder.encode

def encode(*args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args)

encoder.encode = encode
out, *texts = map(Path, json.loads(sys.argv[3]))
prepare.prepare(texts, out, Recipe(**json.loads(sys.argv[1])), 1)
"""


def test_a_killed_preparation_goes_on_and_ends_the_same(texts, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    prepare.prepare(texts, tmp_path / "whole", OPTIONS)
    paths = json.dumps([str(path) for path in (tmp_path / "out", *texts)])
    command = [sys.executable, "-c", KILLED, json.dumps(OPTIONS._asdict()), "4", paths]
    assert subprocess.run(command, check=False).returncode == -9
    unfinished = tmp_path / ".out.unfinished"
    assert json.loads((unfinished / "progress.json").read_text())["batches"] == 4
    for name in spool.FILES:
        with (unfinished / name).open("ab") as file:
            file.write(b"half a batch")
    done = []
    monkeypatch.setattr(encoder, "encode", lambda *args, whole=encoder.encode: (done.append(1), whole(*args))[1])
    monkeypatch.setattr(prepare, "train_tokenizer", None)  # calling it would be an error
    prepare.prepare(texts, tmp_path / "out", OPTIONS)
    assert "going on after 4 batches" in caplog.text
    assert len(done) > 4
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not unfinished.exists()


def stop_at(monkeypatch, number, error):
    """The batch of that number raises."""
    calls, whole = [], encoder.encode

    def encode(*args):
        calls.append(1)
        if len(calls) == number:
            raise error
        return whole(*args)

    monkeypatch.setattr(encoder, "encode", encode)
    monkeypatch.setattr(spool, "EVERY", 0)


def test_what_was_done_of_another_preparation_is_not_used(texts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(texts, tmp_path / "out", OPTIONS)
    assert (tmp_path / ".out.unfinished" / "progress.json").exists()
    other = OPTIONS._replace(min_tokens=7)
    for name in ("out", "whole"):
        prepare.prepare(texts, tmp_path / name, other)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_keeps_what_is_done_and_says_so(texts, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        stop_at(patch, 5, OSError(28, "No space left on device"))
        with pytest.raises(DataError, match=r"No space left on device .*free some space and run the same again"):
            prepare.prepare(texts, tmp_path / "out", OPTIONS)
    assert "what is done stays in" in caplog.text
    assert not (tmp_path / "out").exists()
    prepare.prepare(texts, tmp_path / "out", OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl.gz", "out"]


def test_a_process_that_dies_is_told(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(DataError, match=r"a process that encodes ended \(status 1; .*\) at .*a\.jsonl:1; run the same"):
        prepare.prepare(texts, tmp_path / "out", OPTIONS, 2)


def test_two_at_once_do_not_meet(texts, tmp_path):
    (tmp_path / ".out.unfinished").mkdir()
    with FileLock(tmp_path / ".out.unfinished" / "lock"), pytest.raises(DataError, match="another process prepares"):
        prepare.prepare(texts, tmp_path / "out", OPTIONS)


def test_what_a_process_finds_wrong_is_what_is_wrong_first(texts, tmp_path):
    lines = texts[0].read_bytes().splitlines(keepends=True)
    texts[0].write_bytes(b"".join([*lines[:60], b"{}\n", *(b"[]\n" + line for line in lines[60:])]))
    with pytest.raises(DataError, match=r"a\.jsonl:61: no key text"):
        prepare.prepare(texts, tmp_path / "out", OPTIONS._replace(tokenizer=None), 2)
    assert not list(tmp_path.glob("*out*"))


def test_lines_of_no_use_are_counted_and_the_first_are_shown(texts, tokenizer, tmp_path, caplog):
    texts[0].write_bytes(b"{}\n" * 7 + texts[0].read_bytes())
    meta = prepare.prepare(texts, tmp_path / "out", Recipe(tokenizer=tokenizer, on_bad="skip"))
    assert meta["read"]["bad_lines"] == 7
    assert [record.message.split(":")[1] for record in caplog.records if "skipped" in record.message] == ["1", "2", "3"]


def test_memory_does_not_grow_with_the_text(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(textfile, "BATCH", 20_000)
    peaks = []
    for count in (600, 6000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(json.dumps({"text": document(i)}) + "\n" for i in range(count)))
        tracemalloc.start()
        prepare.prepare([path], tmp_path / f"out{count}", Recipe(tokenizer=tokenizer, shuffle=True))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown, text = peaks[1] - peaks[0], path.stat().st_size
    assert text > 500_000
    assert grown < 100 * 5400  # what is known of each document


def test_a_split_of_many_tokens_is_several_files_of_whole_documents(texts, tokenizer, tmp_path, monkeypatch):
    recipe = Recipe(tokenizer=tokenizer)
    prepare.prepare(texts, tmp_path / "one", recipe)
    monkeypatch.setattr(assemble, "SHARD", 1500)
    meta = prepare.prepare(texts, tmp_path / "many", recipe)
    files = sorted((tmp_path / "many").glob("train_*.bin"))
    assert [path.name for path in files] == [f"train_{i:03d}.bin" for i in range(-(-meta["train"]["tokens"] // 1500))]
    assert {Shard(path).read(0, 1)[0] for path in files} == {meta["end_of_text"]}
    assert tokens(tmp_path / "many", "train") == tokens(tmp_path / "one", "train")


def test_a_text_is_prepared_into_the_cache_once_and_again_when_it_changes(texts, tmp_path, monkeypatch):
    cache, recipe = str(tmp_path / "cache"), Recipe(vocab=300)
    first = prepare.prepared(texts[0], recipe, cache)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_encoded", None)  # calling it would be an error
        assert prepare.prepared(texts[0], recipe, cache) == first
        shutil.copy(texts[0], tmp_path / "copy.jsonl")
        assert prepare.prepared(tmp_path / "copy.jsonl", recipe, cache) == first
    assert prepare.prepared(texts[0], recipe._replace(vocab=301), cache) != first
    texts[0].write_bytes(texts[0].read_bytes().replace(b"bytes", b"bites"))
    assert prepare.prepared(texts[0], recipe, cache) != first


def test_what_was_begun_for_the_cache_goes_on(texts, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    cache, recipe = tmp_path / "cache", Recipe(vocab=300)
    with monkeypatch.context() as patch:
        stop_at(patch, 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepared(texts[0], recipe, str(cache))
    folder = prepare.prepared(texts[0], recipe, str(cache))
    assert "going on after 3 batches" in caplog.text
    assert sorted(path.name for path in folder.parent.iterdir()) == [f".{folder.name}.lock", folder.name]


def test_the_digest_of_a_text_is_remembered_until_it_is_touched(texts, tmp_path, monkeypatch):
    cache, recipe = str(tmp_path / "cache"), Recipe(vocab=300)
    os.utime(texts[0], (1e9, 1e9))
    first = prepare.prepared(texts[0], recipe, cache)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)  # calling it would be an error
        assert prepare.prepared(texts[0], recipe, cache) == first
    texts[0].write_bytes(texts[0].read_bytes().replace(b"bytes", b"bites"))  # as long as before
    assert prepare.prepared(texts[0], recipe, cache) != first


def test_a_tokenizer_alone(texts, tmp_path):
    recipe = Recipe(vocab=300)
    assert prepare.write_tokenizer(texts, tmp_path / "new" / "t.json", recipe) == 300
    prepare.prepare(texts, tmp_path / "out", recipe)
    assert (tmp_path / "new" / "t.json").read_bytes() == (tmp_path / "out" / "tokenizer.json").read_bytes()
    with pytest.raises(DataError, match=r"t\.json is there already"):
        prepare.write_tokenizer(texts, tmp_path / "new" / "t.json", recipe)


def test_a_tokenizer_is_trained_on_documents_from_all_over_a_long_text(texts, monkeypatch):
    seen = []
    monkeypatch.setattr(prepare, "train_tokenizer", lambda documents, *rest: seen.extend(documents))
    monkeypatch.setattr(prepare, "LEARNT", sum(path.stat().st_size for path in texts) // 4)
    prepare.learn_tokenizer([textfile.examine(path) for path in texts], Recipe())
    places = [next(i for i in range(200) if document(i) == text) for text in seen]
    assert 20 < len(places) < 60
    assert max(np.diff(sorted(places))) < 15
