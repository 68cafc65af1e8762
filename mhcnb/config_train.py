"""Sections of a configuration that are the same for every model: how it is trained, and what is written down."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mhcnb.section import Natural, Positive, Section


class TrainConfig(Section):
    """Updates, batches, optimizer. The global batch is micro_batch x accumulation whatever the number of processes."""

    epochs: Natural = 0  # passes over the data, made steps of when a run starts; an alternative to steps
    steps: Natural = 0  # updates
    micro_batch: Positive = 16
    accumulation: Positive = 1
    lr: Annotated[float, Field(gt=0)]
    schedule: Literal["cosine", "linear", "constant", "wsd", "hrm"] = "cosine"  # from lr to min_lr after the warm-up
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    warmup: Natural = 0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2  # the share of the updates in which wsd falls, at the end
    connection_lr: Annotated[float, Field(gt=0)] = 1.0  # times the rate, for the parameters of connections
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    puzzle_lr: Annotated[float, Field(gt=0)] | None = None  # of puzzles' vectors, under the same schedule; None: lr
    puzzle_weight_decay: Annotated[float, Field(ge=0)] | None = None  # None: weight_decay
    betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.95)
    clip: Annotated[float, Field(ge=0)] = 1.0  # 0: no clipping
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # averages of weights are evaluated and kept; 0: the weights
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # of autocast; auto: see training.device
    compile: bool = False
    recompute: Literal["none", "connection", "block"] = "none"  # in backward, instead of keeping its activations
    recompute_group: Positive | Literal["auto"] = "auto"  # sites a group of recompute: connection; auto: least memory
    eval_every: Natural = 100  # updates; 0: after each iteration of the data, where they have such
    eval_batches: Positive = 8
    save_every: Natural = 0  # updates between checkpoints; 0: by time alone
    save_evaluated: bool = False  # a checkpoint after every evaluation, not only after the best so far
    save_minutes: Annotated[float, Field(ge=0)] = 10.0  # 0: by updates alone
    keep_last: Annotated[int, Field(ge=2)] = 3  # beside the best; one alone may be the one that is damaged
    resume: Literal["never", "auto"] = "never"  # auto: go on from the run's newest sound checkpoint, if any
    weights: str | None = None  # a run or checkpoint folder whose weights a new run starts from
    timeout_s: Annotated[float, Field(gt=0)] = 300.0  # that a process waits for the others

    @field_validator("steps")
    @classmethod
    def _steps(cls, steps: int, info: ValidationInfo) -> int:
        if steps == 0 and info.data.get("epochs") == 0:
            raise ValueError("give steps, the number of updates, 1 or more, or epochs in their place")
        return steps

    @field_validator("betas")
    @classmethod
    def _betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"both must lie in [0, 1), got {betas}")
        return betas

    def warnings(self) -> list[str]:
        """What is allowed but hardly meant."""
        found = []
        if self.warmup > self.steps > 0:
            found.append(f"train.warmup {self.warmup} > train.steps {self.steps}: the rate stays on its ramp")
        if self.eval_every > self.steps > 0:
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
