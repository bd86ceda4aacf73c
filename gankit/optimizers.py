"""Optimizers: how weights follow their gradients.

Makers of torch's own optimizers; `lr` is G's learning rate, and schedules scale it. Where torch has
a fused kernel, a whole step in one, it is used: the same arithmetic in less time, and a step that
`found_inf` forbids is not taken.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gankit.registry import optimizer

__all__ = ["adam", "adamw", "rmsprop", "sgd"]

_FUSED = ("cpu", "cuda")
"""The types of device for which torch has fused Adam, AdamW and SGD; of RMSprop it has none."""


@optimizer("adam")
def adam(
    parameters: Iterable[Tensor],
    /,
    *,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.0, 0.9),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Adam: steps scaled by running means of the gradient and of its square.

    Kingma and Ba, 2015, arXiv:1412.6980, algorithm 1. The betas are those of WGAN-GP,
    arXiv:1704.00028, and SAGAN, arXiv:1805.08318; the paper's are 0.9 and 0.999.

    Options:
        lr: learning rate
        betas: decay of the running mean of the gradient, and of that of its square
        eps: added to the root of the latter
        weight_decay: this times the weight is added to its gradient

    Raises:
        ValueError: a value out of its range.
    """
    # torch refuses an int beside a float, such as (0, 0.9).
    first, second = map(float, betas)
    parameters = list(parameters)
    return torch.optim.Adam(
        parameters,
        lr=lr,
        betas=(first, second),
        eps=eps,
        weight_decay=weight_decay,
        fused=_fused(parameters),
    )


@optimizer("adamw")
def adamw(
    parameters: Iterable[Tensor],
    /,
    *,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.0, 0.9),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Adam with weights that shrink by themselves, whatever their gradients are.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101,
    algorithm 2. The betas are as in `adam`.

    Options:
        lr: learning rate
        betas: decay of the running mean of the gradient, and of that of its square
        eps: added to the root of the latter
        weight_decay: each step takes lr times this off every weight, as a share of it

    Raises:
        ValueError: a value out of its range.

    Differs from the paper: the decay is scaled by the learning rate, there by the schedule alone.
    """
    first, second = map(float, betas)
    parameters = list(parameters)
    return torch.optim.AdamW(
        parameters,
        lr=lr,
        betas=(first, second),
        eps=eps,
        weight_decay=weight_decay,
        fused=_fused(parameters),
    )


@optimizer("rmsprop")
def rmsprop(
    parameters: Iterable[Tensor],
    /,
    *,
    lr: float = 5e-5,
    alpha: float = 0.99,
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """RMSProp: steps scaled by a running mean of the gradient's square.

    Tieleman and Hinton, lecture 6.5 of "Neural Networks for Machine Learning", 2012. The learning
    rate is that of WGAN, arXiv:1701.07875, algorithm 1.

    Options:
        lr: learning rate
        alpha: decay of the running mean of the gradient's square
        eps: added to its root

    Raises:
        ValueError: a value out of its range.
    """
    return torch.optim.RMSprop(parameters, lr=lr, alpha=alpha, eps=eps)


@optimizer("sgd")
def sgd(
    parameters: Iterable[Tensor], /, *, lr: float = 0.01, momentum: float = 0.0
) -> torch.optim.Optimizer:
    """Gradient descent, with or without momentum.

    Options:
        lr: learning rate
        momentum: what is kept of the last step; 0 for none

    Raises:
        ValueError: a value out of its range.
    """
    parameters = list(parameters)
    fused = _fused(parameters)
    made = torch.optim.SGD(parameters, lr=lr, momentum=momentum, fused=fused)
    if fused and momentum:
        # Of itself torch takes unset memory for it where the first step is skipped, and stops where
        # a weight has its first gradient later than others.
        for parameter in parameters:
            made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return made


def _fused(parameters: list[Tensor]) -> bool | None:
    """Whether one kernel can take a step; None leaves torch to choose among the others."""
    fit = all(p.device.type in _FUSED and p.is_floating_point() for p in parameters)
    return fit or None
