import numpy as np
import pytest

from mhcnb.connections.birkhoff import sinkhorn_plain
from mhcnb.notebook.sinkhorn_lab import HARD
from mhcnb.notebook.sinkhorn_state import parse


def test_it_draws_the_state_of_its_parameters(execute):
    words, _ = execute("05-sinkhorn-lab", "notebooks", source="chosen", matrix=HARD, temperature=1.0, dtype="float64")
    assert len(words) == 4
    bench, backward, permutations, polytope = words
    error = float(np.abs(sinkhorn_plain(parse(HARD)).sum(-2).numpy() - 1).max())  # 0.0258, of the reference
    assert error == pytest.approx(0.025846, abs=1e-6)
    assert "range of the logits (log 1/ν) 30. After 20 rounds" in bench
    assert f"column sums by at most {error:.3g}; they are not both under 0.001 within 100 rounds" in bench
    assert "Here the implicit gradient is wrong" in backward
    assert "permutations, " in permutations
    assert "n = 3 has 4 dimensions" in polytope


def test_it_takes_what_a_run_has_learned(runs, execute):
    words, _ = execute("05-sinkhorn-lab", ".", source="trained", run=str(runs), site=2, token=3, mixture="softmax")
    assert words[0].startswith("Trained input: mhc, site main.0.mlp, token 3. n = 4")
    assert words[2].startswith("24 permutations")


def test_without_a_run_it_says_what_to_train(tmp_path, execute):
    with pytest.raises(Exception, match="has no run whose maps come from Sinkhorn; `mhcnb train"):
        execute("05-sinkhorn-lab", ".", source="trained", run=str(tmp_path))
