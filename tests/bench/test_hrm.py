"""The benchmark of the HRM runs, small; drives a checkout by its own code, and refuses what is none."""

import sys

import pytest
import torch

from mhcnb.bench import hrm
from mhcnb.bench.hrm_peer import apart, original
from mhcnb.errors import ConfigError
from mhcnb.training.adam_atan2 import AdamAtan2

# the original in outline: the names and signatures that the adapter relies on
MODEL = """
import torch
from torch import nn
from flash_attn_interface import flash_attn_func

built = []

class HierarchicalReasoningModel_ACTV1(nn.Module):
    def __init__(self, config_dict):
        super().__init__()
        built.append(self)
        self.given, self.steps, self.attend = config_dict, [], flash_attn_func
        self.weight = nn.Parameter(torch.ones(3))
        self.puzzle_emb = nn.Module()
        self.puzzle_emb.register_buffer("weights", torch.zeros(1, 3))
"""

LOSSES = """
from torch import nn

class ACTLossHead(nn.Module):
    def __init__(self, model, loss_type):
        super().__init__()
        assert loss_type == "stablemax_cross_entropy"
        self.model = model

    def initial_carry(self, batch):
        return 0

    def forward(self, return_keys, carry, batch):
        self.model.steps.append(carry)
        return carry + 1, (self.model.weight * batch["inputs"]).sum(), {}, {}, False
"""

TABLES = """
class CastedSparseEmbeddingSignSGD_Distributed:
    def __init__(self, params, lr, weight_decay, world_size):
        (self.weights,), self.lr = params, lr
        assert (weight_decay, world_size) == (0.5, 1)

    def step(self):
        self.weights += self.lr

    def zero_grad(self):
        pass
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "models/hrm").mkdir(parents=True)
    for name, text in {"hrm/hrm_act_v1": MODEL, "losses": LOSSES, "sparse_embedding": TABLES}.items():
        (tmp_path / f"models/{name}.py").write_text(text)
    return tmp_path


def test_a_checkout_is_driven_by_its_own_code(checkout, monkeypatch):
    """Two updates: the carry goes on, gradients are of the mean over rows and do not add up, both optimizers step; and
    somebody else's `models` is theirs again."""
    mine = sys.modules.setdefault("models", sys)
    monkeypatch.setitem(sys.modules, "models", mine)
    before, config = list(sys.path), hrm.configuration("residual").model
    loaded = set(sys.modules)
    built = []
    monkeypatch.setattr("importlib.import_module", _noting(built))
    update = original(checkout, config, 2, 0.1, 0.5)
    assert (sys.path, sys.modules["models"], set(sys.modules) - loaded) == (before, mine, set())
    (model,) = built[0].built
    assert model.given == {
        "batch_size": 2, "seq_len": 81, "puzzle_emb_ndim": 32, "num_puzzle_identifiers": 1, "vocab_size": 11,
        "H_cycles": 2, "L_cycles": 2, "H_layers": 1, "L_layers": 1, "hidden_size": 32, "expansion": 2.0, "num_heads": 1,
        "pos_encodings": "rope", "halt_max_steps": 16, "halt_exploration_prob": 0.1, "forward_dtype": "float32",
    }  # fmt: skip
    expected = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamAtan2([{"params": [expected], "weight_decay": 0.5}], 0.1)
    for inputs in (torch.tensor([3.0, -1.0, 0.5]), torch.tensor([-1.0, 4.0, 0.0])):
        update({"inputs": inputs})
        expected.grad = inputs / 2
        optimizer.step()
    torch.testing.assert_close(model.weight, expected)
    assert model.steps == [0, 1]
    assert torch.equal(model.puzzle_emb.weights, torch.full((1, 3), 0.2))
    q, k, v = torch.randn(3, 2, 5, 4, 8).unbind()
    scores = torch.einsum("bqhk,bthk->bhqt", q, k) / 8**0.5
    torch.testing.assert_close(model.attend(q, k, v, False), torch.einsum("bhqt,bthk->bqhk", scores.softmax(-1), v))


def _noting(modules):
    real = hrm.original.__globals__["importlib"].import_module

    def load(name):
        modules.append(real(name))
        return modules[-1]

    return load


def test_updates_of_ours(monkeypatch):
    monkeypatch.setattr(hrm, "UPDATES", 1)
    timings = hrm.hrm(rounds=2)
    assert [t.name for t in timings] == ["residual", "mhc"]
    assert timings[0].ratio == 1


def test_what_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no models/hrm/hrm_act_v1\.py there; expected a checkout of"):
        apart((f"hrm={tmp_path}",))
    with pytest.raises(ConfigError, match="given twice"):
        apart(("hrm=a", "hrm=b"))
    assert apart(("mhc-lite=x",)) == (["mhc-lite=x"], None)
