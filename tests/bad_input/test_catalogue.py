"""The catalogue has 72 rows; they are cases of this folder, but for those that need more."""

import re
from pathlib import Path

import pytest

ELSEWHERE = {
    "tests/training, with two processes": {48, 57, 58},
}


class Collected:
    """A plugin that keeps the ids of what pytest finds."""

    def pytest_collection_modifyitems(self, items):
        self.ids = [item.name for item in items]


def test_every_row_that_applies_has_a_case(capsys):
    found = Collected()
    pytest.main(["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", str(Path(__file__).parent)], plugins=[found])
    capsys.readouterr()
    rows = {int(row) for name in found.ids for row in re.findall(r"row(\d\d)", name)}
    left_out = set().union(*ELSEWHERE.values())
    assert rows == set(range(1, 73)) - left_out
    assert len(rows) >= 50
