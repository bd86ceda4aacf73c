"""Which modes GANs find: rings, grids and stacked digits, by parts alone, many seeds each.

    python benchmarks/mode_collapse.py --data ring --variant recommended --seeds 0-9
    python benchmarks/mode_collapse.py --table

The protocol is that of VEEGAN and PacGAN (docs/mode-collapse.md). Each variant is a shipped recipe
with a few keys set; seeds of dense networks are trained together. A row for each run is added to
docs/mode-collapse.csv, where what is there already is not run again; `--table` writes the means
into docs/mode-collapse.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from side_by_side import commit

from gankit.cli.train import seeds_of
from gankit.export import of_run
from gankit.recipes import find
from gankit.spec import Spec, load
from gankit.together import train_together
from gankit.train import run
from gankit.train.scoring import about_run, described, evaluation_of, score

DOCS = Path(__file__).parent.parent / "docs"
ROWS, PAGE = DOCS / "mode-collapse.csv", DOCS / "mode-collapse.md"
FIELDS = (
    *("data", "variant", "hash", "seed", "steps", "packed"),
    *("modes", "high_quality", "reverse_kl", "date", "commit"),
)
DATA = {"ring": 8, "grid": 25, "stacked_digits": 1000}
"""The recipes, and how many modes their data has."""

PLAIN = ("penalty.r1=none", "schedule.cosine=none", "train.ema=0.0")
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": PLAIN,
    "spectral norm": (*PLAIN, "discriminator.norm=spectral"),
    "hinge": (*PLAIN, "loss=hinge"),
    "R1": ("schedule.cosine=none", "train.ema=0.0"),
    "packed, 2": (
        *PLAIN,
        "discriminator={{ use = 'pacgan', pack = 2, network = {discriminator} }}",
    ),
    "relativistic": (*PLAIN, "loss=relativistic"),
    "recommended": (),
}
"""What is set in the recipe of the data; the recipe itself is what is recommended."""


def spec_of(data: str, variant: str, seed: int, steps: int = 0) -> Spec:
    """The spec of a run."""
    file = find(data)
    part = load(file).discriminator.plain(full=False)
    words = ", ".join(f"{key} = {json.dumps(value)}" for key, value in part.items())
    overrides = [text.format(discriminator=f"{{ {words} }}") for text in VARIANTS[variant]]
    length = [f"train.steps={steps}"] * bool(steps)
    return load(file, [*overrides, *length, f"seed={seed}"])


def identity(spec: Spec) -> str:
    """What makes two runs the same but for their seed: here the number of steps is a part of it."""
    return f"{spec.hash[:12]}-{spec.train.steps}"


def rows() -> list[dict[str, str]]:
    """What has been run."""
    if not ROWS.exists():
        return []
    with ROWS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add(row: dict[str, object]) -> None:
    """Note a run."""
    new = not ROWS.exists()
    with ROWS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def measure(data: str, variant: str, seeds: Sequence[int], chosen: argparse.Namespace) -> None:
    """Train the seeds that there are no rows of, and add theirs."""
    done = {(row["hash"], row["seed"]) for row in rows()}
    specs = [spec_of(data, variant, seed, chosen.steps) for seed in seeds]
    specs = [spec for spec in specs if (identity(spec), str(spec.seed)) not in done]
    for first in range(0, len(specs), chosen.together):
        group = specs[first : first + chosen.together]
        folders = [chosen.runs / f"{data}-{identity(spec)}-{spec.seed}" for spec in group]
        if len(group) > 1:
            train_together(group, folders, "cpu", tell=print)
        else:
            run(group[0], folders[0], tell=print)
        for spec, folder in zip(group, folders, strict=True):
            add(scored(data, variant, spec, folder, len(group)))


def scored(data: str, variant: str, spec: Spec, folder: Path, packed: int) -> dict[str, object]:
    """The row of a run."""
    live = of_run(folder)
    evaluation = evaluation_of(spec.eval, live.data, described(spec.data))
    about = about_run(spec, live.step, "ema", 0)
    values = score(evaluation, live.gan, live.network, about).values
    return {
        "data": data,
        "variant": variant,
        "hash": identity(spec),
        "seed": spec.seed,
        "steps": spec.train.steps,
        "packed": packed if packed > 1 else "",
        "modes": round(values["modes"]),
        "high_quality": f"{values['high_quality']:.4f}" if "high_quality" in values else "",
        "reverse_kl": f"{values['reverse_kl']:.5f}",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }


def table(data: str) -> Iterator[str]:
    """The lines of a table: mean and standard error over seeds, and the worst seed."""
    of_data = [row for row in rows() if row["data"] == data]
    if not of_data:
        yield "No run is on record yet."
        return
    yield "| | seeds | steps | modes | worst | high quality % | reverse KL |"
    yield "|---|---|---|---|---|---|---|"
    for variant in VARIANTS:
        found = [
            row
            for row in of_data
            # Those of the recipe as it is: one that has changed since says nothing of it.
            if row["variant"] == variant
            and row["hash"] == identity(spec_of(data, variant, int(row["seed"])))
        ]
        if not found:
            continue
        modes = [float(row["modes"]) for row in found]
        good = [100 * float(row["high_quality"]) for row in found if row["high_quality"]]
        kl = [float(row["reverse_kl"]) for row in found]
        yield (
            f"| {variant} | {len(found)} | {int(found[0]['steps']):,} | {told(modes, 1)} | "
            f"{min(modes):.0f} | {told(good, 1) if good else '-'} | {told(kl, 3)} |"
        )


def told(values: Sequence[float], digits: int) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.{digits}f} ± {error:.{digits}f}"


def write_tables() -> None:
    """Put the tables into the page, between their marks."""
    text = PAGE.read_text(encoding="utf-8")
    for data in DATA:
        begin, end = f"<!-- {data} -->\n", f"<!-- end of {data} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + "\n".join(table(data)) + "\n" + end + after
    PAGE.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for, or write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=[*DATA], nargs="+", default=["ring"])
    parser.add_argument("--variant", choices=[*VARIANTS], nargs="+", default=["recommended"])
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0-9"), metavar="0-9")
    parser.add_argument("--steps", type=int, default=0, help="in the place of the recipe's")
    parser.add_argument("--together", type=int, default=5, help="seeds with stacked weights")
    parser.add_argument("--runs", type=Path, default=Path("runs/mode_collapse"))
    parser.add_argument("--table", action="store_true", help="write docs/mode-collapse.md")
    chosen = parser.parse_args(arguments)
    if chosen.table:
        write_tables()
        return
    torch.set_num_threads(1)
    for data in chosen.data:
        for variant in chosen.variant:
            measure(data, variant, chosen.seeds, chosen)


if __name__ == "__main__":
    main()
