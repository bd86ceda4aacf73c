"""Problems at their places: what a part says when it is built, and in which order all are told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gankit.errors import OptionError, Place, Problem
from gankit.spec.document import Path
from gankit.spec.model import Part
from gankit.spec.source import Source

__all__ = ["in_order", "problem_at"]


def problem_at(source: Source, part: Part, error: Exception, *around: Part) -> Problem:
    """What a part said when it was built, at the place of the option or part it speaks of.

    `around` are other parts whose options it may speak of, such as the data's size.
    """
    return Problem(str(error), source.value(_spoken_of(part, error, around)))


def _spoken_of(part: Part, error: Exception, around: Sequence[Part] = ()) -> Path:
    """The path of an option, of an entry in its list, or else of the part's name."""
    if not isinstance(error, OptionError):
        # A plain ValueError names an option in its words, if at all.
        words = _words(error) if isinstance(error, ValueError) else []
        spoken = [(p, word) for word in words for p in part.inner() if word in p.options]
        return (*spoken[0][0].path, spoken[0][1]) if spoken else (*part.path, "use")
    stages = part.options.get("stages", ())
    at_stage = stages[error.stage].inner() if error.stage is not None and stages else ()
    owners = [p for p in (*at_stage, *part.inner(), *around) if error.option in p.entry.options]
    if not owners:
        return (*part.path, "use")
    owner = next((p for p in owners if error.option in p.options), owners[0])
    value = owner.options.get(error.option)
    if value is None:
        # It has its default; if another option is named, that is the one that does not fit it.
        named = (word for word in _words(error) if word in owner.options)
        return (*owner.path, next(named, error.option))
    if error.index is None:
        return (*owner.path, error.option)
    if isinstance(value, tuple) and isinstance(value[error.index], Part):
        return _spoken_of(value[error.index], ValueError(str(error)))
    return (*owner.path, error.option, error.index)


def _words(error: Exception) -> list[str]:
    return re.findall(r"\w+", str(error))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems in the order of the text, those of overrides after those of the file, each once."""

    def order(problem: Problem) -> tuple[bool, Place]:
        place = problem.place or Place(0, 0)
        return place.name == "--set", place

    return sorted(dict.fromkeys(problems), key=order)
