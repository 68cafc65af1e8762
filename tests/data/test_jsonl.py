"""A line of JSON gives its text or says what is wrong; lines and documents are the same however a file is cut."""

import gzip
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhcnb.data import jsonl, text, textfile
from mhcnb.data.jsonl import BadLine, lines, text_of
from mhcnb.data.recipe import Recipe
from mhcnb.errors import DataError

usable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.dictionaries(usable, usable | st.integers() | st.none()), usable, st.booleans())
def test_the_text_under_the_key_is_what_was_written(others, value, ascii_only):
    line = json.dumps(others | {"text": value}, ensure_ascii=ascii_only).encode()
    assert text_of(line + b"\r\n", "text") == text_of(jsonl.MARK + line, "text") == value


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.binary(max_size=200)
    | values.map(lambda value: json.dumps(value).encode())
    | values.map(lambda value: json.dumps({"text": value}).encode())
)
def test_any_bytes_are_a_text_or_a_bad_line(content):
    try:
        found = text_of(content, "text", 1)
    except BadLine:
        return
    assert found is None or json.loads(content)["text"] == found


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b""))), st.booleans(), st.integers(1, 40))
def test_lines_are_those_of_the_file_and_long_ones_are_measured(some, ends, longest):
    content = b"\n".join(some) + b"\n" * ends
    before, jsonl.LONGEST = jsonl.LONGEST, longest
    try:
        found = list(lines(io.BytesIO(content)))
    finally:
        jsonl.LONGEST = before
    expected = list(io.BytesIO(content))
    assert [line.size for line in found] == [len(line) for line in expected]
    for line, whole in zip(found, expected, strict=True):
        assert line.content == (whole if len(whole.rstrip(b"\n")) <= longest else None)


def test_a_line_of_any_length_costs_no_memory(monkeypatch, tmp_path):
    """32 MB in one line, of which 1 MB may be held."""
    monkeypatch.setattr(jsonl, "LONGEST", 1 << 20)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", 1) as file:
        file.writelines([b"a" * (1 << 20)] * 32)
    file = textfile.examine(tmp_path / "a.jsonl.gz")
    tracemalloc.start()
    try:
        (batch,) = textfile.batches(file, Recipe(on_bad="skip"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (batch.content, batch.skipped) == (b"", 1)
    assert peak < 5 << 20


@given(
    st.lists(st.one_of(usable, st.sampled_from(["", "\n", " "])), max_size=12),
    st.integers(1, 60),
    st.sampled_from(["{}\n", "{}\r\n", "\n {}\n"]),
)
def test_batches_hold_every_line_once_and_know_where_it_stands(texts, size, ends):
    whole = [ends.format(json.dumps({"text": value})).encode() for value in texts]
    content = b"".join(whole)
    before, textfile.BATCH = textfile.BATCH, size
    try:
        stream = io.BytesIO(content)
        file = textfile.TextFile("a.jsonl", len(content), "", True, False)
        found = [] if not texts else list(textfile._of_lines(stream, stream, file, True))
    finally:
        textfile.BATCH = before
    assert [value for batch in found for value in textfile.texts_of(batch, Recipe())[0]] == texts
    assert b"".join(batch.content for batch in found) == content
    for batch in found:
        assert content[batch.offset :].startswith(batch.content)
        assert batch.line == content.count(b"\n", 0, batch.offset) + 1


@given(st.text(st.sampled_from("ab \n\r\té"), max_size=200), st.integers(1, 20), st.integers(1, 9), st.booleans())
def test_documents_do_not_depend_on_how_the_file_is_read(content, piece, size, marked):
    content = content.replace("a", text.END) if marked else content
    before, text.PIECE = text.PIECE, piece
    try:
        chunks = [content[i : i + size] for i in range(0, len(content), size)]
        assert list(text.split(chunks, marked)) == list(text.split([content], marked))
    finally:
        text.PIECE = before


@given(st.text(st.sampled_from("aé€\U0001f600\n"), max_size=40), st.integers(1, 5), st.booleans())
def test_decoding_does_not_depend_on_how_the_file_is_read(content, size, mark):
    stored = "\ufeff" * mark + "x" + content
    before, text.CHUNK = text.CHUNK, size
    try:
        assert "".join(text.decoded(io.BytesIO(stored.encode()), "a.txt")) == "x" + content
    finally:
        text.CHUNK = before


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_bad_byte_is_found_where_it_stands_however_the_file_is_read(monkeypatch, size):
    monkeypatch.setattr(text, "CHUNK", size)
    with pytest.raises(DataError, match=r"a\.txt:3: not UTF-8 text: byte 0xe2 at offset 7"):
        list(text.decoded(io.BytesIO("é\nab\nx".encode() + b"\xe2\x82 more"), "a.txt"))


def test_a_document_that_is_longer_than_is_held_is_refused(monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 10_000)
    with pytest.raises(DataError, match=r"a\.txt: no blank line in 10,000 characters; divide it"):
        list(text.split(["a line\n" * 1000] * 2, False, "a.txt"))
    with pytest.raises(DataError, match=r"a\.txt: no <\|endoftext\|> in 10,000"):
        list(text.split(["a line\n\n" * 1000] * 2, True, "a.txt"))
