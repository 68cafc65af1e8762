"""Papermill injects whatever it is given: the call that takes a notebook's parameters has to refuse the wrong ones."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mhcnb.errors import NotebookError

P = ParamSpec("P")
T = TypeVar("T")


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, its arguments held to its annotations without conversion: `"4"` is no int, nor is True. Raises
    NotebookError with name, value and what was expected."""
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    adapters = {name: TypeAdapter(hints[name]) for name in signature.parameters if name in hints}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs).arguments
        problems = [_problem(name, given[name], adapters[name]) for name in given if name in adapters]
        if any(problems):
            raise NotebookError("\n".join(filter(None, problems)))
        return function(*args, **kwargs)

    return call


def _problem(name: str, value: Any, adapter: TypeAdapter) -> str:
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        expected = error.errors()[0]["msg"].removeprefix("Input should be ")
        return f"parameter {name} = {value!r} ({type(value).__name__}); expected {expected}"
    return ""
