"""Time and disk of a run are plain functions: held against the loop's own events, played through."""

import itertools
import random

import pytest

from mhcnb import yamlfile
from mhcnb.config import as_dict
from mhcnb.errors import RunError
from mhcnb.run import Run
from mhcnb.training import estimate
from mhcnb.training.estimate import Timings, counts, measure, run_bytes, run_seconds, short, timings_of

SECOND = Timings(start=1.0, micro=1.0, evaluation=1.0, save=1.0, maps=1.0, peak_memory_gb=0.1)
ZERO = SECOND._replace(start=0.0, micro=0.0, evaluation=0.0, save=0.0, maps=0.0)


def events(config):
    """What the loop does, in its order, where every evaluation is the best so far."""
    train, maps = config.train, config.log.maps_every
    yield from ["start", *["evaluation"] * train.eval_batches, *["maps"] * (maps > 0)]
    for step in range(1, train.steps + 1):
        yield from ["micro"] * train.accumulation
        yield from ["maps"] * (maps > 0 and step % maps == 0)
        last, evaluated = step == train.steps, step == train.steps or step % train.eval_every == 0
        yield from ["evaluation"] * (train.eval_batches * evaluated)
        if last or evaluated or (train.save_every and step % train.save_every == 0):
            yield "save"


NAMES = ("steps", "eval_every", "save_every", "maps_every", "accumulation")
GRID = list(itertools.product((1, 7, 12), (1, 4, 5, 100), (0, 3, 4), (0, 5), (1, 3)))


@pytest.mark.parametrize(NAMES, random.Random(0).sample(GRID, 40))
def test_a_run_takes_what_its_events_take(small, steps, eval_every, save_every, maps_every, accumulation):
    config = small(
        **{"train.steps": steps, "train.eval_every": eval_every, "train.save_every": save_every},
        **{"train.accumulation": accumulation, "log.maps_every": maps_every},
    )
    played = list(events(config))
    for name in ("start", "micro", "evaluation", "save", "maps"):
        assert run_seconds(config, ZERO._replace(**{name: 1.0})) == played.count(name), name
    assert run_seconds(config, SECOND) == len(played)


def test_ranks_share_the_micro_batches_and_the_batches_of_an_evaluation(small):
    config = small(**{"train.accumulation": 4, "train.eval_batches": 3, "train.steps": 10, "train.eval_every": 10})
    assert [counts(config, ranks).micros for ranks in (1, 2, 4)] == [40, 20, 10]
    evaluation = ZERO._replace(evaluation=1.0)
    assert [run_seconds(config, evaluation, ranks) for ranks in (1, 2, 4)] == [6, 4, 2]


@pytest.mark.parametrize(("keep", "steps", "every"), [(2, 3, 1), (2, 20, 1), (3, 20, 4), (5, 9, 2)])
def test_the_disk_holds_no_more_checkpoints_than_were_foretold(small, keep, steps, every):
    fields = {"train.keep_last": keep, "train.steps": steps, "train.eval_every": every, "train.save_minutes": 0.0}
    config, worst = small(**fields), 0
    saved = sorted({steps, *range(every, steps + 1, every)})
    for best in saved:  # the one that is never beaten
        there: list[int] = []
        for step in saved:
            there.append(step)
            worst = max(worst, len(there))
            there = [s for s in there if s in there[-keep:] or s == best]
    assert run_bytes(config, checkpoint=10) == 10 * worst
    assert run_bytes(small(**fields | {"train.save_minutes": 9.0}), 10) >= 10 * worst


def test_timings_come_from_warm_records_alone_and_the_end_is_an_evaluation_and_a_save():
    made = [("eval", 0, 5.0), ("maps", 0, 3.0), ("train", 1, 9.0), ("train", 2, 2.0)]
    made += [(kind, step, 0.5) for step in range(3, 11) for kind in ["train"]]
    made += [("eval", 10, 0.25), ("train", 11, 4.0), ("train", 12, 0.7), ("maps", 12, 0.125)]
    clock = itertools.accumulate(seconds for *_, seconds in made)
    records = [{"type": kind, "step": step, "time_s": now} for (kind, step, _), now in zip(made, clock, strict=True)]
    records.append({"type": "eval", "step": 12, "time_s": records[-1]["time_s"] + 1.25, "on_stop": True})
    found = timings_of(records, start=2.0, peak_memory_gb=0.5)
    assert found.micro == pytest.approx((8 * 0.5 + 0.7) / 9)  # neither what warms up nor what stands behind a save
    assert (found.start, found.peak_memory_gb) == (2.0, 0.5)
    assert (found.evaluation, found.maps, found.save) == pytest.approx((0.25, 0.125, 1.0))


def test_one_slow_step_is_enough():
    records = [{"type": "eval", "step": 0, "time_s": 40.0}, {"type": "train", "step": 1, "time_s": 100.0}]
    records.append({"type": "eval", "step": 1, "time_s": 143.0, "on_stop": True})
    assert timings_of(records, 2.0, 9.0) == Timings(2.0, 60.0, 40.0, pytest.approx(3.0), 0.0, 9.0)


def test_a_measured_run_is_the_run_with_fewer_batches(small):
    config = small(**{"train.accumulation": 8, "train.eval_batches": 20, "log.maps_every": 50, "train.compile": True})
    few = short(config, processes=2)
    assert (few.train.accumulation, few.train.eval_batches, few.log.maps_every > 0) == (2, 2, True)
    for name in ("micro_batch", "device", "dtype", "compile", "recompute", "lr", "clip"):
        assert getattr(few.train, name) == getattr(config.train, name)
    assert (few.model, few.connection, few.data) == (config.model, config.connection, config.data)
    assert short(small(**{"log.maps_every": 0})).log.maps_every == 0


def test_measuring_stops_a_real_run_as_soon_as_it_has_been_seen(small, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "SECONDS", 0.0)
    (tmp_path / "config.yaml").write_text(yamlfile.dump(as_dict(short(small(**{"log.maps_every": 3})))))
    estimate.main(tmp_path, launched=0.0)
    found = estimate._result(tmp_path)
    assert min(found) > 0
    assert Run(tmp_path / "run").status()["state"] == "stopped"
    assert Run(tmp_path / "run").status()["step"] == 2


def test_what_cannot_be_measured_says_why(small):
    config = small()
    broken = config.model_copy(update={"data": config.data.model_copy(update={"root": "/nowhere/at/all"})})
    with pytest.raises(RunError, match="/nowhere/at/all"):
        measure([broken])
