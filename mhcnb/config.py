"""One object says what a run is: RunConfig, a frozen tree that YAML, the command line and a notebook all fill.

    load_config("params/gpt/tiny.yaml", overrides={"connection.name": "mhc", "train.steps": 50})

`connection`, `model`, `data` and `objective` are chosen by `name`; the class of that name brings its own fields.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from mhcnb import registry, renames, yamlfile
from mhcnb.dotted import assign, flatten
from mhcnb.errors import ConfigError
from mhcnb.section import Named, Natural, Positive, Section

log = logging.getLogger(__name__)
AXIS = {"connection": "connections", "model": "models", "data": "data", "objective": "objectives"}


class TrainConfig(Section):
    """Updates, batches, optimizer. The global batch is micro_batch x accumulation whatever the number of processes."""

    steps: Positive
    micro_batch: Positive = 16
    accumulation: Positive = 1
    lr: Annotated[float, Field(gt=0)]
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"  # from lr to min_lr after the warm-up
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    warmup: Natural = 0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2  # the share of the updates in which wsd falls, at the end
    connection_lr: Annotated[float, Field(gt=0)] = 1.0  # times the rate, for the parameters of connections
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.95)
    clip: Annotated[float, Field(ge=0)] = 1.0  # 0: no clipping
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # of autocast; auto: see training.device
    compile: bool = False
    recompute: Literal["none", "connection", "block"] = "none"  # in backward, instead of keeping its activations
    recompute_group: Positive | Literal["auto"] = "auto"  # sites a group of recompute: connection; auto: least memory
    eval_every: Positive = 100
    eval_batches: Positive = 8
    save_every: Natural = 0  # updates between checkpoints; 0: by time alone
    save_minutes: Annotated[float, Field(ge=0)] = 10.0  # 0: by updates alone
    keep_last: Annotated[int, Field(ge=2)] = 3  # beside the best; one alone may be the one that is damaged
    resume: Literal["never", "auto"] = "never"  # auto: go on from the run's newest sound checkpoint, if any
    weights: str | None = None  # a run or checkpoint folder whose weights a new run starts from
    timeout_s: Annotated[float, Field(gt=0)] = 300.0  # that a process waits for the others

    @field_validator("betas")
    @classmethod
    def _betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"both must lie in [0, 1), got {betas}")
        return betas

    def warnings(self) -> list[str]:
        """What is allowed but hardly meant."""
        found = []
        if self.warmup > self.steps:
            found.append(f"train.warmup {self.warmup} > train.steps {self.steps}: the rate stays on its ramp")
        if self.eval_every > self.steps:
            found.append(
                f"train.eval_every {self.eval_every} > train.steps {self.steps}: evaluated at start and end only"
            )
        if self.min_lr > self.lr:
            found.append(f"train.min_lr {self.min_lr:g} > train.lr {self.lr:g}: the rate rises after the warm-up")
        if self.recompute_group != "auto" and self.recompute != "connection":
            found.append(
                f"train.recompute_group {self.recompute_group} groups nothing: train.recompute={self.recompute}"
            )
        return found


class LogConfig(Section):
    """How often metrics and maps are written, and from where on they are remarked upon."""

    every: Positive = 10
    maps_every: Natural = 0  # gains of the connections, from 1024 validation tokens; 0: never
    warn_gain: Annotated[float, Field(gt=0)] = 2.0  # of the map of one site, mean over tokens
    warn_excess: Annotated[float, Field(ge=0)] = 1e-3  # of a composite, as a share of its method's bound
    warn_grad_norm: Annotated[float, Field(gt=0)] = 10.0
    tensorboard: bool = False  # beside results.jsonl, in logs/tensorboard
    wandb: str | None = None  # the project of Weights & Biases to send to
    wandb_entity: str | None = None  # whose project it is; None: of the one who is logged in


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
    """Removes from `values` what an override of a name or a dialect makes stale; returns the dotted keys."""
    dropped = []
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
