"""The connections of a model while it trains: a `maps` record now and then, and words where something leaves its range.

Rank 0 alone measures, on the model's own weights; the others wait for it at the next step they take together.
"""

import logging
from typing import Any

from mhcnb.analysis.gains import Frame
from mhcnb.analysis.measure import Measurement, measure
from mhcnb.config import LogConfig
from mhcnb.connections.base import Connection
from mhcnb.layers.site import sites
from mhcnb.run import Run
from mhcnb.training.progress import Meter
from mhcnb.training.session import Session

log = logging.getLogger(__name__)
TOKENS = 1024  # a record: whole windows, at least one. mHC's pictures are of one sequence, too
BY_SITE = ("amax", "min_column_sum", "mean_zero_gain", "lambda2", "sigma_min")  # of single maps, beside their gains
SIDES = ("forward", "backward")


class Monitor:
    """Follows a training step by step. It draws no random number and changes nothing that trains."""

    def __init__(self, s: Session, meter: Meter) -> None:
        self.s, self.meter, self.limits = s, meter, s.config.log
        self.words = s.track.words
        s.run.words = list(self.words.values())

    def follow(self, step: int, line: dict[str, Any] | None) -> None:
        """Looks at the train record of this step, if any, and measures the maps where that is due."""
        if not self.s.leads:
            return
        if line:
            self._say(step, words_of_gradient(line["grad_norm"], self.limits))
        if self.limits.maps_every and step % self.limits.maps_every == 0:
            with self.meter.paused():
                self._record(step)

    def _record(self, step: int) -> None:
        found = measure_windows(self.s)
        self.s.run.append({"type": "maps", "step": step, "time_s": self.meter.elapsed()} | as_record(found))
        connection = next(iter(sites(self.s.model).values())).connection
        self._say(step, words_of_maps(found.maps, connection, self.limits))

    def _say(self, step: int, words: dict[str, str]) -> None:
        """Into status.json at once, and into the log the first time that it is about this."""
        for about, text in words.items():
            if about not in self.words:
                log.warning("step %d: %s", step, text)
            self.words[about] = f"step {step}: {text}"
        if words:
            self.s.run.words = list(self.words.values())
            self.s.run.set_status("running", step)


def measure_windows(s: Session) -> Measurement:
    """The maps on the first validation windows, as many as hold TOKENS: the same at every step, for every method."""
    total = s.config.train.micro_batch * s.config.train.eval_batches
    rows = max(1, TOKENS // getattr(s.config.model, "block_size", TOKENS))
    with s.averaged(), s.autocast():
        return measure(s.model, [s.source.evaluation_batch("val", 0, min(rows, total), total)])


def as_record(found: Measurement) -> dict[str, Any]:
    """{tokens, gains: {site: {forward, backward}}, composite: {forward: {site: of P_{1..l}}, backward: {site: of
    P_{l..L}}}, and {site: mean} for further quantities of maps, streams, coefficients and Sinkhorn's inputs}."""
    single, prefix, suffix = (_by_site(found.maps, scope) for scope in ("single", "prefix", "suffix"))
    streams, gates = _by_site(found.streams), _by_site(found.coefficients)
    record: dict[str, Any] = {"tokens": found.tokens}
    record["gains"] = {site: {side: single[f"amax_{side}"][site] for side in SIDES} for site in single["amax_forward"]}
    record["composite"] = {"forward": prefix["amax_forward"], "backward": suffix["amax_backward"]}
    record |= {name: single[name] for name in BY_SITE}
    record["composite_mean_zero_gain"] = prefix["mean_zero_gain"]
    record |= {name: streams[name] for name in ("cosine", "effective_rank")}
    record |= {name: values for name, values in gates.items() if name.startswith("gate_")}
    if len(found.inputs):
        inputs = found.inputs.assign(site=_labels(found.inputs)).set_index("site")
        record |= {"log_range": inputs["mean"].to_dict(), "share_above_30": inputs["share_above_30"].to_dict()}
    return record


def words_of_gradient(norm: float, limits: LogConfig) -> dict[str, str]:
    """{what it is about: text} where a gradient norm, before clipping, is large or not finite."""
    if norm <= limits.warn_grad_norm:
        return {}
    return {"grad_norm": f"gradient norm {norm:.3g}, above {limits.warn_grad_norm:g} (log.warn_grad_norm)"}


def words_of_maps(maps: Frame, connection: Connection, limits: LogConfig) -> dict[str, str]:
    """{what it is about: text} where a single gain or a composite leaves its range; at most one text each side."""
    words = {}
    for side in SIDES:
        of = maps[maps["quantity"] == f"amax_{side}"]
        single, composite = of[of["scope"] == "single"], of[of["scope"] != "single"]
        if text := _single(single, side, connection, limits):
            words[f"single {side}"] = text
        if text := _composite(composite, side, connection, limits):
            words[f"composite {side}"] = text
    return words


def words_of(run: Run) -> list[str]:
    """What was remarked upon while a run trained, each with its step; [] where nothing was."""
    return list(run.status().get("words", []))


def _single(rows: Frame, side: str, connection: Connection, limits: LogConfig) -> str:
    row = rows.loc[rows["mean"].fillna(float("inf")).idxmax()]
    if row["mean"] <= limits.warn_gain:
        return ""
    text = f"gain {side} of {row['site']} is {row['mean']:.3g}, above {limits.warn_gain:g} (log.warn_gain)"
    return text + _standing(connection)


def _composite(rows: Frame, side: str, connection: Connection, limits: LogConfig) -> str:
    """Against 1 on a side whose sums are exact, and n on the other; each token must keep to that. hc has no bound:
    there the mean is held against n, and passing it is worth knowing."""
    exact = {"forward": "rows", "backward": "columns"}[side] in connection.exact
    bound, over = (1 if exact else connection.n), "max" if connection.exact else "mean"
    row = rows.loc[rows[over].fillna(float("inf")).idxmax()]
    if row[over] <= bound * (1 + limits.warn_excess):
        return ""
    which = "entry to" if row["scope"] == "prefix" else "exit down to"
    text = f"composite gain {side} from {which} {row['site']} is {row[over]:.4g}"
    if not connection.exact:
        return f"{text}, above n = {connection.n}{_standing(connection)}"
    sides = "both sides" if len(connection.exact) == 2 else f"exact {connection.exact[0]}"
    return f"{text} for a token, above {bound}, the bound of {connection.config.name} ({sides})"


def _standing(connection: Connection) -> str:
    """What a large gain means for this method."""
    if connection.exact:
        return f"; {connection.config.name} bounds it by {1 if len(connection.exact) == 2 else connection.n}"
    return f": a finding, not an error, for {connection.config.name} does not bound its gains"


def _by_site(frame: Frame, scope: str = "") -> dict[str, dict[str, float]]:
    """{quantity: {site: mean}} in call order."""
    part = frame[frame["scope"] == scope].sort_values("index", kind="stable") if scope else frame
    named = part.assign(site=_labels(part))
    return {name: dict(zip(rows["site"], rows["mean"], strict=True)) for name, rows in named.groupby("quantity")}


def _labels(frame: Frame) -> list[str]:
    """A site's name, `site ×2` for its second call."""
    return [site + (f" ×{call + 1}" if call else "") for site, call in zip(frame["site"], frame["call"], strict=True)]
