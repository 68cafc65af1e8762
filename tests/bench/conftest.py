"""A checkout of mhc-lite in outline: the names, layouts and signatures that the adapter relies on."""

from pathlib import Path

import pytest

MODEL = """
from dataclasses import dataclass
import torch
from torch import nn
import torch.nn.functional as F
from hyper_conn import built

@dataclass
class GPTConfig:
    block_size: int = 1
    vocab_size: int = 1
    n_layer: int = 1
    n_head: int = 1
    n_embd: int = 1
    bias: bool = True
    hyper_conn_n: int = 1
    hyper_conn_type: str = "none"

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("as it goes")
        built.append(config)
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)

    def forward(self, idx, targets):
        logits = self.embedding(idx) @ self.embedding.weight.T
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""

PACKAGE = """
from torch import nn
from . import mhc

built = []
WHERE = __file__

class HyperConnections(nn.Module):
    def __init__(self, streams, *, dim, branch, layer_index):
        super().__init__()
        self.streams, self.branch = streams, branch
        self.layer = nn.Linear(dim, dim)

    def forward(self, residuals):
        return self.branch(self.layer(residuals))

class ManifoldConstrainedHyperConnections(HyperConnections):
    pass

class MHCLite(HyperConnections):
    pass
"""

ROUNDS = """
def sinkhorn_knopps(logits, iters):
    for _ in range(iters):
        logits = logits.log_softmax(-2).log_softmax(-1)
    return logits.exp()
"""


@pytest.fixture
def checkout(tmp_path):
    """checkout(name) -> a folder with one."""

    def write(name: str = "mhc-lite") -> Path:
        files = {"model.py": MODEL, "hyper_conn/__init__.py": PACKAGE, "hyper_conn/mhc.py": ROUNDS}
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    return write
