"""A part of a configuration, and what is said where it is wrong."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mhcnb.errors import ConfigError, nearest

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]


class _Origin(NamedTuple):
    """Where the values of a tree came from; see Section.build."""

    where: str
    lines: Mapping[tuple, int]
    given: Mapping[str, Any]
    spelled: Mapping[str, str]

    def place(self, loc: tuple) -> str:
        """`override`, or the file and the line."""
        key = _dotted(loc)
        if any(f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}.") for name in self.given):
            return "override"
        line = next((self.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.lines), None)
        return f"{self.where}:{line}" if line else self.where

    def shown(self, loc: tuple) -> str:
        """The key, and what it was called where it was given."""
        key = _dotted(loc)
        theirs = next((name for ours, name in self.spelled.items() if f"{key}.".startswith(f"{ours}.")), "")
        return f"{key} (given as {theirs})" if theirs else key


class Section(BaseModel):
    """Frozen, no unknown keys, no silent conversion, no nan or inf."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @classmethod
    def presets(cls, values: dict) -> dict:
        """The fields that other fields fill, and that give way when those change; see ConnectionConfig."""
        return {}

    @classmethod
    def hint(cls, loc: tuple, values: Any) -> str:
        """The end of a message about an unknown key at a place of the tree."""
        return nearest(str(loc[-1]), cls.model_fields)

    @classmethod
    def build(
        cls,
        values: dict,
        where: str,
        lines: Mapping[tuple, int] | None = None,
        given: Mapping = {},
        spelled: Mapping[str, str] = {},
    ) -> Self:
        """The section of a nested mapping. `where` names the file in errors, `lines` the line of each key, `given`
        the dotted keys that came as overrides, `spelled` the name that a user gave a dotted key, where it is another.
        Raises one ConfigError with all that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            origin = _Origin(where, lines or {}, given, spelled)
            problems = [cls._explain(e, values, origin) for e in error.errors()]
            raise ConfigError("\n".join(problems)) from None

    @classmethod
    def _explain(cls, error: Mapping, values: Any, origin: "_Origin") -> str:
        """One pydantic error in our words: where, key, got, expected, remedy."""
        original = error.get("ctx", {}).get("error")
        if isinstance(original, ConfigError):
            return str(original)
        loc = _location(error, values)
        place, shown = origin.place(loc), origin.shown(loc)
        if error["type"] == "extra_forbidden":
            return f"{place}: unknown key {shown}{cls.hint(loc, values)}"
        if error["type"] == "missing":
            return f"{place}: {shown} is missing; give it a value"
        if original is not None:  # raised by one of our validators, which name the value
            return f"{place}: {shown}: {original}" if shown else f"{place}: {original}"
        got = error.get("input")
        message = error["msg"].removeprefix("Input should be ")
        return f"{place}: {shown} = {got!r} ({type(got).__name__}); expected {message}"


def _dotted(loc: tuple) -> str:
    return ".".join(str(part) for part in loc)


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
    """A section whose class was chosen by its name. A model's has the names that its users bring; see renames."""

    renames: ClassVar[tuple[Any, ...]] = ()
    name: str
