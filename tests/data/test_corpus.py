"""The embedded corpus, and folders that appear whole or not at all."""

import json
import signal
import subprocess
import sys
import time

import pytest

from mhcnb.data import corpus, text
from mhcnb.data.cache import appearing, cache_folder, made_once
from mhcnb.data.decode import decode, tokenizer_of
from mhcnb.data.shards import Shards
from mhcnb.errors import DataError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The corpus cut to a fifth, built once for this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "MOST", 1_600_000)
        patch.setenv("MHCNB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return corpus.embedded()


def test_the_documents_are_those_of_the_library_in_a_fixed_order():
    found = corpus.documents()
    assert list(found) == list(corpus.documents())
    assert 4_000_000 < sum(len(document.encode()) for document in found.values()) <= corpus.MOST
    assert "argparse.py" in found
    assert not any({"test", "tests", "site-packages"} & set(name.split("/")) for name in found)


def test_the_corpus_is_an_ordinary_data_set_of_2048_tokens(built, config, tmp_path):
    meta = json.loads((built / "meta.json").read_text())
    assert meta["vocab_size"] == corpus.VOCAB == Shards.known_vocab_size(config("embedded").data)
    assert meta["train"]["documents"] + meta["val"]["documents"] < len(corpus.documents())
    auto = config(built, vocab_size="auto", block_size=64)
    source = Shards(auto)
    source.check(auto)
    assert 5 < source.describe()["val_unigram_entropy"] < 7.63  # log 2048


def test_every_document_begins_with_the_mark_and_reads_back(built, config):
    source = Shards(config(built, block_size=64))
    first = source.evaluation_batch("train", 0, 1, 1)["inputs"][0]
    shown = decode(first.numpy(), tokenizer_of(built))
    assert shown.startswith(text.END)
    assert shown.removeprefix(text.END) in "\0".join(corpus.documents().values())


def test_it_is_built_once(built, monkeypatch):
    monkeypatch.setattr(corpus, "MOST", 1_600_000)
    monkeypatch.setattr(corpus, "train_tokenizer", None)  # calling it would be an error
    assert corpus.embedded(str(built.parent.parent)) == built


def test_another_recipe_is_another_folder(built, monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "RECIPE", "2")
    monkeypatch.setattr(corpus, "documents", lambda: {"a": "some text"})
    monkeypatch.setattr(corpus, "write_documents", lambda part, *rest: (part / "meta.json").write_text("{}"))
    assert corpus.embedded(str(built.parent.parent)) != built


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MHCNB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == tmp_path / ".cache" / "mhcnb"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "mhcnb"
    monkeypatch.setenv("MHCNB_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


MAKER = """
import sys, time
from pathlib import Path
from mhcnb.data.cache import made_once

def make(part):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    (part / "half").write_text("x")
    time.sleep(float(sys.argv[3]))
    (part / "whole").write_text("x")

made_once(Path(sys.argv[1]), make)
"""


def start(target, log, seconds):
    return subprocess.Popen([sys.executable, "-c", MAKER, str(target), str(log), str(seconds)])


def test_of_several_processes_one_makes_the_folder(tmp_path):
    processes = [start(tmp_path / "x", tmp_path / "log", 0.3) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["half", "whole"]


def test_a_kill_in_the_middle_leaves_it_to_the_next(tmp_path):
    killed = start(tmp_path / "x", tmp_path / "log", 60)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".x.part-*/half")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    assert not (tmp_path / "x").exists()
    made_once(tmp_path / "x", lambda part: (part / "whole").touch() or None)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["whole"]
    assert list(tmp_path.glob(".x.part-*")) == []


def test_a_failure_leaves_nothing_and_comes_out_as_ours(tmp_path):
    with pytest.raises(DataError, match="cannot be written: No space left on device"), appearing(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "x"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written: .*MHCNB_CACHE"):
        made_once(tmp_path / "file" / "x", lambda part: None)
