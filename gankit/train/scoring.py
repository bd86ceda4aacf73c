"""A spec's own way of scoring, and the scores of a generator by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gankit.build import GAN
from gankit.errors import DataError, SpecError
from gankit.evaluate import (
    Evaluation,
    Named,
    Scores,
    default_count,
    default_features,
    default_metrics,
    file_of,
    named,
    provided,
    write,
)
from gankit.slots import Dataset, Latent
from gankit.spec import Eval, HalfLife, Part, Source, Spec, problem_at
from gankit.train.sampling import generated, label_count

__all__ = ["InTraining", "about_run", "best_of", "described", "evaluation_of", "score"]


def evaluation_of(
    chosen: Eval,
    data: Dataset,
    about: str,
    *,
    source: Source | None = None,
    device: torch.device | str = "cpu",
    real: int = 0,
    tell: Callable[[str], object] = lambda message: None,
) -> Evaluation:
    """Scores against a data set, as a table [eval] says or as goes with the data.

    Raises:
        SpecError: features or a metric that cannot be made.
        DataError: a metric wants images that were held out, and there are none.
    """

    def made(part: Part, *offered: Any) -> Named:
        try:
            return named(part.kind, part.name, part.options, *offered)
        except ValueError as error:
            if isinstance(error, SpecError | DataError):
                raise
            if source is None:
                raise SpecError(str(error)) from error
            raise SpecError(problem_at(source, part, error)) from error

    notes = []
    if chosen.features is not None:
        features = made(chosen.features, data)
    else:
        name, note = default_features(data)
        features = named("features", name, {}, data)
        notes = [note] if note else []
    metrics = {part.name: made(part) for part in chosen.metrics}
    metrics = metrics or {name: named("metric", name, {}) for name in default_metrics(data)}
    return Evaluation(
        *(data, about, features, metrics),
        device=device,
        real=real,
        tell=tell,
        notes=notes,
        floored=chosen.floor,
    )


def described(part: Part) -> str:
    """A data set in a line: its name and every option, but for mirrored copies."""
    table = part.plain(full=True)
    options = ", ".join(
        f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in ("use", "flip")
    )
    return (f"{part.name}({options})" if options else part.name) + provided(part.entry)


def about_run(
    spec: Spec,
    step: int,
    weights: str,
    seed: int,
    truncation: float | None = None,
    standing: int = 0,
) -> dict[str, str]:
    """The lines of a card that tell whose images are scored."""
    ema = spec.train.ema
    decay = (
        f"half-life {ema.half_life:,.0f} images" if isinstance(ema, HalfLife) else f"decay {ema}"
    )
    averaged = weights == "ema" and bool(ema)
    return {
        "images": f"{spec.name} {spec.hash[:8]}, seed {spec.seed}",
        "step": f"{step:,} of {spec.train.steps:,}",
        "weights": f"averaged, {decay}" if averaged else "the newest",
        "seed": str(seed),
        "truncation": "none" if truncation is None else f"{truncation:g}",
        **({"standing statistics": f"of {standing} batches"} if standing else {}),
    }


def score(
    evaluation: Evaluation,
    gan: GAN,
    network: nn.Module,
    about: Mapping[str, str],
    *,
    count: int = 0,
    seed: int = 0,
    latent: Latent | None = None,
) -> Scores:
    """The scores of a generator's images, drawn from a seed."""
    count = count or default_count(evaluation.data)
    images = generated(gan, network, evaluation.data, count, seed, latent)
    if evaluation.data.image.classes != gan.image.classes and label_count(gan, network):
        about = {**about, "classes": "each equally often"}
    return evaluation.score(images, about, count)


class InTraining:
    """The scores of a run while it trains, each with its card in a file of the run's folder.

    Raises:
        SetupError: what the features need is not there, which is better known before training.
    """

    def __init__(self, spec: Spec, evaluation: Evaluation, folder: Path | None) -> None:
        self.spec = spec
        self.evaluation = evaluation
        self.folder = folder
        self.every = spec.eval.every
        self.best = best_of(evaluation)
        evaluation.rehearse()

    def scores(self, gan: GAN, network: nn.Module, step: int) -> Mapping[str, float]:
        """Score the averaged generator and write that down."""
        about = about_run(self.spec, step, "ema", 0)
        made = score(self.evaluation, gan, network, about, count=self.spec.eval.count)
        if self.folder is not None:
            write(file_of(self.folder, step), made)
        if made.floor:
            told = "  ".join(f"{name} {value:.4g}" for name, value in made.floor.items())
            self.evaluation.tell(f"real images against other real ones: {told}")
        return made.values


def best_of(evaluation: Evaluation) -> str:
    """The first score of which one can say which is better, as `train.best` writes it."""
    for metric in evaluation.metrics.values():
        for name, better in metric.part.better.items():
            return name if better == "lower" else f"-{name}"
    return ""
