"""A part of a configuration, and what is said where it is wrong."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mhcnb.errors import ConfigError, nearest

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Frozen, no unknown keys, no silent conversion, no nan or inf."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @classmethod
    def presets(cls, values: dict) -> dict:
        """The fields that other fields fill, and that give way when those change; see ConnectionConfig."""
        return {}

    @classmethod
    def keys_at(cls, loc: tuple, values: Any) -> list[str]:
        """The keys that may stand at a place of the tree; for hints."""
        return list(cls.model_fields)

    @classmethod
    def build(cls, values: dict, where: str, lines: Mapping[tuple, int] | None = None, given: Mapping = {}) -> Self:
        """The section of a nested mapping. `where` names the file in errors, `lines` the line of each key, `given`
        the dotted keys that came as overrides. Raises one ConfigError with all that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [cls._explain(e, values, where, lines or {}, given) for e in error.errors()]
            raise ConfigError("\n".join(problems)) from None

    @classmethod
    def _explain(cls, error: Mapping, values: Any, where: str, lines: Mapping[tuple, int], given: Mapping) -> str:
        """One pydantic error in our words: where, key, got, expected, remedy."""
        original = error.get("ctx", {}).get("error")
        if isinstance(original, ConfigError):
            return str(original)
        loc = _location(error, values)
        key = ".".join(str(part) for part in loc)
        line = next((lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in lines), None)
        overridden = any(f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}.") for name in given)
        place = "override" if overridden else f"{where}:{line}" if line else where
        if error["type"] == "extra_forbidden":
            return f"{place}: unknown key {key}{nearest(str(loc[-1]), cls.keys_at(loc[:-1], values))}"
        if error["type"] == "missing":
            return f"{place}: {key} is missing; give it a value"
        if original is not None:  # raised by one of our validators, which name the value
            return f"{place}: {key}: {original}"
        got = error.get("input")
        message = error["msg"].removeprefix("Input should be ")
        return f"{place}: {key} = {got!r} ({type(got).__name__}); expected {message}"


def _location(error: Mapping, values: Any) -> tuple:
    """The path of keys: pydantic appends the name of a type where several are possible, as in `int | "auto"`."""
    loc, node = error["loc"], values
    for depth, part in enumerate(loc):
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if not inside:
            return loc if error["type"] in ("missing", "extra_forbidden") else loc[: max(depth, 1)]
        node = node[part]
    return loc


class Named(Section):
    """A section whose class was chosen by its name."""

    name: str
