"""Training: the step, and what surrounds it."""

from gankit.train.engine import Engine
from gankit.train.record import Record
from gankit.train.run import Outcome, run
from gankit.train.signals import Stopped
from gankit.train.trainer import Trainer

__all__ = ["Engine", "Outcome", "Record", "Stopped", "Trainer", "run"]
