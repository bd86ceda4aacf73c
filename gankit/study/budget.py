"""How long the cells of a study train, so that each is given as much as the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from gankit.build import bind
from gankit.errors import Place, Problem, SpecError
from gankit.spec import Spec, problem_at
from gankit.train.plan import count_turns

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """What every cell is given: so many real images shown to D, or so many steps.

    A step shows a batch to D in each of its turns. Steps are whole, so they are rounded up: a cell
    sees at least the images of the budget, and with one step less it would not.
    """

    of: Literal["images", "steps"]
    count: int
    place: Place | None = field(default=None, compare=False)

    def spend(self, spec: Spec) -> Spec:
        """The spec with the steps that the budget comes to.

        Raises:
            SpecError: its schedule cannot be asked, or never shows D an image.
        """
        return _lasting(spec, self.count if self.of == "steps" else self._steps(spec))

    def _steps(self, spec: Spec) -> int:
        for part in spec.schedule:
            try:
                bind(part)
            except ValueError as error:
                raise SpecError(problem_at(spec.source, part, error)) from error
        steps = -(-self.count // spec.train.batch)
        # One round is enough where every step has the same turns.
        for _ in range(20):
            shown = _images(spec, steps)
            if not shown:
                raise SpecError(Problem("the schedule never shows D an image", self.place))
            guess = max(1, -(-steps * self.count // shown))
            if guess == steps:
                break
            steps = guess
        while _images(spec, steps) < self.count:
            steps += 1
        while steps > 1 and _images(spec, steps - 1) >= self.count:
            steps -= 1
        return steps


def _lasting(spec: Spec, steps: int) -> Spec:
    return replace(spec, train=replace(spec.train, steps=steps))


def _images(spec: Spec, steps: int) -> int:
    """How many real images D is shown in so many steps."""
    turns = count_turns(_lasting(spec, steps))
    return spec.train.batch * sum(count for turn, count in turns.items() if "D" in turn)
