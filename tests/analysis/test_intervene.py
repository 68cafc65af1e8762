"""An intervention replaces res at the chosen sites, and nothing else; what the loss does then is arithmetic."""

import pytest
import torch

from mhcnb import build_model, load_config
from mhcnb.analysis.gains import products
from mhcnb.analysis.intervene import RULES, intervened, loss_changes, matching
from mhcnb.analysis.record import record
from mhcnb.errors import ConfigError
from mhcnb.layers.site import probing, sites
from mhcnb.objectives.lm import LM, LMConfig

SIZES = {"model.width": 16, "model.layers": 2, "model.heads": 2, "model.block_size": 8, "model.vocab_size": 32}


@pytest.fixture
def make(request):
    def make(connection, scale=0.3, **fields):
        path = request.config.rootpath / "params/gpt/tiny.yaml"
        named = {f"connection.{key}": value for key, value in fields.items()}
        model = build_model(load_config(path, {"connection.name": connection} | SIZES | named)).double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return make


def batch(seed=0, rows=3):
    tokens = torch.randint(32, (rows, 9), generator=torch.Generator().manual_seed(seed))
    return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}


def maps_of(model):
    """{site: maps} as the model uses them now."""
    seen = {}
    with probing(model, lambda site, maps: seen.update({site: maps})), torch.no_grad():
        model(batch())
    return seen


def change(model, rule, *patterns):
    (found,) = loss_changes(model, LM(LMConfig()), [batch(), batch(1)], [rule], patterns or ["*"])
    return found


@pytest.mark.parametrize(
    ("connection", "rule"),
    [("identity", "identity"), ("average", "average"), ("identity", "shuffled"), *(("residual", r) for r in RULES)],
)
def test_what_is_already_so_changes_nothing(make, connection, rule):
    assert abs(change(make(connection), rule).change) < 1e-12


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("connection", ["hc", "mhc"])
def test_what_is_not_changes_the_loss(make, connection, rule):
    assert abs(change(make(connection), rule).change) > 1e-4


@pytest.mark.parametrize("rule", ["identity", "average"])
def test_mhc_so_intervened_is_the_control(make, rule):
    """The control with mhc's other parameters: the same logits."""
    model, control = make("mhc"), make(rule)
    own = control.state_dict()
    state = {name: value for name, value in model.state_dict().items() if name in own}
    for name in state:
        shape = own[name].shape  # projections and gates of res are left out
        state[name] = state[name][:, : shape[1]] if len(shape) == 2 else state[name][: shape[0]]
    control.load_state_dict(state)
    with torch.no_grad(), intervened(model, rule):
        torch.testing.assert_close(model(batch()).logits, control(batch()).logits, rtol=1e-10, atol=1e-10)


def test_only_the_chosen_sites(make):
    """The first site's input does not change, so the composite differs by the one factor that was replaced."""
    model = make("mhc")
    before = maps_of(model)
    with intervened(model, "average", "main.0.attn") as names:
        during = maps_of(model)
    assert names == ["main.0.attn"]
    assert torch.equal(during["main.0.attn"].res, torch.full_like(before["main.0.attn"].res, 0.25))
    assert torch.equal(during["main.0.attn"].pre, before["main.0.attn"].pre)
    assert not torch.equal(during["main.1.mlp"].res, before["main.1.mlp"].res)
    with intervened(model, "identity", "main.1.mlp"):  # the last: nothing follows it
        during = maps_of(model)
    for name in list(before)[:-1]:
        assert torch.equal(during[name].res, before[name].res)
    composite = torch.eye(4).double()
    for maps in during.values():
        composite = maps.res @ composite
    without_last = torch.eye(4).double()
    for maps in list(before.values())[:-1]:
        without_last = maps.res @ without_last
    torch.testing.assert_close(composite, without_last)


@pytest.mark.parametrize(("rule", "matrix"), [("identity", torch.eye(4)), ("average", torch.full((4, 4), 0.25))])
def test_composites_as_recorded_are_those_of_the_rule(make, rule, matrix):
    """I and J/n are projections: every product of them is the same again."""
    model = make("hc")
    with intervened(model, rule, ["main.0.*", "main.1.*"]) as names:
        found = list(products(record(model, batch())))
    assert names == list(sites(model))
    assert len(found) == 3 * len(names)
    for product in found:
        torch.testing.assert_close(product.P, matrix.double().expand_as(product.P))


@pytest.mark.parametrize("shape", [(2,), (7,), (3, 8)], ids=str)
def test_shuffled_gives_every_token_the_matrix_of_another(shape):
    """Each goes to one other token, in one cycle: none keeps its own."""
    res = torch.randn(*shape, 4, 4)
    own, got = res.flatten(end_dim=-3), RULES["shuffled"](res, 0).flatten(end_dim=-3)
    donors = [[bool((matrix == other).all()) for other in own].index(True) for matrix in got]
    visited, token = [], 0
    for _ in donors:
        token = donors[token]
        visited.append(token)
    assert sorted(visited) == list(range(len(own)))


def test_shuffling_is_seeded(make):
    model, found = make("mhc"), []
    for seed in (0, 0, 1):
        with intervened(model, "shuffled", seed=seed):
            found.append(maps_of(model)["main.0.attn"].res)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_loss_changes_are_differences_of_means(make):
    """Over batches of different size, by hand; in evaluation mode, and the mode is put back."""
    model, objective = make("hc"), LM(LMConfig())
    batches = [batch(0, 3), batch(1, 1)]
    model.train()
    found = loss_changes(model, objective, iter(batches), sites=["main.0.*", "main.*"])
    assert model.training
    assert [(f.rule, f.sites, f.count) for f in found] == [
        (rule, pattern, count) for rule in RULES for pattern, count in (("main.0.*", 2), ("main.*", 4))
    ]
    logits = torch.cat([model(b).logits.flatten(0, 1) for b in batches])
    targets = torch.cat([b["targets"].flatten() for b in batches])
    plain = torch.nn.functional.cross_entropy(logits, targets).item()
    assert all(f.loss - f.change == pytest.approx(plain, abs=1e-6) for f in found)


def test_probes_are_put_back(make):
    model, noted = make("mhc"), []
    connection = sites(model)["main.0.attn"].connection
    connection.probe = noted.append
    block = intervened(model, "identity")
    block.__enter__()
    assert connection.probe != noted.append
    assert not block.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert connection.probe == noted.append
    assert sites(model)["main.0.mlp"].connection.probe is None


def test_a_later_probe_sees_what_an_earlier_one_put_in(make):
    model, seen = make("mhc"), []
    first = probing(model, lambda site, maps: maps._replace(res=2 * maps.res))
    second = probing(model, lambda site, maps: seen.append(maps.res) or maps._replace(res=3 * maps.res))
    with first, second:
        used = maps_of(model)["main.0.attn"].res
    plain = maps_of(model)["main.0.attn"].res
    torch.testing.assert_close(seen[0], 2 * plain)
    torch.testing.assert_close(used, 6 * plain)


def test_patterns(make):
    model = make("mhc")
    assert matching(model) == list(sites(model))
    assert matching(model, "*.attn") == ["main.0.attn", "main.1.attn"]
    assert matching(model, ["main.1.mlp", "main.0.*"]) == ["main.0.attn", "main.0.mlp", "main.1.mlp"]


@pytest.mark.parametrize(
    ("rule", "site", "hint"), [("identity", "main.0.atn", r"main\.0\.attn"), ("averag", None, "average")]
)
def test_unknown_names_are_refused(make, rule, site, hint):
    with pytest.raises(ConfigError, match=f"did you mean {hint}"):
        intervened(make("mhc"), rule, site).__enter__()
