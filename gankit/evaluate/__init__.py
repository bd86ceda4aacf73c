"""Scores that can be trusted: how they are made is part of them."""

from gankit.evaluate.card import SUBJECT, Card, Difference
from gankit.evaluate.defaults import default_count, default_features, default_metrics
from gankit.evaluate.evaluation import Evaluation
from gankit.evaluate.given import given
from gankit.evaluate.naming import Named, named, provided
from gankit.evaluate.scores import Compared, Scores, compared, file_of, files_of, read, write
from gankit.evaluate.sets import batches

__all__ = [
    "SUBJECT",
    "Card",
    "Compared",
    "Difference",
    "Evaluation",
    "Named",
    "Scores",
    "batches",
    "compared",
    "default_count",
    "default_features",
    "default_metrics",
    "file_of",
    "files_of",
    "given",
    "named",
    "provided",
    "read",
    "write",
]
