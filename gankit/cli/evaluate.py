"""`gankit eval`: scores, with the card of how they were made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gankit.cli.common import (
    Device,
    Plugins,
    Standing,
    Threads,
    Truncation,
    pick_device,
    tell,
    truncated,
)
from gankit.cli.tables import number, show
from gankit.errors import SpecError, UsageError

if TYPE_CHECKING:
    from gankit.errors import Problem
    from gankit.evaluate import Scores
    from gankit.export import Live
    from gankit.slots import Dataset, Image
    from gankit.spec import Eval

__all__ = ["evaluate"]


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder, one checkpoint in it, a folder of PNGs, or an .npz."
        ),
    ],
    metrics: Annotated[
        str, typer.Option(metavar="A,B,...", help="What to score; else what goes with the data.")
    ] = "",
    features: Annotated[
        str, typer.Option(metavar="NAME", help="What metrics see; a TOML table for options.")
    ] = "",
    count: Annotated[int, typer.Option("--n", "-n", metavar="N", help="Images to score.")] = 0,
    data: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Real images: a spec's, or those of a folder or .npz."),
    ] = None,
    real: Annotated[
        int, typer.Option(metavar="N", help="The first N real images; all by default.")
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the latents.")] = 0,
    weights: Annotated[
        str, typer.Option(metavar="ema|generator", help="The averaged generator, or the newest.")
    ] = "ema",
    truncation: Truncation = None,
    standing: Standing = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write; RUN/eval/step_N.json by default."),
    ] = None,
    floor: Annotated[
        bool, typer.Option("--floor", help="Score real images against other real ones too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine output.")] = False,
    device: Device = "auto",
    threads: Threads = 0,
    plugin: Plugins = None,
) -> None:
    """Score a run's images, or any images, against real ones; says how on a protocol card."""
    for name, value in (("--n", count), ("--real", real), ("--standing", standing)):
        if value < 0:
            raise UsageError(f"{name} takes a number, not {value}")
    if weights not in ("ema", "generator"):
        raise UsageError(f'--weights takes ema or generator, not "{weights}"')
    from gankit.cli.common import load_plugins

    load_plugins(plugin)
    asked = replace(_asked(metrics, features), floor=floor)
    where = pick_device(device, threads)
    if _made_elsewhere(run):
        drawing = {
            "--truncation": truncation is not None,
            "--standing": standing,
            "--seed": seed,
            "--weights": weights != "ema",
        }
        if wrong := next((name for name, given in drawing.items() if given), None):
            raise UsageError(f"{wrong} is for generators, and {run} is no run but images")
        if data is None:
            raise UsageError(
                f"{run} is no run, and images do not say what they are to be like\n"
                "  --data SPEC, FOLDER or NPZ"
            )
        _refuse_other_files(out)
        scores = _of_images(run, asked, data, count, real, where, plugin)
    else:
        from gankit.evaluate import file_of
        from gankit.export import of_run

        live = of_run(run, weights, plugins=tuple(plugin or ()), device=where, tell=tell)
        out = out or (file_of(live.run, live.step) if live.run else None)
        _refuse_other_files(out)
        scores = _of_run(live, asked, data, count, real, where, seed, truncation, standing, plugin)
    if out is not None:
        from gankit.evaluate import write

        try:
            write(out, scores)
        except OSError as error:
            raise UsageError(f"cannot write {out}: {error.strerror or error}") from error
        tell(f"wrote {out}")
    if as_json:
        print(json.dumps(scores.json()))
        return
    _print(scores)


def _asked(metrics: str, features: str) -> Eval:
    """What the command line says, as a table [eval].

    Raises:
        SpecError: with every problem in it.
    """
    from gankit.spec import load_eval

    listed = metrics.strip()
    if listed.startswith("{"):
        listed = f"[{listed}]"
    elif listed and not listed.startswith("["):
        listed = json.dumps([name.strip() for name in listed.split(",")])
    said = {"eval.metrics": listed, "eval.features": features}
    try:
        return load_eval([f"{path}={value}" for path, value in said.items() if value])
    except SpecError as error:
        raise SpecError([_as_written(problem) for problem in error.problems]) from error


def _as_written(problem: Problem) -> Problem:
    """A problem where it was written: in --metrics or --features, which are overrides inside."""
    place = problem.place
    path, _, value = place.source.partition("=") if place else ("", "", "")
    if place is None or path not in ("eval.metrics", "eval.features"):
        return problem
    column = max(1, place.column - len(path) - 1)
    option = f"--{path.removeprefix('eval.')}"
    return replace(problem, place=replace(place, name=option, source=value, column=column))


def _refuse_other_files(out: Path | None) -> None:
    """Scores are added to a file of scores; better known before they are made.

    Raises:
        DataError: there is a file of something else.
    """
    from gankit.evaluate import read

    if out is not None and out.exists():
        read(out)


def _made_elsewhere(path: Path) -> bool:
    """Whether a path holds images rather than a run."""
    if path.suffix == ".npz":
        return True
    from gankit.train import checkpoint
    from gankit.train.folder import RunFolder

    a_run = RunFolder(path).resolved.exists() or (path / checkpoint.MANIFEST).exists()
    return path.is_dir() and not a_run


def _real(data: str, plugin: list[Path] | None) -> tuple[Dataset, str, Eval | None]:
    """Real images, what the card says of them, and how the spec they are from is scored."""
    from gankit.evaluate import given

    path = Path(data)
    if path.is_dir() or path.suffix == ".npz":
        found = given(path)
        return found, f"{path.name}, {getattr(found, 'content', '')[:16]}", None
    from gankit.build import bind
    from gankit.cli.common import load_spec
    from gankit.train.scoring import described

    spec = load_spec(data, None, plugin)
    return bind(spec.data), described(spec.data), spec.eval


def _with(asked: Eval, spec: Eval | None) -> Eval:
    """What is asked for, and of what is not, what the spec has."""
    if spec is None:
        return asked
    return replace(
        asked,
        features=asked.features or spec.features,
        metrics=asked.metrics or spec.metrics,
        floor=asked.floor or spec.floor,
    )


def _of_run(
    live: Live, asked: Eval, data: str | None, count: int, real: int, where: Any, seed: int,
    truncation: float | None, standing: int, plugin: list[Path] | None,
) -> Scores:  # fmt: skip
    from gankit.build import bind
    from gankit.train import sampling, scoring

    spec = live.spec
    against, about, other = (
        (bind(spec.data), scoring.described(spec.data), None)
        if data is None
        else _real(data, plugin)
    )
    _refuse_other_shapes(live.gan.image, against, data)
    _refuse_more(real, against)
    chosen = _with(_with(asked, other), spec.eval)
    evaluation = scoring.evaluation_of(chosen, against, about, device=where, real=real, tell=tell)
    latent, network = truncated(live.gan, truncation, seed), live.network
    if standing:
        network = sampling.standing(live.gan, network, standing, seed, latent=latent)
    lines = scoring.about_run(spec, live.step, live.weights, seed, truncation, standing)
    return scoring.score(
        evaluation, live.gan, network, lines,
        count=count or spec.eval.count, seed=seed, latent=latent,
    )  # fmt: skip


def _of_images(
    path: Path, asked: Eval, data: str, count: int, real: int, where: Any, plugin: list[Path] | None
) -> Scores:
    from gankit.evaluate import batches, given
    from gankit.train.scoring import evaluation_of

    images = given(path)
    against, about, spec = _real(data, plugin)
    _refuse_other_shapes(images.image, against, data)
    _refuse_more(real, against)
    if count > len(images):
        raise UsageError(f"--n {count}: there are {len(images)} images in {path}")
    chosen = _with(asked, spec)
    evaluation = evaluation_of(chosen, against, about, device=where, real=real, tell=tell)
    count = count or len(images)
    content = getattr(images, "content", "")[:16]
    lines = {"images": f"{path.name}, {content}", "truncation": "not known"}
    return evaluation.score(batches(images, count), lines, count)


def _refuse_other_shapes(image: Image, data: Dataset, name: str | None) -> None:
    """Never resized on the way: what is compared has one shape."""
    if image.shape != data.image.shape:
        fake, real = _shape(image), _shape(data.image)
        raise UsageError(f"these images are {fake}, and the real ones of {name} are {real}")


def _shape(image: Image) -> str:
    if not image.size:
        return f"points of {image.channels} coordinates"
    return " x ".join(map(str, image.shape))


def _refuse_more(real: int, data: Dataset) -> None:
    """A number on the command line is never quietly another."""
    if real > len(data):
        raise UsageError(f"--real {real}: there are {len(data)} real images")


def _print(scores: Scores) -> None:
    from rich.table import Table

    named = ["score", "value", "better"] + ["real against real"] * bool(scores.floor)
    table = Table(*named, box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, value in scores.values.items():
        least = [number(scores.floor[name])] if name in scores.floor else []
        table.add_row(name, number(value), scores.better.get(name, ""), *least)
    show(table)
    print(f"\n{scores.card}")
    for note in scores.notes:
        tell(f"note: {note}")
