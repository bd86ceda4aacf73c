"""The protocol card: all that decides a score beside the generator, so that scores can be compared.

Users of other libraries cannot compare their FIDs: other weights, other resizing, other counts, and
no record of which. A card has a line for each, and two scores compare if their lines agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["SUBJECT", "Card", "Difference"]

SUBJECT = ("images", "step", "weights", "seed", "device", "versions")
"""The lines of what was scored, where and with what; two scores may differ in them.

`weights` says whether they are the averaged ones: that is a choice of whoever made the generator.
"""


@dataclass(frozen=True)
class Difference:
    """A line in which two cards differ; None where one of them lacks it."""

    line: str
    one: str | None
    other: str | None

    def __str__(self) -> str:
        return f"{self.line}: {self.one or 'nothing'} against {self.other or 'nothing'}"


@dataclass(frozen=True)
class Card:
    """What a score was made with, line by line."""

    lines: Mapping[str, str]

    def protocol(self, metric: str) -> dict[str, str]:
        """The lines that must agree where scores of a metric are compared."""
        others = (f"metric {other}" for other in self.metrics if other != metric)
        left = {*SUBJECT, *others}
        return {line: text for line, text in self.lines.items() if line not in left}

    @property
    def metrics(self) -> list[str]:
        """The metrics that there is a line of options for."""
        return [line.removeprefix("metric ") for line in self.lines if line.startswith("metric ")]

    def differences(self, other: Card, metric: str) -> Iterator[Difference]:
        """Why scores of a metric do not compare; nothing where they do."""
        mine, its = self.protocol(metric), other.protocol(metric)
        for line in [*mine, *(line for line in its if line not in mine)]:
            if mine.get(line) != its.get(line):
                yield Difference(line, mine.get(line), its.get(line))

    def without(self, metrics: Mapping[str, object]) -> Card:
        """The card without the lines of those metrics."""
        return Card(
            {k: v for k, v in self.lines.items() if k.removeprefix("metric ") not in metrics}
        )

    def __str__(self) -> str:
        width = max(map(len, self.lines), default=0)
        return "\n".join(f"{line:{width}}  {text}" for line, text in self.lines.items())
