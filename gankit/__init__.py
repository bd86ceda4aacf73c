"""Interchangeable GAN parts for PyTorch, composed by a declarative spec.

The decorators record parts (`@gankit.loss("mine")`); the parts themselves are in the modules named
by the plural (`gankit.losses`). Importing this package imports no torch.
"""

from __future__ import annotations

from gankit.registry import (
    activation,
    attention,
    augment,
    block,
    dataset,
    discriminator,
    features,
    generator,
    initializer,
    latent,
    logger,
    loss,
    metric,
    norm,
    optimizer,
    penalty,
    schedule,
)

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "activation",
    "attention",
    "augment",
    "block",
    "dataset",
    "discriminator",
    "features",
    "generator",
    "initializer",
    "latent",
    "logger",
    "loss",
    "metric",
    "norm",
    "optimizer",
    "penalty",
    "schedule",
]
