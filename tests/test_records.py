import json

import pytest

from mhcnb.records import WITHIN, last_record


def line(kind, step, **more):
    return json.dumps({"type": kind, "step": step, **more}).encode() + b"\n"


@pytest.mark.parametrize("between", [0, 100, WITHIN[0] + 10, WITHIN[1] // 2])
def test_the_last_of_a_type_is_found_behind_records_of_others(tmp_path, between):
    path = tmp_path / "results.jsonl"
    other = line("maps", 9, gains="x" * between)
    path.write_bytes(line("train", 1) + line("eval", 3) + line("train", 4) + other)
    assert last_record(path, "train")["step"] == 4
    assert last_record(path, "eval")["step"] == 3
    assert last_record(path, "nosuch") == {}


def test_work_is_bounded_however_long_the_file_is(tmp_path):
    path = tmp_path / "results.jsonl"
    with path.open("wb") as file:
        file.write(line("eval", 1))
        file.seek(1 << 40)  # a terabyte of nothing: whoever reads it all does not come back
        file.write(b"\n" + line("train", 7))
    assert last_record(path, "train")["step"] == 7
    assert last_record(path, "eval") == {}


def test_what_is_torn_or_damaged_is_passed_over(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(line("train", 1) + b'{"type": "train", "st\xff\n[1]\n7\n' + b'{"type": "train", "step": 2')
    assert last_record(path, "train")["step"] == 1
    assert last_record(tmp_path / "none", "train") == {}
    path.write_bytes(b"")
    assert last_record(path, "train") == {}
