"""`gankit eval` and `gankit compare`: scores with the card of how they were made."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gankit.cli.common import Device, Plugins, Threads, pick_device, tell
from gankit.errors import OptionError, UsageError

if TYPE_CHECKING:
    from gankit.evaluate import Scores
    from gankit.export import Live
    from gankit.slots import Dataset
    from gankit.spec import Eval

__all__ = ["compare", "evaluate"]


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
    truncation: Annotated[
        float | None,
        typer.Option(metavar="T", help="No latents further out than T standard deviations."),
    ] = None,
    standing: Annotated[
        int, typer.Option(metavar="N", help="Batch statistics anew, from N batches of fakes.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write; RUN/eval/step_N.json by default."),
    ] = None,
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
    from gankit.spec import load_eval

    load_plugins(plugin)
    asked = load_eval(_overrides(metrics, features))
    where = pick_device(device, threads)
    if _made_elsewhere(run):
        refused = {"--truncation": truncation is not None, "--standing": standing}
        if wrong := next((name for name, given in refused.items() if given), None):
            raise UsageError(f"{wrong} is for generators, and {run} holds images")
        if data is None:
            raise UsageError(
                f"{run} does not say what it is to be like: --data SPEC, FOLDER or NPZ"
            )
        scores = _of_images(run, asked, data, count, real, where, plugin)
    else:
        from gankit.export import of_run

        live = of_run(run, weights, plugins=tuple(plugin or ()), device=where, tell=tell)
        out = out or (live.run / "eval" / f"step_{live.step:07d}.json" if live.run else None)
        scores = _of_run(live, asked, data, count, real, where, seed, truncation, standing)
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


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run, or scores that eval wrote.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="A line of the card that may differ: truncation."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine output.")] = False,
) -> None:
    """Two sets of scores side by side; refused where they were not made in the same way."""
    from gankit.evaluate import compared

    ones, others = _found(one), _found(other)
    rows = list(compared(ones, others, allow or ()))
    if not rows:
        names = [
            ", ".join(dict.fromkeys(n for s in found for n in s.values)) for found in (ones, others)
        ]
        raise UsageError(
            f"they have no score in common\n  {one}: {names[0]}\n  {other}: {names[1]}"
        )
    if all(row.unlike for row in rows):
        lines = dict.fromkeys(str(each) for row in rows for each in row.unlike)
        raise UsageError(
            "these scores were not made in the same way\n  " + "\n  ".join(lines) + "\n"
            "  score both in the same way, or let a line differ: --allow LINE"
        )
    if as_json:
        print(json.dumps([_row(row) for row in rows]))
        return
    _print_compared(one, other, rows)


def _row(row: Any) -> dict[str, Any]:
    told = {"score": row.name, "a": row.one, "b": row.other, "better": row.better}
    verdict = {"one": "a", "other": "b"}.get(row.verdict, "")
    return told | {"verdict": verdict, "unlike": [str(each) for each in row.unlike]}


def _overrides(metrics: str, features: str) -> list[str]:
    """What the command line says, as a table [eval]."""
    listed = (
        metrics if metrics.startswith("[") else json.dumps([m.strip() for m in metrics.split(",")])
    )
    said = {"eval.metrics": listed if metrics else "", "eval.features": features}
    return [f"{path}={value}" for path, value in said.items() if value]


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
        asked, features=asked.features or spec.features, metrics=asked.metrics or spec.metrics
    )


def _of_run(
    live: Live, asked: Eval, data: str | None, count: int, real: int, where: Any, seed: int,
    truncation: float | None, standing: int,
) -> Scores:  # fmt: skip
    from gankit.build import bind
    from gankit.randomness import generator
    from gankit.train import sampling, scoring

    spec = live.spec
    against, about, other = (
        (bind(spec.data), scoring.described(spec.data), None) if data is None else _real(data, None)
    )
    _refuse_other_shapes(live.gan.image, against, data)
    chosen = _with(_with(asked, other), spec.eval)
    evaluation = scoring.evaluation_of(chosen, against, about, device=where, real=real, tell=tell)
    latent, network = None, live.network
    if truncation is not None:
        try:
            latent = sampling.truncation(live.gan, truncation)
            latent(1, live.gan.latent_width, generator(seed))
        except OptionError as error:
            raise UsageError(f"--truncation: {error}") from error
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
    if count > len(images):
        raise UsageError(f"--n {count}: there are {len(images)} images in {path}")
    chosen = _with(asked, spec)
    evaluation = evaluation_of(chosen, against, about, device=where, real=real, tell=tell)
    count = count or len(images)
    lines = {"images": f"{path.name}, {getattr(images, 'content', '')[:16]}"}
    return evaluation.score(batches(images, count), lines, count)


def _refuse_other_shapes(image: Any, data: Dataset, name: str | None) -> None:
    """Never resized on the way: what is compared has one shape."""
    if image.shape != data.image.shape:
        real = " x ".join(map(str, data.image.shape))
        fake = " x ".join(map(str, image.shape))
        raise UsageError(f"these images are {fake}, and the real ones of {name} are {real}")


def _found(path: Path) -> list[Scores]:
    """The scores of a run, the newest step last, or in a file."""
    from gankit.evaluate import read

    if path.is_file():
        return read(path)
    files = sorted((path / "eval").glob("step_*.json"))
    if not files:
        raise UsageError(f"{path} has no scores yet: gankit eval {path}")
    return read(files[-1])


def _print(scores: Scores) -> None:
    from rich.table import Table

    table = Table("score", "value", "better", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, value in scores.values.items():
        table.add_row(name, _number(value), scores.better.get(name, ""))
    _show(table)
    print(f"\n{scores.card}")
    for note in scores.notes:
        tell(f"note: {note}")


def _print_compared(one: Path, other: Path, rows: list[Any]) -> None:
    from rich.table import Table

    table = Table("score", str(one), str(other), "", box=None, pad_edge=False)
    for row in rows:
        said = {"one": "the first is better", "other": "the second is better"}.get(row.verdict, "")
        if row.unlike:
            said = "not made in the same way: " + "; ".join(map(str, row.unlike))
        table.add_row(row.name, _number(row.one), _number(row.other), said)
    _show(table)


def _show(table: object) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}"
