"""Names that users bring from the guides of other projects, each for a key of ours: a table beside the model.

    Rename("training.optimizer.lr", "train.lr")

They hold in a YAML file and as overrides, and are replaced before the overrides are laid over the file, so that the
config.yaml of a run has our names alone.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mhcnb import registry
from mhcnb.dotted import assign, flatten, remove
from mhcnb.errors import ConfigError, nearest

log = logging.getLogger(__name__)
RESUME = "resume_from_checkpoint"  # of `mhcnb train`; other tools put a + before what their files do not have
ON_THE_COMMAND_LINE = (f"+{RESUME}", "--resume or --from", "of `mhcnb train`: goes on with that run where nothing has "
                       "changed that may not, else starts a new one from its weights; says which")  # fmt: skip


class Rename(NamedTuple):
    """`theirs` sets `ours`, both dotted; where `ours` is empty the value is checked alone.

    values: {their value: ours}, where those differ. derive(value, stands, final): ours, where it follows from more than
    their value: from what `ours` is without it, None for nothing, or from final(key), the value of another key.
    off: a name of theirs; where that is false beside this one, this one has nothing to set.
    words: what a reader of the table should know.
    """

    theirs: str
    ours: str
    words: str = ""
    values: Mapping[Any, Any] | None = None
    derive: Callable[[Any, Any, Callable[[str], Any]], Any] | None = None
    off: str = ""


@dataclass
class _Layer:
    """The dotted keys of a file, or those of the overrides over it, and where they stand."""

    values: dict[str, Any]
    place: Callable[[str], str]
    spelled: dict[str, str] = field(default_factory=dict)  # ours: theirs


def replace(
    values: dict, lines: Mapping[tuple, int], given: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Our names instead of theirs in the nested `values` of the file `where`, which change, and in dotted overrides.

    Returns (the overrides, {our key: their name for it}). Raises ConfigError where two names set different values.
    """
    table = of_model(given.get("model.name") or model_of(values))
    file = _Layer(flatten(values), lambda key: _line(lines, key, where))
    over = _Layer(dict(given), lambda _: "override")
    before = set(file.values)
    for rename in table:
        if rename.derive is None:
            _take(rename, file, {}, {})
            _take(rename, over, {}, {})
    for rename in table:
        if rename.derive is not None:
            final = file.values | over.values
            _take(rename, file, {}, final)
            _take(rename, over, file.values, final)
    for key in before - set(file.values):
        remove(values, key)
    for key in file.spelled:
        assign(values, key, file.values[key])
    standing = {ours: theirs for ours, theirs in file.spelled.items() if ours not in over.values}
    return over.values, standing | over.spelled


def _take(rename: Rename, layer: _Layer, below: Mapping[str, Any], final: Mapping[str, Any]) -> None:
    """One name of a layer, if it is there. `below` is the layer under this one."""
    theirs, ours = rename.theirs, rename.ours
    if theirs not in layer.values:
        return
    value = layer.values.pop(theirs)
    place = layer.place(theirs)
    if rename.off and layer.values.get(rename.off) is False:
        log.warning("%s: %s does not apply, for %s is false, and is dropped", place, theirs, rename.off)
        return
    stands = layer.values.get(ours)
    try:
        new = _converted(rename, value, below.get(ours) if stands is None else stands, final)
    except ConfigError as error:
        raise ConfigError(f"{place}: {theirs} = {value!r} ({type(value).__name__}); {error}") from None
    if ours and ours in layer.values and stands != new:
        other = layer.spelled.get(ours, ours)
        raise ConfigError(
            f"{place}: {other} and {theirs} = {value!r} are one setting ({ours}), but say {stands!r} and {new!r}; give "
            "one of them"
        )
    if ours:
        layer.values[ours] = new
        layer.spelled.setdefault(ours, theirs)


def _converted(rename: Rename, value: Any, stands: Any, final: Mapping[str, Any]) -> Any:
    if rename.values is not None:
        found = [ours for theirs, ours in rename.values.items() if type(value) is type(theirs) and value == theirs]
        if not found:
            raise ConfigError(f"expected {' or '.join(map(_yaml, rename.values))}")
        value = found[0]
    return value if rename.derive is None else rename.derive(value, stands, final.get)


def _line(lines: Mapping[tuple, int], key: str, where: str) -> str:
    line = lines.get(tuple(key.split(".")))
    return f"{where}:{line}" if line else where


def checkpoint_in(given: dict[str, Any]) -> str | None:
    """The path that the overrides of `mhcnb train` give as resume_from_checkpoint, which is taken out of them. Raises
    ConfigError where it is none."""
    found = [given.pop(key) for key in (RESUME, f"+{RESUME}") if key in given]
    if any(path != found[0] or not isinstance(path, str) or not path for path in found):
        raise ConfigError(f"+{RESUME}: {' and '.join(map(repr, found))}; expected the path of one run or checkpoint")
    return found[0] if found else None


# tables ---------------------------------------------------------------------------------------------------------------


def of_model(name: Any) -> tuple[Rename, ...]:
    """The table of a model; empty where it has none, or there is no such model."""
    known = isinstance(name, str) and name in registry.entries("models")
    return registry.load("models", name).Config.renames if known else ()


def model_of(values: Mapping[str, Any]) -> Any:
    """The name of the model in a nested mapping, whatever it is; None where there is none."""
    model = values.get("model")
    return model.get("name") if isinstance(model, Mapping) else None


def rows(model: str) -> list[tuple[str, str, str]]:
    """(their name, ours, remark) of all names that work with a model; [] where it has no table."""
    found = [(r.theirs, r.ours or "-", "; ".join(filter(None, [_values(r), r.words]))) for r in of_model(model)]
    return [*found, ON_THE_COMMAND_LINE] if found else []


def sections(fields: Iterable[str]) -> set[str]:
    """The first parts of all models' names, without those in `fields`: what only a guide calls a section."""
    names = (rename.theirs for model in registry.entries("models") for rename in of_model(model))
    return {name.split(".")[0] for name in names} - set(fields)


def hint(loc: tuple, fields: Iterable[str], model: Any) -> str:
    """The end of a message about an unknown key, beside which `fields` may stand: the nearest of both vocabularies, or
    whose name it is."""
    key, own = ".".join(map(str, loc)), of_model(model)
    if key.lstrip("+") == RESUME:
        return f"; +{RESUME} is an argument of `mhcnb train` alone, not a setting"
    for other in registry.entries("models"):
        for rename in of_model(other):
            if rename.theirs == key and key not in [r.theirs for r in own]:
                return f": a name that model {other} knows; model {model} has {rename.ours or 'nothing like it'}"
    parent, section = key.rpartition(".")[0], key.partition(".")[0]
    if len(loc) == 1 and parent and own:  # of a section that is theirs alone
        listed = [r.theirs for r in own if r.theirs.startswith(f"{section}.")]
        return nearest(key, listed, [name for r in own for name in (r.theirs, r.ours)])
    beside = [r.theirs.removeprefix(f"{parent}.") for r in own if r.theirs.rpartition(".")[0] == parent]
    return nearest(str(loc[-1]), [*fields, *beside])


def _values(rename: Rename) -> str:
    values = rename.values or {}
    return ", ".join(_yaml(a) if b is None else f"{_yaml(a)}: {b}" for a, b in values.items() if _yaml(a) != b)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
