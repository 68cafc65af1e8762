from typing import Annotated, Literal

import pytest
from pydantic import Field

from mhcnb.errors import NotebookError
from mhcnb.notebook.parameters import checked


@checked
def call(
    runs: Annotated[str, Field(min_length=1)], rows: Annotated[int, Field(ge=1)] = 4, how: Literal["a", "b"] = "a"
):
    return runs, rows, how


def test_right_arguments_go_through_unchanged():
    assert call("x") == ("x", 4, "a")
    assert call("x", 2, how="b") == ("x", 2, "b")


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"runs": 3}, "runs = 3 (int)", "a valid string"),
        ({"runs": ""}, "runs = ''", "at least 1"),
        ({"rows": "4"}, "rows = '4' (str)", "a valid integer"),  # what papermill's -p may inject
        ({"rows": True}, "rows = True (bool)", "a valid integer"),
        ({"rows": 2.0}, "rows = 2.0 (float)", "a valid integer"),
        ({"rows": 0}, "rows = 0", "greater than or equal to 1"),
        ({"how": "c"}, "how = 'c'", "'a' or 'b'"),
    ],
)
def test_wrong_arguments_are_refused_by_name_value_and_what_was_expected(given, name, expected):
    with pytest.raises(NotebookError) as caught:
        call(**({"runs": "x"} | given))
    assert name in str(caught.value)
    assert expected in str(caught.value)


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(NotebookError, match=r"runs(.|\n)*rows"):
        call(1, "2")
