"""What every test runs under: one thread, one seed, and the same hypothesis examples each time."""

import os
from collections.abc import Iterator

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


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the test run's own, which workers of one run share."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANKIT_CACHE", str(shared / "cache"))
        yield
