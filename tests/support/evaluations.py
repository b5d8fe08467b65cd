"""Evaluate in one call what the program opens once for several texts."""

from __future__ import annotations

from typing import Any

from certify.evidence.read import Manifest
from lottery.evaluation import evaluate
from lottery.evaluation.arms import open_evaluation

_OPENED = ("reference", "tickets", "used", "nulls", "dtype")


def evaluate_tickets(base: str, data: str, languages: tuple[str, str], **settings: Any) -> Manifest:
    """Open the arms and evaluate them on one text."""
    opened = open_evaluation(base, **{name: settings.pop(name) for name in _OPENED if name in settings})
    return evaluate.evaluate_tickets(opened, data, languages, **settings)
