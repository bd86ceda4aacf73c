"""Training: the step, and what surrounds it."""

from gankit.train.engine import Engine
from gankit.train.trainer import Outcome, Record, Trainer, run

__all__ = ["Engine", "Outcome", "Record", "Trainer", "run"]
