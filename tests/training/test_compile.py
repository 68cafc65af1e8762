"""What train.compile compiles, how often, and that it computes what it did before. Fast tests stop at the graphs that
are found; those that make code of them are slow."""

from contextlib import contextmanager

import pytest
import torch
from torch._dynamo.utils import counters

from mhcnb import build_model, registry
from mhcnb.analysis.record import record
from mhcnb.layers.recompute import recompute
from mhcnb.layers.site import probing, sites
from mhcnb.models.generation import generate
from mhcnb.run import Run
from mhcnb.training.checkpoint import load_model
from mhcnb.training.compiling import compile_parts
from mhcnb.training.loop import train

CONNECTIONS = registry.entries("connections")
CASES = [("gpt", name, "none") for name in CONNECTIONS] + [
    (model, "mhc", how) for model, how in [("gpt", "connection"), ("gpt", "block"), ("rlm", "none")]
]
MEASURED = {"time_s", "tokens_per_s", "peak_memory_gb"}


@pytest.fixture(autouse=True)
def nothing_compiled():
    """Before a test, nor counted. Afterwards autocast is left as it was: else its cache would keep weights for ever."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    assert depth == 1


@pytest.fixture
def graphs_only(monkeypatch):
    """No code is made of them."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile(f, backend="aot_eager", **options))


@pytest.fixture
def learner(small):
    """learner(model, connection, how): a model that trains compiled where `compiled`, and its update."""

    def make(model="gpt", connection="mhc", how="none", compiled=True, **fields):
        config = small(**{"model.name": model, "model.layers": 3, "connection.name": connection} | fields)
        made = build_model(config)
        recompute(made, how)
        if compiled:
            compile_parts(made, how)
        optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
        draw = torch.Generator().manual_seed(0)

        def update(rows=4, dtype=None):
            batch = (torch.randint(64, (rows, 1), generator=draw) + torch.arange(9)) % 64
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                logits = made({"inputs": batch[:, :-1]}).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return made, update

    return make


@contextmanager
def nothing_compiles():
    """A new graph would be an error."""
    before = counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.parametrize(("model", "connection", "how"), CASES)
def test_blocks_have_one_graph_without_breaks_and_no_other_after_the_first_step(
    learner, graphs_only, model, connection, how
):
    """The three blocks of a model; the two kinds of branch where the connections' part is computed again alone."""
    _, update = learner(model, connection, how)
    update()
    assert counters["stats"]["unique_graphs"] == (2 if how == "connection" else 1)
    with nothing_compiles():
        for _ in range(3):
            update()
    assert not counters["graph_break"]


def test_what_is_not_training_runs_as_it_is(learner, graphs_only):
    """Other shapes, decoding, probes on every block or on one: nothing is compiled for them, and training goes on with
    what there was."""
    model, update = learner()
    update()
    with nothing_compiles():
        batch = {"inputs": torch.zeros(3, 5, dtype=torch.int64)}
        with torch.no_grad():
            model(batch)
        model.eval()
        model(batch).logits.sum().backward()
        generate(model, torch.zeros(2, 3, dtype=torch.int64), 4)
        assert [found.site for found in record(model, batch)] == list(sites(model))
        model.train()
        seen = []
        with probing(model, lambda site, maps: seen.append(site), ["main.1.mlp"]):
            update()
        update()
    assert seen == ["main.1.mlp"]


def test_the_tenth_model_of_a_process_is_compiled_as_the_first(learner, graphs_only):
    """torch gives up on code that was compiled for eight shapes."""
    for heads in range(1, 11):
        _, update = learner(connection="residual", **{"model.heads": heads, "model.width": 2 * heads})
        update()
        assert counters["stats"]["unique_graphs"] == heads


def test_a_compiled_run_has_the_records_and_names_of_an_eager_one(small, tmp_path, graphs_only):
    """Evaluation and maps on the way."""
    records, names = [], []
    for compiled in (False, True):
        fixed = {"connection.name": "mhc", "model.layers": 2, "log.maps_every": 2, "train.compile": compiled}
        run = train(small(**fixed), tmp_path / str(compiled)) and Run(tmp_path / str(compiled))
        lines = [line for kind in ("train", "eval", "maps") for line in run.results(kind)]
        records.append([{k: v for k, v in line.items() if k not in MEASURED} for line in lines])
        names.append(list(load_model(run.path)[0].state_dict()))
    assert counters["stats"]["unique_graphs"] == 1
    assert records[0] == records[1]
    assert names[0] == names[1]


def losses(learner, dtype=None, **case):
    """Of 20 updates, eager and compiled."""
    found = []
    for compiled in (False, True):
        _, update = learner(compiled=compiled, **case)
        found.append([update(dtype=dtype) for _ in range(20)])
    assert found[0][-1] < found[0][0] - 0.1
    assert counters["stats"]["unique_graphs"] == (2 if case.get("how") == "connection" else 1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("model", "connection", "how"), CASES)
def test_compiled_and_eager_agree_over_twenty_updates(learner, model, connection, how):
    eager, compiled = losses(learner, model=model, connection=connection, how=how)
    assert compiled == pytest.approx(eager, abs=1e-4)
    assert not counters["graph_break"]


@pytest.mark.slow
def test_compiled_and_eager_agree_in_bfloat16(learner):
    eager, compiled = losses(learner, dtype=torch.bfloat16)
    assert compiled == pytest.approx(eager, abs=2e-2)
    assert compiled != eager


@pytest.mark.slow
def test_two_compiled_ranks_have_the_losses_of_one_eager_process(mhcnb, params, tmp_path):
    found = []
    for ranks in (0, 2):
        path = params(**{"connection.name": "mhc", "model.layers": 2, "train.compile": ranks > 0})
        done = mhcnb("train", path, "--out", f"of-{ranks}", ranks=ranks)
        assert done.returncode == 0, done.stderr
        run = Run(tmp_path / f"of-{ranks}")
        found.append([line["loss"] for line in run.results("train")] + [run.summary()["final_val_loss"]])
    assert found[1] == pytest.approx(found[0], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["paper", "mhc_lite"])
def test_gradients_are_finite_at_logits_far_apart_and_states_of_zeros(learner, dialect):
    """Where others' compiled backward gave NaN: res logits over a range of 30, tokens without a norm."""
    found = []
    for compiled in (False, True):
        model, update = learner(compiled=compiled, **{"connection.dialect": dialect})
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            model.wpe.weight.zero_()
            model.wte.weight[:32] = 0
            for site in sites(model).values():
                site.connection.weight.normal_(std=0.1, generator=draw)
                site.connection.bias["res"].copy_(torch.linspace(-15, 15, 16)[torch.randperm(16, generator=draw)])
        update()
        found.append([p.grad for p in model.parameters()])
    for eager, ours in zip(*found, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-7)
