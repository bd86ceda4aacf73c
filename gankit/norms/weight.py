"""Norms of a layer's weight: each takes a layer and gives it back, reparametrised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from gankit.errors import OptionError
from gankit.ops import (
    TRANSPOSED,
    AsMatrix,
    Estimate,
    as_matrix,
    full_precision,
    power_iteration,
    top_vectors,
)
from gankit.registry import norm

__all__ = ["Clip", "Divided", "SpectralNorm", "clip", "none", "spectral", "weightnorm"]


class SpectralNorm(Estimate):
    """The parametrization behind `spectral`: W / sigma(W), with u and v kept as buffers.

    Shape: weight -> the same. `u` is (out_channels,), `v` (the rest,); both float32 or wider.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, matrix: AsMatrix, iterations: int, eps: float) -> None:
        super().__init__()
        self.matrix = matrix
        self.iterations = iterations
        self.eps = eps
        self._moved: tuple[Tensor, int] | None = None
        wide = self._wide(weight)
        for name, length in zip("uv", wide.shape, strict=True):
            self.register_buffer(name, _start(length).to(wide))

    def _wide(self, weight: Tensor) -> Tensor:
        """The weight as a matrix in float32, or in float64 if it is that."""
        return self.matrix(weight.to(torch.promote_types(weight.dtype, torch.float32)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpectralNorm:
        # `.half()` must not reach u and v: in low precision the iteration stalls.
        super()._apply(fn, recurse)
        self._moved = None
        for name in ("u", "v"):
            buffer = getattr(self, name)
            if torch.finfo(buffer.dtype).bits < 32:
                # What was rounded on the way is no longer a unit vector.
                setattr(self, name, F.normalize(buffer.float(), dim=0))
        return self

    def move(self, weight: Tensor, /) -> None:
        """Take the option's number of power iterations."""
        self.move_all([(self, weight)])

    @classmethod
    @torch.no_grad()
    def move_all(cls, pairs: Sequence[tuple[Self, Tensor]], /) -> None:
        """Take power iterations of many weights together."""
        alike: dict[tuple[object, ...], list[tuple[Self, Tensor]]] = {}
        for each, weight in pairs:
            key = each.iterations, each.eps, each.u.dtype, each.u.device
            alike.setdefault(key, []).append((each, weight))
        for group in alike.values():
            first, weight = group[0]
            with full_precision(weight):
                matrices = [each._wide(weight) for each, weight in group]
                us, vs = [each.u for each, _ in group], [each.v for each, _ in group]
                for _ in range(first.iterations):
                    sigmas = power_iteration(matrices, us, vs, first.eps)
            if torch.compiler.is_compiling() or weight.is_inference():
                continue  # neither tells whether a weight has changed
            for (each, weight), sigma in zip(group, sigmas, strict=True):
                each._moved = sigma, weight._version

    @torch.no_grad()
    def settle(self, weight: Tensor, /) -> None:
        """Compute u and v from the weight alone; one that is zero or not finite changes nothing."""
        if weight.is_meta:
            return
        with full_precision(weight):
            matrix = self._wide(weight)
            largest = matrix.abs().amax()
            if 0 < largest < math.inf:
                u, v = top_vectors(matrix / largest, _start(len(self.u)).to(self.u))
                self.u.copy_(u)
                self.v.copy_(v)
                self._moved = None

    def sigma(self, weight: Tensor) -> Tensor:
        """The estimate u^T W v of the largest singular value; differentiable in the weight."""
        # Copies, because the next forward overwrites the buffers that this graph would hold.
        return self._sigma(weight, self.u.clone(), self.v.clone())

    def _sigma(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        with full_precision(weight):
            return torch.dot(u, self._wide(weight).mv(v))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training and not self.held:
            self.move(weight)
        if torch.compiler.is_compiling():  # what is compiled is made one with its neighbours there
            return self.plain(weight, self.u.clone(), self.v.clone())
        # What a power iteration ends with is sigma; of a weight that has changed since it is not.
        moved, self._moved = self._moved, None
        with torch.no_grad():
            sigma = moved[0] if moved and moved[1] == weight._version else self.sigma(weight)
        divided: Tensor = Divided.apply(weight, self.u.clone(), self.v.clone(), sigma, self)
        return divided

    def plain(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """W / u^T W v, as autograd differentiates it any number of times."""
        return weight / self.divisor(self._sigma(weight, u, v)).to(weight.dtype)

    def divisor(self, sigma: Tensor) -> Tensor:
        """Sigma, or 1 for a weight of zero: it has no direction to normalise and stays zero."""
        return torch.where(sigma > self.eps, sigma, torch.ones_like(sigma))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """An assigned weight is stored as it is, and the estimate settles on it."""
        self.settle(weight)
        return weight


class Divided(torch.autograd.Function):
    """W / sigma, with the gradient in closed form: (g - <g, W / sigma> u v^T) / sigma.

    That reads and writes a third of what autograd does for the same. `of` is whose options and
    whose way to read a matrix count.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, of: SpectralNorm
    ) -> Tensor:
        ctx.save_for_backward(weight, u, v, sigma)
        ctx.of = of
        return weight / of.divisor(sigma).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of: SpectralNorm = ctx.of
        weight, u, v, sigma = ctx.saved_tensors
        if torch.is_grad_enabled():  # and so the gradient of this gradient may be asked for
            (given,) = torch.autograd.grad(
                of.plain(weight, u, v), weight, gradient, create_graph=True
            )
            return given, None, None, None, None
        divisor = of.divisor(sigma)
        with full_precision(weight):
            along = torch.dot(gradient.to(u.dtype).flatten(), weight.to(u.dtype).flatten())
            along = torch.where(sigma > of.eps, along / divisor.square(), 0.0)
            left, right = of.matrix.product(u * -along, v, weight.shape)
            given = (gradient / divisor).addcmul_(left, right).to(weight.dtype)
        return given, None, None, None, None


def _start(length: int) -> Tensor:
    """A direction that is always the same: the global generator is neither read nor moved."""
    fixed = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(length, generator=fixed, device="cpu"), dim=0)


@norm("spectral", on="weight")
def spectral(layer: nn.Module, /, *, iterations: int = 1, eps: float = 1e-12) -> nn.Module:
    """Divides a layer's weight by an estimate of its largest singular value.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks" (2018), section
    2.1 and algorithm 1, arXiv:1802.05957.

    By hand the estimate moves once per forward in training mode, as torch's own does; under the
    engine once per turn of the layer's player, as in the paper's algorithm.

    Options:
        iterations: power iterations per move; at least 1.
        eps: below this norm a vector counts as zero; a weight of zero stays as it is.

    Shape: any convolution (transposed and grouped too), dense or embedding layer; the matrix is
        output channels x the rest.

    Differs from the paper: u starts from a converged estimate rather than a random vector.
    """
    if iterations < 1:
        raise OptionError("iterations", f"iterations must be at least 1, not {iterations}")
    parametrization = SpectralNorm(_weight(layer), as_matrix(layer), iterations, eps)
    parametrize.register_parametrization(layer, "weight", parametrization)
    return layer


@norm("weightnorm", on="weight")
def weightnorm(layer: nn.Module, /) -> nn.Module:
    """Splits each output channel's weight into a direction and a learned length.

    Salimans and Kingma, "Weight Normalization" (2016), section 2, arXiv:1602.07868.

    Shape: any convolution or dense layer; a transposed one with groups shares a length between
        the groups.
    """
    output_axis = 1 if isinstance(layer, TRANSPOSED) else 0
    parametrizations.weight_norm(layer, dim=output_axis)
    return layer


class Clip(nn.Module):
    """The parametrization behind `clip`: the parameter itself is kept within the bounds."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            # Through `.data`, so that an earlier forward of the same turn can still go backward:
            # a second clamp changes no value.
            weight.data.clamp_(-self.bound, self.bound)
        return weight.clamp(-self.bound, self.bound)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """An assigned weight is stored as it is; the next forward clips it."""
        return weight


@norm("clip", on="weight")
def clip(layer: nn.Module, /, *, bound: float = 0.01) -> nn.Module:
    """Clips weights and biases to [-bound, bound], as the first Wasserstein GAN did.

    Arjovsky et al., "Wasserstein GAN" (2017), algorithm 1, arXiv:1701.07875.

    Options:
        bound: the largest magnitude a weight may have; above 0.

    Differs from the paper: clipped at the next use of a weight rather than right after its
        update, which no forward pass can tell apart.
    """
    if not bound > 0:
        raise OptionError("bound", f"bound must be above 0, not {bound}")
    parametrize.register_parametrization(layer, "weight", Clip(bound))
    if getattr(layer, "bias", None) is not None:
        parametrize.register_parametrization(layer, "bias", Clip(bound))
    return layer


@norm("none", on="weight")
def none(layer: nn.Module, /) -> nn.Module:
    """Leaves the layer as it is."""
    return layer


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
