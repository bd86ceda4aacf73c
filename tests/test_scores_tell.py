"""Scores tell a generator that has learned from one that has not, or that has collapsed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gankit.export import of_run
from gankit.spec import loads
from gankit.train import run
from gankit.train.scoring import about_run, described, evaluation_of, score

SHORT = """
gankit = 1
name = "short"
data = { use = "digits", size = 16 }
generator = { use = "dcgan", latent = 32, width = 16, norm = "batchnorm" }
discriminator = { use = "dcgan", width = 16, norm = "spectral" }
loss = "hinge"
optimizer = { use = "adam", lr = 1e-3, betas = [0.0, 0.99] }
train = { steps = 800, batch = 32, ema = 0.99, log = 100, checkpoint = 800, samples = 800 }
"""


class Collapsed(nn.Module):
    """A generator that has found one good image, and makes nothing else."""

    def __init__(self, network: nn.Module, z: Tensor) -> None:
        super().__init__()
        self.network = network
        self.z = nn.Parameter(z, requires_grad=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.network(self.z.expand(len(z), -1))  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_short_training_beats_no_training_and_collapse_by_far(tmp_path: Path) -> None:
    """Margins: a third of the distance, and four times the share of real images that is covered."""
    spec = loads(SHORT)
    run(spec, tmp_path / "run")
    live = of_run(tmp_path / "run")
    untrained = copy.deepcopy(live.network)
    random = torch.Generator().manual_seed(0)
    for parameter in untrained.parameters():
        nn.init.normal_(parameter, std=0.02, generator=random)
    collapsed = Collapsed(live.network, torch.randn(1, 32, generator=random))
    evaluation = evaluation_of(spec.eval, live.data, described(spec.data))
    evaluation.floored = True
    found = {
        name: score(evaluation, live.gan, network, about_run(spec, 800, "ema", 0), count=1797)
        for name, network in (("trained", live.network), ("untrained", untrained),
                              ("collapsed", collapsed))
    }  # fmt: skip
    trained = found["trained"].values
    assert trained["frechet"] > 2 * found["trained"].floor["frechet"], "as good as real images?"
    for name in ("untrained", "collapsed"):
        other = found[name].values
        assert 3 * trained["frechet"] < other["frechet"], name
        assert trained["coverage"] > 4 * other["coverage"], name
        assert trained["recall"] > 4 * other["recall"], name
