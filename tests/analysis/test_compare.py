import math

import pytest

from mhcnb import load_config
from mhcnb.analysis import compare
from mhcnb.analysis.compare import curves, finals, read, to_baseline
from mhcnb.run import Run, find_runs


def write(folder, losses, state="done", env=None, **overrides):
    """A run folder with validation losses {step: loss} as training writes it."""
    given = {"model.vocab_size": 64, "train.steps": 200, "train.lr": 2e-3} | overrides
    config = load_config("params/gpt/tiny.yaml", given)
    run = Run.create(folder, config)
    run.write_env(env or {"data": {"val_unigram_entropy": 5.5}})
    for step, loss in losses.items():
        run.append({"type": "train", "step": step, "time_s": 0.0, "loss": loss + 1, "lr": 1e-3})
        run.append({"type": "eval", "step": step, "time_s": 0.0, "train_loss": loss - 0.5, "val_loss": loss})
    if state == "done":
        last = losses[max(losses)]
        run.write_summary({"final_val_loss": last, "final_train_loss": last - 0.5, "tokens_per_s": 1e4, "params": 7})
    run.set_status(state, max(losses, default=0))
    run.release()
    return run


def members_of(folder):
    return read(find_runs(folder))[0]


def test_curves_hold_every_loss_that_was_written(tmp_path):
    write(tmp_path / "a", {0: 8.0, 10: 6.0}, **{"connection.name": "hc", "seed": 3})
    frame = curves(members_of(tmp_path))
    assert frame.to_numpy().tolist() == [
        ["a", "hc", "tiny", 3, "train", 0, 9.0],
        ["a", "hc", "tiny", 3, "val", 0, 8.0],
        ["a", "hc", "tiny", 3, "train", 10, 7.0],
        ["a", "hc", "tiny", 3, "val", 10, 6.0],
    ]


def test_differences_to_residual_are_paired_by_setting_seed_and_step(tmp_path):
    for seed, (own, base) in {0: (5.0, 5.5), 1: (7.0, 7.1)}.items():
        write(tmp_path / f"hc{seed}", {0: 8.0, 10: own}, **{"connection.name": "hc", "seed": seed})
        write(tmp_path / f"residual{seed}", {0: 8.0, 10: base}, **{"connection.name": "residual", "seed": seed})
    write(tmp_path / "alone", {10: 1.0}, **{"connection.name": "hc", "seed": 2})
    members = members_of(tmp_path)
    paired = to_baseline(curves(members)).set_index(["run", "step"])["difference"]
    assert paired.to_dict() == pytest.approx({("hc0", 0): 0, ("hc0", 10): -0.5, ("hc1", 0): 0, ("hc1", 10): -0.1})
    assert finals(members)["method"].iloc[0] == "residual"  # first what others are compared with


def test_labels_say_what_differs_and_nothing_else(tmp_path):
    write(tmp_path / "a", {0: 8.0}, **{"connection.name": "mhc", "connection.iterations": 5})
    write(tmp_path / "b", {0: 8.0}, **{"connection.name": "mhc"})
    write(tmp_path / "c", {0: 8.0}, **{"connection.name": "hc", "seed": 4, "log.every": 3})
    write(tmp_path / "d", {0: 8.0}, **{"connection.name": "hc", "train.lr": 1e-4, "preset": "other"})
    labels = {m.run.name: (m.method, m.setting) for m in members_of(tmp_path)}
    assert labels == {
        "a": ("mhc iterations=5", "tiny"),
        "b": ("mhc iterations=20", "tiny"),
        "c": ("hc", "tiny"),
        "d": ("hc", "other"),
    }


def test_a_dialect_stands_for_what_it_fills_and_a_setting_for_what_varies_in_a_preset(tmp_path):
    write(tmp_path / "a", {0: 8.0}, **{"connection.name": "mhc", "connection.dialect": "mhc_lite"})
    write(tmp_path / "b", {0: 8.0}, **{"connection.name": "mhc", "train.lr": 1e-4})
    labels = {m.run.name: (m.method, m.setting) for m in members_of(tmp_path)}
    assert labels["a"] == ("mhc dialect=mhc_lite", "tiny train.lr=0.002")
    assert labels["b"] == ("mhc dialect=paper", "tiny train.lr=0.0001")


def test_runs_that_are_unfinished_damaged_or_diverged_are_remarked_and_do_not_stop_the_rest(tmp_path):
    write(tmp_path / "good", {0: 8.0, 200: 6.0})
    write(tmp_path / "half", {0: 8.0, 50: 7.0}, state="running")
    write(tmp_path / "empty", {}, state="starting")
    write(tmp_path / "wild", {0: 8.0, 10: math.nan}, state="diverged")
    (write(tmp_path / "torn", {0: 8.0}).path / "results.jsonl").write_text('{"type"\n{"type": "eval"}\n')
    (write(tmp_path / "odd", {0: 8.0}).path / "config.yaml").write_text("preset: x\nnonsense: 1\n")
    (write(tmp_path / "bare", {0: 8.0}).path / "status.json").unlink()
    members, remarks = read(find_runs(tmp_path))
    assert [m.run.name for m in members] == ["bare", "empty", "good", "half", "wild"]
    text = "\n".join(remarks)
    assert "torn is left out" in text
    assert "results.jsonl:1" in text
    assert "odd is left out" in text
    assert "half is running, step 50 of 200" in text
    assert "empty has no losses yet" in text
    assert "wild has losses that are not finite" in text
    assert "bare is without a status" in text
    assert "good" not in text
    frame = finals(members).set_index("run")
    assert frame.loc["half", "val_loss"] == 7.0  # the latest, as there is no summary
    assert math.isnan(frame.loc["half", "tokens_per_s"])
    assert math.isnan(frame.loc["empty", "val_loss"])
    assert frame.loc["good", "unigram_entropy"] == 5.5


def test_no_runs_give_empty_frames_with_their_columns():
    assert read([]) == ([], [])
    assert "loss" in curves([])
    assert "difference" in to_baseline(curves([]))
    assert set(compare.FIGURES) < set(finals([]))


def test_the_attempts_that_a_sweep_put_aside_are_not_compared(tmp_path):
    write(tmp_path / "aside" / "hc-1", {0: 8.0})
    write(tmp_path / "hc", {0: 8.0})
    assert [m.run.name for m in members_of(tmp_path)] == ["hc"]
