"""What every test runs under: one thread, one seed, and the same hypothesis examples each time."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("gankit", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("gankit")


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    """Layers made by hand draw their weights from torch's global generator."""
    torch.manual_seed(0)
