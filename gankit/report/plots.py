"""Curves of a run as inline SVG, in the colours that the page gives them.

Names that come from outside (of penalties, of loggers' numbers) never go into a drawing: legends
are the page's, which escapes them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gankit.report.records import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Line", "Panel", "draw", "panels"]

WIDTH, HEIGHT = 360, 190
"""Of a drawing, in points: between what it is shown at on a phone and on a desk."""
LEFT, RIGHT, BOTTOM, TOP = 44, 12, 22, 6
"""What is kept free for the labels, the same in all drawings, so that they stand in line."""
EXTREMES = 600
"""A line is drawn by the least and the greatest of so many pieces."""
MIDDLES = 150
"""The running median by so many points."""
DECADES = 1e12
"""An axis goes over no larger range by powers of ten."""
MARKS = 100
"""At most so many marks for numbers that are not finite."""

NAMES = ("soft", "edge", "bad", "d", "g", "real", "other")
COLOURS = {name: f"#0a0b0{index}" for index, name in enumerate(NAMES)}
"""Stand-ins for the page's colours: no drawing keeps them."""

KNOWN = {
    "loss": ("Losses", "What each plays for; lower is not better."),
    "logits": ("D(real) and D(fake)", "D's mean logits; where they meet, D tells nothing apart."),
    "gradient": ("Gradient norms", "Of all weights of a player together, at its last update."),
    "diversity": ("Diversity", "Spread of the fakes over that of the real images; 0 is collapse."),
    "sigma": ("Largest singular value", "Of a layer, before spectral norm divides by it."),
    "stretch": ("Spectral norm", "How far a layer stretches a vector at most; the promise is 1."),
    "gain": ("Attention gain", "The largest |γ|; at 0 attention does nothing."),
}
LAST = {"images_per_second": ("Images per second", "Samples and checkpoints not counted.")}
"""Titles and captions of the panels that most runs have; others stand between the two."""


@dataclass(frozen=True)
class Line:
    """A series under its name and colour."""

    name: str
    colour: str
    series: Series

    @property
    def last(self) -> float:
        """The number that was logged last."""
        return float(self.series.values[-1])


@dataclass
class Panel:
    """The lines that are drawn in one frame."""

    key: str
    title: str
    caption: str = ""
    lines: list[Line] = field(default_factory=list)

    @property
    def nonfinite(self) -> int:
        """How many numbers cannot be drawn."""
        return sum(len(line.series.values) - len(line.series.finite.values) for line in self.lines)

    @property
    def first_nonfinite(self) -> int:
        """The first step with such a number."""
        steps = [line.series.steps[~np.isfinite(line.series.values)] for line in self.lines]
        return int(np.concatenate(steps).min())


def panels(series: Mapping[str, Series], penalties: Sequence[str] = ()) -> list[Panel]:
    """The numbers of a run, those that belong together in one panel: `loss_D` with `loss_G`."""
    found: dict[str, Panel] = {}
    for name, one in series.items():
        stem, _, player = name.rpartition("_")
        if name in ("D_real", "D_fake"):
            key, label, colour = "logits", f"D({name[2:]})", "real" if name == "D_real" else "g"
        elif stem and player in ("D", "G"):
            key, label, colour = stem, player, player.lower()
        else:
            key, label, colour = name, name, "other"
        title, caption = (KNOWN | LAST).get(key, (key, ""))
        if key in penalties:
            title, caption = f"Penalty {key}", "At the steps that it was logged for."
        panel = found.setdefault(key, Panel(key, title, caption))
        panel.lines.append(Line(label, colour, one))
    order = [*KNOWN, *(key for key in found if key not in KNOWN | LAST), *LAST]
    return [found[key] for key in order if key in found]


def draw(panel: Panel, index: int, last: float, limits: Sequence[float] = ()) -> str:
    """A panel as an SVG element, its steps from 0 to `last`; `index` makes its ids its own.

    Limits within reach of the curves are dashed. There is no text in it but numbers.
    """
    # matplotlib takes a while to import, and is not asked for by who only reads.
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Whatever a matplotlibrc says, and without changing what another figure is drawn with.
    ours: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "gankit", "path.simplify": True}
    with style.context(["default", ours]):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        FigureCanvasSVG(figure)
        across, up = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, across / WIDTH, up / HEIGHT))
        _frame(axes, max(last, 1.0))
        _scale(axes, panel)
        for line in panel.lines:
            _curve(axes, line)
        _mark(axes, limits)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, dpi=72, metadata={"Date": None})
    return _inline(text.getvalue(), f"p{index}-")


def _frame(axes: Axes, last: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, last)
    axes.margins(y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.grid(axis="y", color=COLOURS["edge"], linewidth=0.8)
    axes.tick_params(length=0, pad=6, labelsize=10.5, labelcolor=COLOURS["soft"])
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(COLOURS["edge"])


def _short(number: float, place: object = None) -> str:
    """A number as it stands at an axis: 25k, 1M, 0.3, 1e-05."""
    sign, size = "−" if number < 0 else "", abs(number)
    for least, unit, letter in ((1e12, 1.0, ""), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= least:
            return f"{sign}{size / unit:.4g}{letter}"
    return f"{sign}{size:.6g}"


def _curve(axes: Axes, line: Line) -> None:
    """A faint line of what was logged and a strong one of its running median."""
    colour = COLOURS[line.colour]
    x, y = line.series.finite.steps, line.series.finite.values
    bad = line.series.steps[~np.isfinite(line.series.values)]
    bad = bad[np.unique(np.linspace(0, len(bad) - 1, min(len(bad), MARKS)).astype(int))]
    axes.plot(
        bad,
        np.zeros(len(bad)),
        linestyle="none",
        marker="|",
        markersize=9,
        color=COLOURS["bad"],
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )
    if len(x) == 1:
        axes.plot(x, y, marker="o", markersize=5, color=colour, clip_on=False)
    elif len(x) < 40:
        axes.plot(x, y, color=colour, linewidth=1.8)
    else:
        axes.plot(*_extremes(x, y), color=colour, linewidth=0.8, alpha=0.3)
        axes.plot(*_medians(x, y), color=colour, linewidth=1.8)


def _extremes(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A long line by its ends and the extremes of its pieces, so that no spike is lost."""
    if len(x) <= 2 * EXTREMES:
        return x, y
    edges = np.linspace(0, len(x), EXTREMES + 1).astype(int)
    kept = {0, len(x) - 1}
    for low, high in pairwise(edges):
        kept |= {low + int(y[low:high].argmin()), low + int(y[low:high].argmax())}
    chosen = sorted(kept)
    return x[chosen], y[chosen]


def _medians(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The median of a window of a fifteenth of the line, along it."""
    places = np.unique(np.linspace(0, len(x) - 1, MIDDLES).astype(int))
    reach = max(3, len(x) // 30)
    medians = []
    for place in places:
        # Towards an end the window narrows, for else it would lean away from it.
        near = max(3, reach // 8, min(reach, place, len(x) - 1 - place))
        medians.append(np.median(y[max(0, place - near) : place + near + 1]))
    return x[places], np.array(medians)


def _scale(axes: Axes, panel: Panel) -> None:
    """Linear, unless a few numbers would press all others flat."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    values = np.concatenate([line.series.finite.values for line in panel.lines])
    sizes = np.abs(values[values != 0])
    typical, largest = (float(np.median(sizes)), float(sizes.max())) if len(sizes) else (1.0, 1.0)
    if largest <= 30 * typical:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    elif values.min() > largest / DECADES:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=max(5 * typical, largest / DECADES))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(_short))


def _mark(axes: Axes, limits: Sequence[float]) -> None:
    """Dash the limits that can be seen, and told from 0."""
    low, high = axes.get_ylim()
    least = (high - low) / 100 if axes.get_yscale() == "linear" else 0.0
    for limit in limits:
        if low <= limit <= high and abs(limit) >= least:
            axes.axhline(limit, color=COLOURS["bad"], linewidth=1, linestyle=(0, (4, 3)))


def _inline(svg: str, prefix: str) -> str:
    """What stands in a page: the page's colours and fonts, ids of its own, nothing to look up."""
    opening = re.search(r'<svg[^>]*\bviewBox="([^"]*)"[^>]*>', svg)
    assert opening, "matplotlib writes a viewBox"
    svg = f'<svg viewBox="{opening[1]}">{svg[opening.end() :]}'
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg.replace("xlink:href", "href"))
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'font-\w+: [^;"]*;? ?| transform="rotate\(-0 [^"]*"', "", svg)
    for name, stand_in in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    return re.sub(r'\bd="[^"]*"', _rounded, svg).strip()


def _rounded(path: re.Match[str]) -> str:
    text = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", path[0])
    return re.sub(r"\s+", " ", text.replace(".0", ""))
