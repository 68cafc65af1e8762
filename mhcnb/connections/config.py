"""What can be chosen of a connection with streams, and what publications chose."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mhcnb.section import Named

# Which side of res is exact, norm, entry and exit, initial values, decay: what publications differ in besides the
# method. `paper`: mHC eq. 7-9 with an initial state equal to the residual network. `mhc_lite`: the code of 2601.05732.
# `deepseek_v4`: as that model runs; its own random start is no start for training, so the method's is kept.
DIALECTS: dict[str, dict[str, Any]] = {
    "paper": dict(
        init="exact_residual", norm="rms", norm_eps=1e-6, norm_weight=False, reduce="mean",
        order="rows", first="sums", eps=0.0, pre_eps=0.0,
    ),
    "mhc_lite": dict(
        init="method", norm="l2", norm_eps=1e-12, norm_weight=True, reduce="norm_sum",
        order="columns", first="sums", eps=0.0, pre_eps=0.0,
    ),
    "deepseek_v4": dict(
        init="method", norm="rms", norm_eps=1e-6, norm_weight=False, reduce="head",
        order="rows", first="softmax", eps=1e-6, pre_eps=1e-6,
    ),
}  # fmt: skip


class ConnectionConfig(Named):
    """Fields that every method with streams has. `dialect` fills those that are not given; all are written out."""

    dialect: Literal["paper", "mhc_lite", "deepseek_v4"] = "paper"
    streams: Annotated[int, Field(ge=1)] = 4
    init: Literal["method", "exact_residual"] = "exact_residual"
    norm: Literal["rms", "l2"] = "rms"  # x·rsqrt(mean x² + eps), or x·√D / max(|x|, eps)
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    norm_weight: bool = False  # multiply by a learned 1 + γ
    reduce: Literal["mean", "sum", "norm_sum", "head"] = "mean"  # at the exit; see Ends
    head_eps: Annotated[float, Field(ge=0, le=0.01)] = 1e-6  # added to the shares of reduce: head
    decay_static: bool = False  # weight decay on the bias logits too

    @classmethod
    def presets(cls, values: dict) -> dict:
        """What the dialect fills of this method's fields."""
        preset = DIALECTS.get(str(values.get("dialect", "paper")), {})
        return {field: value for field, value in preset.items() if field in cls.model_fields}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return {**cls.presets(values), **values} if isinstance(values, dict) else values

    @field_validator("streams")
    @classmethod
    def _several(cls, streams: int) -> int:
        if streams < 2:
            raise ValueError(f"at least 2 streams; {streams} is the connection residual")
        return streams

    @model_validator(mode="after")
    def _exact(self) -> "ConnectionConfig":
        if self.init == "exact_residual" and self.reduce != "mean":
            raise ValueError(
                f"init exact_residual needs reduce: mean, got {self.reduce} (only a mean gives equal streams back "
                "unscaled, as the residual network has them); use init: method or reduce: mean"
            )
        return self
