"""Fixtures that several folders use."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)  # how long an example takes says nothing here
settings.load_profile("shared-machine")


@pytest.fixture
def float64():
    """float64 as torch's default type: what is built inside is exact to 1e-16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
