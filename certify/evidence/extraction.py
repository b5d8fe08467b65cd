"""Extraction rules: which part of a model's output is scored."""

from __future__ import annotations

from typing import Final, Literal

Rule = Literal["whole", "first-line", "cut"]
"""Extraction rules, in the order of ``rules`` of a record."""

RULES: Final[tuple[Rule, ...]] = ("whole", "first-line", "cut")
