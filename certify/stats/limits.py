"""A confidence limit as a record, and the requirements of all procedures on their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.stats.witness import Witness

GRID_BITS = 32
"""Units and limits are multiples of ``2**-GRID_BITS``, rounded toward the weaker claim."""

Side = Literal["lower", "upper"]

STATISTICAL_ASSUMPTIONS: dict[str, str] = {
    "iid": "the units are independent draws from one distribution",
    "independent": "the units are independent; their distributions may differ, the claim is about the mean "
    "of their means",
    "constant-conditional-mean": "given the units before it, each unit has the same mean (independent draws "
    "from one distribution do)",
    "sign-symmetric": "under the null hypothesis the two systems can be exchanged within each unit "
    "independently",
    "asymptotic": "the number of units is large enough for the limit law",
}
"""Assumptions of the procedures about the units, by name; each :class:`Limit` lists its own."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A one-sided confidence limit and everything needed to recompute it from the data.

    Attributes:
        value: the limit, rounded toward the weaker claim.
        side: ``lower``: the parameter is at least ``value``; ``upper``: at most ``value``.
        estimate: point estimate, for display.
        n: number of units.
        delta: error probability of the limit.
        procedure: name and version, such as ``clopper-pearson/1``.
        assumptions: keys of :data:`STATISTICAL_ASSUMPTIONS`.
        asymptotic: whether the level holds only in the limit of many units; then it never decides.
        witness: units and both limits, of a limit of a mean by betting.
    """

    value: Fraction
    side: Side
    estimate: Fraction
    n: int
    delta: Fraction
    procedure: str
    assumptions: tuple[str, ...]
    asymptotic: bool = False
    witness: Witness | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_level(self.delta)
        if self.side not in ("lower", "upper"):
            raise ValueError(f"a limit is lower or upper, not {self.side!r}")
        if self.n < 1:
            raise ValueError("a limit needs at least one unit")
        unknown = [name for name in self.assumptions if name not in STATISTICAL_ASSUMPTIONS]
        if unknown or not self.assumptions:
            raise ValueError(f"unknown or missing statistical assumptions: {unknown}")
        if self.asymptotic != ("asymptotic" in self.assumptions):
            raise ValueError("an asymptotic limit names the assumption, and no other does")


def check_level(delta: Fraction) -> None:
    """Refuse an error probability that is not an exact number strictly between 0 and 1.

    Raises:
        UsageError: it is not a Fraction (a binary float is another number), or is out of range.
    """
    if not isinstance(delta, Fraction):
        raise UsageError(
            f"an error probability must be a Fraction, not {type(delta).__name__}", code="DELTA_TYPE"
        )
    if not 0 < delta < 1:
        raise UsageError("an error probability must lie strictly between 0 and 1", code="DELTA_RANGE")


def exact_units(values: Sequence[Fraction | int]) -> list[int]:
    """Round values in [0, 1] down to multiples of ``2**-32`` and return the numerators.

    Raises:
        NothingToDoError: there are no values.
        InvalidInputError: a value is not an exact number or lies outside [0, 1].
    """
    if not values:
        raise NothingToDoError("there are no units to draw a conclusion from", code="NO_UNITS")
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, Fraction)):
            raise InvalidInputError(
                f"unit {index} is of type {type(value).__name__}, not an exact number", code="UNIT_TYPE"
            )
        if not 0 <= value.numerator <= value.denominator:
            raise InvalidInputError(f"unit {index} lies outside [0, 1]", code="UNIT_RANGE")
    return [(value.numerator << GRID_BITS) // value.denominator for value in values]


def witnesses(*limits: Limit) -> tuple[Witness, ...]:
    """The witnesses of limits by betting, in their order."""
    return tuple(limit.witness for limit in limits if limit.witness is not None)
