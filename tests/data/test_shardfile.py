"""One token file: what is read is what was written, and what is doubtful is refused with the reason."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhcnb.data.meta import Meta, read_meta
from mhcnb.data.shardfile import Shard, ShardWriter
from mhcnb.errors import DataError

MAGIC = (20240520).to_bytes(4, "little")
IDS = np.random.default_rng(0).integers(0, 50257, 300)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_each_format_gives_its_tokens(tmp_path, shard, header, dtype):
    path = tmp_path / "x.bin"
    path.write_bytes(shard(IDS, header, np.dtype(dtype).newbyteorder("<")))
    opened = Shard(path, Meta(dtype=dtype))
    assert opened.format == (header, dtype)
    assert opened.tokens == len(IDS)
    assert opened.read(17, 100).tolist() == IDS[17:117].tolist()


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_the_writer_writes_the_headered_format(tmp_path, shard, dtype):
    with ShardWriter(tmp_path / "x.bin", dtype) as writer:
        writer.append(IDS[:100])
        writer.append(IDS[100:])
    assert (tmp_path / "x.bin").read_bytes() == shard(IDS, True, np.dtype(dtype).newbyteorder("<"))


@pytest.mark.parametrize("bad", [-1, 65536])
def test_a_writer_that_fails_leaves_the_old_file(tmp_path, bad):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(DataError, match="do not fit uint16"), ShardWriter(path) as writer:
        writer.append(np.array([1, bad]))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.bin", b"old")]


TEXT = b"To be, or not to be, that is the question, whether 'tis nobler in the mind to suffer\n"
DAMAGED = {  # content -> what the error says, besides the path; more of this in tests/bad_input
    "text": (lambda shard: TEXT, ["this is text", "data prepare"]),
    "git lfs": (lambda shard: b"version https://git-lfs.github.com/spec/v1\noid", ["Git LFS", "git lfs pull"]),
    "npy": (lambda shard: b"\x93NUMPY\x01\x00" + bytes(100), [".npy", "known formats"]),
    "zip": (lambda shard: b"PK\x03\x04" + bytes(100), ["zip", "known formats"]),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named_and_nothing_on_disk_changes(tmp_path, shard, on_disk, case):
    content, says = DAMAGED[case]
    path = tmp_path / "x_train.bin"
    path.write_bytes(content(shard))
    before = on_disk(tmp_path)
    with pytest.raises(DataError) as error:
        Shard(path)
    assert all(text in str(error.value) for text in [str(path), *says]), error.value
    assert on_disk(tmp_path) == before


def test_a_declared_type_and_switched_off_doubt_both_overrule_the_32_bit_heuristic(tmp_path, shard):
    path = tmp_path / "x.bin"
    path.write_bytes(shard(IDS, False, "<u4"))
    assert Shard(path, Meta(dtype="uint16")).tokens == Shard(path, doubt=False).tokens == 600
    assert Shard(path, Meta(dtype="uint32")).read(0, 300).tolist() == IDS.tolist()


def test_equal_files_have_equal_digests_and_a_change_at_either_end_shows(tmp_path, shard):
    big = shard(np.random.default_rng(1).integers(0, 50257, 1_000_000))
    contents = [big, big, big[:1030] + b"\0\0" + big[1032:], big[:-2] + b"\0\0", big[:1024] + big[1026:] + b"\0\0"]
    paths = [tmp_path / f"{i}.bin" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    digests = [Shard(path).digest for path in paths]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


HEADERS = st.builds(
    lambda magic, version, count, rest: magic + np.array([version, count], "<i4").tobytes() + rest,
    st.sampled_from([MAGIC, MAGIC[::-1]]),
    st.integers(0, 2),
    st.integers(-(2**31), 2**31 - 1),
    st.binary(max_size=1200),
)


@settings(max_examples=200, deadline=None)
@given(content=st.one_of(st.binary(max_size=300), HEADERS), meta=st.one_of(st.binary(max_size=60), st.none()))
def test_any_bytes_are_a_shard_or_a_data_error(content, meta):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bin"
        path.write_bytes(content)
        if meta is not None:
            (Path(folder) / "meta.json").write_bytes(meta)
        try:
            opened = Shard(path, read_meta(Path(folder)))
        except DataError:
            return
        assert opened.first + opened.tokens * opened.dtype.itemsize == len(content)
        assert len(opened.read(0, opened.tokens)) == opened.tokens > 0


META = {
    "[1]": "expected an object",
    '{"dtype": "int8"}': "dtype = 'int8'; expected one of uint16, uint32",
    '{"dtype": ["uint16"]}': "dtype",
    '{"layout": "zip"}': "layout = 'zip'",
    '{"vocab_size": "big"}': "vocab_size = 'big'",
    '{"vocab_size": true}': "vocab_size = True",
    '{"vocab_size": 0}': "vocab_size = 0",
    '{"tokenizer": "../../etc/passwd"}': "the name of a file beside it",
    '{"end_of_text": "</s>"}': "end_of_text = '</s>'",
    "{": "not valid JSON",
    "[" * 100_000: "not valid JSON",
}


@pytest.mark.parametrize("text", META, ids=lambda text: text[:30])
def test_a_wrong_meta_file(tmp_path, text):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(DataError) as error:
        read_meta(tmp_path)
    assert META[text] in str(error.value)
    assert "meta.json" in str(error.value)
