import pytest
import torch
from torch import nn

from mhcnb.bench.place import CPU, one_thread, place, there_and_back
from mhcnb.errors import ConfigError


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="--device tpu: this process sees no such device"):
        place("tpu")
    assert place("cpu") == CPU


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_there_and_back_reaches_inputs_and_parameters_and_leaves_nothing_behind():
    """The gradients are those of the same sum each time: nothing accumulates from round to round."""
    layer, x = nn.Linear(3, 2), torch.randn(5, 3, requires_grad=True)
    seen = {"x": [], "weight": [], "bias": []}
    for name, leaf in {"x": x, **dict(layer.named_parameters())}.items():
        leaf.register_post_accumulate_grad_hook(lambda leaf, name=name: seen[name].append(leaf.grad.clone()))
    run = there_and_back(layer, (x,), CPU)
    run()
    run()
    assert all(leaf.grad is None for leaf in (x, *layer.parameters()))
    for first, second in seen.values():
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    cotangent = seen["x"][0] @ torch.linalg.pinv(layer.weight.detach())  # dx = G W
    torch.testing.assert_close(seen["weight"][0], cotangent.T @ x.detach())


def test_a_loss_meets_one():
    class Loss(nn.Module):
        def forward(self, x):
            return x.square().sum()

    x, seen = torch.randn(4, requires_grad=True), []
    x.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.clone()))
    there_and_back(Loss(), (x,), CPU)()
    torch.testing.assert_close(seen[0], 2 * x.detach())
