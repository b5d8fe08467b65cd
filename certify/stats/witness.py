"""Witnesses make a limit quick to check: the units behind it, and its index on the grid.

Finding a limit needs a search over its grid, but verifying a stated one needs two evaluations. A certificate
therefore states the index, and recomputing a claim takes it as a hint (:func:`hints`). A hint is never
trusted: a wrong one costs two evaluations and does not change the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

from certify.base.jsonio import canonical_json, sha256_bytes

Key = tuple[str, Fraction, Literal["lower", "upper"]]
"""Digest of the units (or ``k/n`` of a rate), error probability, side."""

_KNOWN: ContextVar[Mapping[Key, int]] = ContextVar("known limits")


@contextmanager
def hints(known: Mapping[Key, int]) -> Iterator[None]:
    """Make searches for limits start at the indices in ``known``, within this context."""
    token = _KNOWN.set(known)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def hint(name: Callable[[], str], delta: Fraction, side: Literal["lower", "upper"]) -> int | None:
    """Look up the likely index of a limit; None without hints. ``name`` is called only if there are hints."""
    known = _KNOWN.get({})
    return known.get((name(), delta, side)) if known else None


def largest(holds: Callable[[int], bool], size: int, known: int | None = None) -> int:
    """Find the largest ``0 < j < size`` with ``holds(j)``; 0 if there is none.

    Args:
        holds: true up to some j, false beyond.
        size: end of the grid.
        known: likely answer; None if unknown.
    """
    if known is not None and 0 <= known < size:
        inside = known == 0 or holds(known)
        if inside and (known + 1 == size or not holds(known + 1)):
            return known
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def units_digest(units: Sequence[int]) -> str:
    """Compute the SHA-256 of the canonical JSON of the list."""
    return sha256_bytes(canonical_json(list(units)))


@dataclass(frozen=True)
class Witness:
    """Units of one mean or rate, in the order of units, and the limits on both sides of it.

    Attributes:
        units: for a mean, integers in ``0..2**32``, in units of ``2**-32``; for a rate, 0 or 1.
        lower: index of the lower limit, which is ``lower / grid``.
        grid: ``2**20`` for limits by betting, ``2**32`` for Clopper-Pearson.
        find_upper: computes the index of the upper limit; None if there is none.
    """

    units: tuple[int, ...]
    lower: int
    grid: int
    find_upper: Callable[[], int] | None = field(compare=False)

    @cached_property
    def digest(self) -> str:
        """Digest of the units."""
        return units_digest(self.units)

    @cached_property
    def upper(self) -> int | None:
        """Index of the upper limit, or None; computed on first use."""
        return None if self.find_upper is None else self.find_upper()

    def to_json(self) -> dict[str, Any]:
        """Convert to the form in a certificate."""
        return {"units": self.digest, "lower": self.lower, "upper": self.upper}


def upper_value(witnesses: Sequence[Witness], low: int = 0, high: int = 1) -> Fraction | None:
    """Find the least upper limit of several comparisons in ``[low, high]``; None if one has none."""
    found = [one.upper for one in witnesses]
    if not found or None in found:
        return None
    least = min(
        Fraction(index, one.grid) for index, one in zip(found, witnesses, strict=True) if index is not None
    )
    return low + least * (high - low)
