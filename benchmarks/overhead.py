"""What the engine costs over the same step written by hand.

    python benchmarks/overhead.py                    # the quickstart, and a small network of points
    python benchmarks/overhead.py --rounds 15 --steps 40

Both sides train networks of one spec on the same kind of batches, in one process, in turns, a round
each after warming up. By hand means: one function, no parts, no spec; draws from one generator;
spectral estimates moved and weights computed once per turn, the opponent frozen, the fused
optimizer, the average. Beforehand both are fed the same draws, and their weights compared. Prints
one JSON line per spec: medians, and the median of the paired ratios with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.build import build
from gankit.datasets import to_float
from gankit.ops import computed, move, parametrizations
from gankit.spec import Spec, load
from gankit.train import Engine

EXAMPLES = Path(__file__).parent.parent / "examples"
CPU = torch.device("cpu")


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def saturating_free_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "hinge": (hinge_d, lambda fake: -fake.mean()),
    "nonsaturating": (saturating_free_d, lambda fake: F.softplus(-fake).mean()),
}


class ByHand:
    """The step of a spec with a hinge or non-saturating loss, TTUR and an average, and no more."""

    def __init__(self, spec: Spec) -> None:
        gan, self.data = build(spec)
        self.g, self.d = gan.generator, gan.discriminator
        self.latent, self.batch = gan.latent_width, spec.train.batch
        self.loss_d, self.loss_g = LOSSES[spec.loss.name]
        given = spec.optimizer.options
        ratios = [part.options.get("ratio", 4.0) for part in spec.schedule if part.name == "ttur"]
        lr, betas = given["lr"], tuple(given["betas"])
        self.rates = {"D": lr * (ratios or [1.0])[0], "G": lr}
        self.optimizer_d = torch.optim.Adam(
            self.d.parameters(), lr=self.rates["D"], betas=betas, fused=True
        )
        self.optimizer_g = torch.optim.Adam(self.g.parameters(), lr=lr, betas=betas, fused=True)
        self.keep = float(spec.train.ema)  # type: ignore[arg-type]
        self.average = [p.detach().clone() for p in self.g.parameters()]
        self.random = torch.Generator().manual_seed(0)
        self.weights_d, self.weights_g = (
            nn.ModuleList(parametrizations(network)) for network in (self.d, self.g)
        )

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        indices = torch.randint(len(self.data), (self.batch,), generator=self.random)
        shape = self.batch, self.latent
        z_d, z_g = (torch.randn(shape, generator=self.random) for _ in range(2))
        return indices, z_d, z_g

    def step(self, indices: Tensor, z_d: Tensor, z_g: Tensor) -> None:
        real = to_float(self.data.images(indices))
        move(self.weights_d)
        with computed(self.weights_g, trained=False), computed(self.weights_d) as weights:
            with torch.no_grad():
                fake = self.g(z_d)
            self.loss_d(self.d(real), self.d(fake)).backward()
            weights.carry()
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        move(self.weights_g)
        freeze(self.d, True)
        with computed(self.weights_d, trained=False), computed(self.weights_g) as weights:
            self.loss_g(self.d(self.g(z_g))).backward()
            weights.carry()
        freeze(self.d, False)
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        torch._foreach_lerp_(self.average, [p.detach() for p in self.g.parameters()], 1 - self.keep)


def freeze(network: nn.Module, frozen: bool) -> None:
    for parameter in network.parameters():
        parameter.requires_grad_(not frozen)


def compare(spec: Spec, steps: int = 3) -> float:
    """How far apart the weights are after a few steps on the same draws."""
    hand = ByHand(spec)
    engine = Engine(*build(spec), spec.train, CPU)
    for step in range(steps):
        latents = [
            engine.gan.latent(hand.batch, hand.latent, engine.draws(step, turn)("latent"))
            for turn in range(2)
        ]
        hand.step(engine.epochs.batch(step), *latents)
        engine.step(step)
    pairs = zip(hand.d.parameters(), engine.gan.discriminator.parameters(), strict=True)
    return max(float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in pairs)


def measure(spec: Spec, rounds: int, steps: int) -> dict[str, object]:
    """Time both, a round each in turn."""
    apart = compare(spec)
    hand = ByHand(spec)
    engine = Engine(*build(spec), spec.train, CPU)
    taken = 0

    def by_hand() -> None:
        for _ in range(steps):
            hand.step(*hand.draw())

    def by_engine() -> None:
        nonlocal taken
        for _ in range(steps):
            engine.step(taken)
            taken += 1

    by_hand()
    by_engine()
    pairs = []
    for _ in range(rounds):
        times = []
        for side in (by_hand, by_engine):
            start = time.perf_counter()
            side()
            times.append((time.perf_counter() - start) / steps)
        pairs.append(times)
    ratios = [engine_s / hand_s for hand_s, engine_s in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "spec": spec.name,
        "hand_s": round(statistics.median(t[0] for t in pairs), 6),
        "engine_s": round(statistics.median(t[1] for t in pairs), 6),
        "ratio": round(middle, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "weights_apart": apart,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Print a JSON line for each spec."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=11)
    options.add_argument("--steps", type=int, default=20, help="steps in a round")
    chosen = options.parse_args()
    settings = {
        "quickstart_digits": ("schedule.linear_decay=none",),
        "ring": ("schedule=[]", "penalty=[]", "train.ema=0.99"),
    }
    for name, overrides in settings.items():
        spec = load(EXAMPLES / f"{name}.toml", overrides)
        print(json.dumps(measure(spec, chosen.rounds, chosen.steps)), flush=True)


if __name__ == "__main__":
    main()
