"""One object says what a run is: RunConfig, a frozen tree that YAML, the command line and a notebook all fill.

    load_config("params/gpt/tiny.yaml", overrides={"connection.name": "mhc", "train.steps": 50})

`connection`, `model`, `data` and `objective` are chosen by `name`; the class of that name brings its own fields.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator

from mhcnb import registry, renames, yamlfile
from mhcnb.config_train import LogConfig, TrainConfig
from mhcnb.dotted import assign, flatten
from mhcnb.errors import ConfigError
from mhcnb.section import Named, Section

log = logging.getLogger(__name__)
AXIS = {"connection": "connections", "model": "models", "data": "data", "objective": "objectives"}
LENGTH = {"train.steps": "epochs", "train.epochs": "steps"}  # of a run: an override of one takes the other's place


class RunConfig(Section):
    """All that decides a run. `preset` names the file it came from and labels tables; it changes nothing else."""

    preset: str = "custom"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    connection: SerializeAsAny[Named]
    model: SerializeAsAny[Named]
    data: SerializeAsAny[Named]
    objective: SerializeAsAny[Named]
    train: TrainConfig
    log: LogConfig = LogConfig()

    @field_validator(*AXIS, mode="before")
    @classmethod
    def _choose(cls, value: Any, info) -> Any:
        return _section_class(info.field_name, value).model_validate(value) if isinstance(value, dict) else value

    @classmethod
    def hint(cls, loc: tuple, values: Any) -> str:
        chosen: Any = cls if len(loc) == 1 else cls.model_fields[loc[0]].annotation
        if len(loc) > 1 and loc[0] in AXIS:
            chosen = _section_class(loc[0], values[loc[0]])
        return renames.hint(loc, chosen.model_fields, renames.model_of(values))

    def warnings(self) -> list[str]:
        """What is allowed but hardly meant."""
        found = self.train.warnings()
        if self.log.wandb_entity and not self.log.wandb:
            found.append(f"log.wandb_entity {self.log.wandb_entity} does nothing without log.wandb, the project")
        return found

    def digest(self) -> str:
        """SHA-256 of the whole configuration: equal on all ranks of a run, and the identity of a sweep's cell."""
        return hashlib.sha256(json.dumps(as_dict(self), sort_keys=True).encode()).hexdigest()


def run_name(config: RunConfig) -> str:
    """`<method>-<size>-s<seed>`: the folder of a run that is not given one. The size is the preset, after the model's
    name where that is not gpt: presets of several models have one name."""
    model = "" if config.model.name == "gpt" else f"{config.model.name}-"
    return f"{config.connection.name}-{model}{config.preset}-s{config.seed}"


def as_dict(config: Section) -> dict:
    """The configuration as plain YAML values."""
    return config.model_dump(mode="json")


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A RunConfig from a YAML file and dotted overrides, e.g. {"connection.name": "mhc", "train.lr": 1e-3}.

    A value may be a mapping, which sets each of its keys. The names of a guide that the model knows work too, see
    renames. Changing a `name` (or a connection's `dialect`) drops the fields that no longer apply, and logs which.
    Opens no data. Raises ConfigError with key, line and nearest name.
    """
    path = Path(path)
    values, lines = yamlfile.read_mapping(path)
    values.setdefault("preset", path.stem)
    given, spelled = renames.replace(values, lines, flatten(overrides or {}), str(path))
    lines |= {_path(ours): lines[_path(theirs)] for ours, theirs in spelled.items() if _path(theirs) in lines}
    for dropped in _drop_stale(values, given):
        log.warning("%s no longer applies and is dropped", dropped)
    for key, value in given.items():
        assign(values, key, value)
    _spread(values, lines)
    return build_config(values, str(path), lines, given, spelled)


def build_config(
    values: dict,
    where: str,
    lines: Mapping[tuple, int] | None = None,
    given: Mapping = {},
    spelled: Mapping[str, str] = {},
) -> RunConfig:
    """A RunConfig from a nested mapping; see Section.build."""
    return RunConfig.build(values, where, lines, given, spelled)


def parse_overrides(pairs: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """{"train.lr": 0.001} of ("train.lr=1e-3",); values are YAML. Raises ConfigError."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{pair!r}: expected key=value, as in train.steps=100")
        if key in result:
            raise ConfigError(f"{key} is given twice: {result[key]!r} and {text!r}")
        result[key] = yamlfile.parse(text, pair)[0]
    return result


def _path(key: str) -> tuple:
    return tuple(key.split("."))


def _spread(values: dict, lines: dict[tuple, int]) -> None:
    """The keys of a section that only a guide knows, each by itself: then the error is about each, with its line."""
    strays = values.keys() - RunConfig.model_fields.keys()
    for section in strays & renames.sections(RunConfig.model_fields) if strays else ():
        for key, value in flatten({section: values.pop(section)}).items():
            values[key] = value
            if _path(key) in lines:
                lines[key,] = lines[_path(key)]


def _section_class(section: str, value: Mapping) -> type[Named]:
    if not isinstance(value.get("name"), str):
        known = ", ".join(registry.entries(AXIS[section]))
        raise ConfigError(f"{section}.name is missing or not a name; known: {known}")
    return registry.load(AXIS[section], value["name"]).Config


def _drop_stale(values: dict, given: Mapping[str, Any]) -> list[str]:
    """Removes from `values` what an override of a name, a dialect or a length makes stale; returns the dotted keys."""
    dropped = [f"train.{other}" for key, other in LENGTH.items() if key in given and _drop_length(values, given, other)]
    for section in AXIS:
        base, name = values.get(section), given.get(f"{section}.name")
        if not isinstance(base, dict) or not isinstance(name, str | None):
            continue
        chosen = base | ({"name": name} if name else {})
        stale = set(base) - set(_section_class(section, chosen).model_fields) if name else set()
        dialect = given.get(f"{section}.dialect")
        if dialect not in (None, base.get("dialect", "")):
            stale |= set(_section_class(section, chosen).presets(chosen | {"dialect": dialect})) & set(base)
        for field in sorted(stale):
            del base[field]
            dropped.append(f"{section}.{field}")
    return dropped


def _drop_length(values: dict, given: Mapping[str, Any], other: str) -> bool:
    """Whether train.`other` said how long to train, and is gone."""
    train = values.get("train")
    return f"train.{other}" not in given and isinstance(train, dict) and bool(train.pop(other, 0))
