"""Where the time of a spec's training steps goes, and what to change about it."""

from __future__ import annotations

from gankit.bench.advice import RULES, Rule, advice
from gankit.bench.measure import measure
from gankit.bench.profile import Profile, Span

__all__ = ["RULES", "Profile", "Rule", "Span", "advice", "measure"]
