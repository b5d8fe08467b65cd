"""Laws with symbolic masses for an SMT solver, and queries with a time limit; see
:mod:`proofs_checks.theory.smt`.

Laws are given by the values of their distribution functions at the atoms: ``F`` before, ``F + g`` after,
``abs(g) <= D``. An expectation is a polynomial in them by summation by parts. Atoms may have mass 0, so that
a query on n atoms contains those on fewer. Needs the extra ``proofs`` (z3), when used and not when imported.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

from proofs_checks.theory.finite import Law, lines

QUERY_SECONDS = 5.0
"""Limit of one query; the ones here take milliseconds."""

SolverStatus = Literal["unsat", "sat", "timeout"]
Values = tuple[int, ...]
"""A function on the cells of a grid, last coordinate fastest."""

_DIGITS = 30  # of the rational approximation of an algebraic number in a model


@dataclass(frozen=True, slots=True)
class SolverAnswer:
    """What the solver said. ``timeout`` covers every undecided query; ``model`` is there if ``sat``."""

    status: SolverStatus
    model: Any = None


class Clock:
    """Seconds left to a check, and the limit of its next query."""

    def __init__(self, seconds: float, query_seconds: float = QUERY_SECONDS) -> None:
        self._end = time.monotonic() + seconds
        self._query_seconds = query_seconds

    def limit(self) -> float:
        """Seconds for the next query; not positive if there is no time left."""
        return min(self._query_seconds, self._end - time.monotonic())


def solve(solver: Any, clock: Clock) -> SolverAnswer:
    """Decide the constraints in a z3 solver within the time that ``clock`` allows."""
    import z3

    seconds = clock.limit()
    if seconds <= 0:
        return SolverAnswer("timeout")
    solver.set("timeout", max(1, round(seconds * 1000)))
    verdict = solver.check()
    if verdict == z3.sat:
        return SolverAnswer("sat", solver.model())
    return SolverAnswer("unsat" if verdict == z3.unsat else "timeout")


class SymbolicLaws:
    """Independent coordinates before and after a change, with symbolic masses.

    ``shape`` has the atoms per coordinate, each at least 2; ``before`` and ``after`` the distribution
    functions at all atoms but the last (where they are 1), ``shift`` their difference; ``distances`` bounds
    on it. The ``constraints`` make them laws and bounds.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        import z3

        self.shape = tuple(shape)
        self.before = [[z3.Real(f"F{j}_{i}") for i in range(atoms - 1)] for j, atoms in enumerate(shape)]
        self.shift = [[z3.Real(f"g{j}_{i}") for i in range(atoms - 1)] for j, atoms in enumerate(shape)]
        self.distances = [z3.Real(f"D{j}") for j in range(len(shape))]
        self.after = [
            [f + g for f, g in zip(cdf, shift, strict=True)]
            for cdf, shift in zip(self.before, self.shift, strict=True)
        ]
        self.constraints: list[Any] = []
        for cdf in (*self.before, *self.after):
            self.constraints += [low <= high for low, high in pairwise((z3.RealVal(0), *cdf, z3.RealVal(1)))]
        for shift, bound in zip(self.shift, self.distances, strict=True):
            self.constraints += [inequality for g in shift for inequality in (g <= bound, -g <= bound)]

    def rational(self, model: Any) -> tuple[tuple[Law, ...], tuple[Law, ...]]:
        """Rational laws ``(before, after)`` at, or next to, a model; next to it where it is irrational."""

        def laws(cdfs: Sequence[Sequence[Any]]) -> tuple[Law, ...]:
            return tuple(masses_of([fraction_of(model, f) for f in cdf]) for cdf in cdfs)

        return laws(self.before), laws(self.after)


def expected(values: Sequence[int], shape: Sequence[int], cdfs: Sequence[Sequence[Any]]) -> Any:
    """E s as a polynomial in the distribution functions of coordinates, at all atoms but the last.

    ``values`` are those of s on the cells of the grid, last coordinate fastest.
    """
    if not shape:
        return values[0]
    width = len(values) // shape[0]
    parts = [expected(values[i : i + width], shape[1:], cdfs[1:]) for i in range(0, len(values), width)]
    total = parts[-1]
    for f, (left, right) in zip(cdfs[0], pairwise(parts), strict=True):
        total = total + f * (left - right)
    return total


def step_loss(values: Values, laws: SymbolicLaws, axis: int) -> Any:
    """Change of E s when coordinate ``axis`` goes from after to before and the others keep their laws.

    The coordinates before ``axis`` have their law *after*, those behind it their law *before*, so that the
    losses of all axes add up to ``E s(X) - E s(Y)`` (an identity that :func:`telescopes` verifies).
    """
    mixed = [*laws.after[:axis], *laws.before[axis:]]
    others = [cdf for j, cdf in enumerate(mixed) if j != axis]
    shape = [atoms for j, atoms in enumerate(laws.shape) if j != axis]
    columns = list(lines(laws.shape, axis))
    loss: Any = 0
    for i, g in enumerate(laws.shift[axis]):
        difference = tuple(values[line[i]] - values[line[i + 1]] for line in columns)
        loss = loss - g * expected(difference, shape, others)
    return loss


def telescopes(values: Values, laws: SymbolicLaws) -> bool:
    """Whether the step losses sum to ``E s(X) - E s(Y)``, as polynomials."""
    import z3

    whole = expected(values, laws.shape, laws.before) - expected(values, laws.shape, laws.after)
    steps = sum(step_loss(values, laws, axis) for axis in range(len(laws.shape)))
    rest = z3.simplify(whole - steps + z3.RealVal(0), som=True)
    return bool(z3.is_rational_value(rest) and rest.as_fraction() == 0)


def fraction_of(model: Any, term: Any) -> Fraction:
    """Value of a term in a model; a rational number near it where it is algebraic."""
    import z3

    value = model.eval(term, model_completion=True)
    if z3.is_algebraic_value(value):
        value = value.approx(_DIGITS)
    return Fraction(value.as_fraction())


def masses_of(cdf: Sequence[Fraction]) -> Law:
    """Masses of a distribution function; what approximation pushed out of order is put back."""
    points = [Fraction(0)]
    for value in (*cdf, Fraction(1)):
        points.append(min(max(value, points[-1]), Fraction(1)))
    return tuple(high - low for low, high in pairwise(points))
