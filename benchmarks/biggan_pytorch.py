"""BigGAN-PyTorch's SAGAN as the other side: its own networks and training function, as they ship.

Its code is not part of this repository: `--peer-path` names a checkout of ajbrock/BigGAN-PyTorch.
The settings are those of its `scripts/launch_SAGAN_bs128x2_ema.sh`, but for what both sides are
given alike: attention at the height that the authors have it at, the classes, the width, the batch,
no accumulation, one device, and learning rates of 0 (see `sides.py`).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from gankit.convert.biggan_pytorch import BigGanPytorch
from gankit.convert.matching import matched
from gankit.train.batches import Batch

__all__ = ["Biggan"]

IDLE = ("torchvision", "torchvision.transforms", "datasets", "animal_hash")
"""What it imports and a training step has no use for: data sets, and names of experiments."""


def _imported(path: Path) -> dict[str, ModuleType]:
    """Its modules; their names are too plain to be left where others look for modules."""
    names = "BigGAN", "train_fns", "utils", "layers", "losses", "sync_batchnorm"
    before = {name: sys.modules.pop(name, None) for name in (*names, *IDLE)}
    sys.path.insert(0, str(path))
    sys.modules.update({name: MagicMock() for name in IDLE})
    try:
        return {name: importlib.import_module(name) for name in names[:3]}
    finally:
        sys.path.remove(str(path))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


class _Replayed(torch.Tensor):
    """In the place of what it draws latents and labels with: the next of those that were drawn."""

    rows: list[Tensor]

    def sample_(self) -> None:
        self.copy_(self.rows.pop(0))


def _replayed(rows: Sequence[Tensor]) -> _Replayed:
    made = torch.Tensor._make_subclass(_Replayed, rows[0].clone())
    made.rows = list(rows)
    return made


class Biggan:
    """Both networks, and the training function around them."""

    name = "biggan-pytorch"

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        batch: int,
        size: int,
        classes: int,
        attention_at: int,
        device: torch.device,
    ) -> None:
        # Its train.py has it so.
        torch.backends.cudnn.benchmark = True
        with _silent():
            self.modules = _imported(path)
            self.config: dict[str, Any] = vars(
                self.modules["utils"].prepare_parser().parse_args([])
            ) | {
                "resolution": size,
                "n_classes": classes,
                "batch_size": batch,
                "num_D_steps": 1,
                "G_ch": width,
                "D_ch": width,
                "G_attn": str(attention_at),
                "D_attn": str(attention_at),
                "G_lr": 0.0,
                "D_lr": 0.0,
                "G_init": "xavier",
                "D_init": "xavier",
                "SN_eps": 1e-8,
                "BN_eps": 1e-5,
                "ema": True,
                "use_ema": True,
                "ema_start": 2000,
                "G_activation": nn.ReLU(inplace=False),
                "D_activation": nn.ReLU(inplace=False),
            }
            library = self.modules["BigGAN"]
            self.generator = library.Generator(**self.config).to(device)
            self.discriminator = library.Discriminator(**self.config).to(device)
            average = library.Generator(**self.config | {"skip_init": True, "no_optim": True})
            ema = self.modules["utils"].ema(self.generator, average.to(device))
        self.z, self.y = self.modules["utils"].prepare_z_y(
            batch, self.generator.dim_z, classes, device=device
        )
        self.ema, self.state = ema, {"itr": 0}
        self.train = self._function(self.z, self.y)

    def _function(self, z: Tensor, y: Tensor) -> Any:
        g, d = self.generator, self.discriminator
        both = self.modules["BigGAN"].G_D(g, d)
        make = self.modules["train_fns"].GAN_training_function
        return make(g, d, both, z, y, self.ema, self.state, self.config)

    def step(self, real: Tensor, labels: Tensor | None) -> None:
        """One step, with latents and labels of fakes that it draws itself."""
        self.state["itr"] += 1
        self.generator.train()
        self.discriminator.train()
        self.train(real, labels)

    def replay(self, batches: Sequence[Batch]) -> dict[str, dict[str, Tensor]]:
        """The gradients of one step on what was drawn before: a turn of D's and one of G's."""
        labels = [batch.labels for batch in batches if batch.labels is not None]
        z = _replayed([batch.latent for batch in batches])
        self._function(z, _replayed(labels))(batches[0].real, batches[0].labels)
        return {
            name: {k: p.grad.clone() for k, p in network.named_parameters() if p.grad is not None}
            for name, network in self.networks().items()
        }

    def networks(self) -> dict[str, nn.Module]:
        """Both, by gankit's names."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def matrices(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Weights that spectral norm divides, as matrices, and the vectors kept of each."""
        for network in self.networks().values():
            for layer in network.modules():
                if hasattr(layer, "u0"):
                    yield layer.weight.flatten(1), layer.u0, None  # type: ignore[operator, misc]

    def translated(self, name: str, network: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
        """Its tensors by the names that gankit's network has for them."""
        there = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
        return matched(network, BigGanPytorch(there), name, self.name)

    def images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """What G makes of latents in the mode it is in."""
        return self.generator(z, self.generator.shared(labels))

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """What D makes of images."""
        return self.discriminator(images, labels)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """It tells of every layer it makes."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
