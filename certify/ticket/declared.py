"""Claims that a ticket declares before it is evaluated, and the settings that some of them have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from certify.base.errors import UsageError
from certify.base.model import BoundFile, Level, Model, Sha256, Slug, Text

MarginLevel = Annotated[Level, Field(pattern=r"^0?\.[0-9]{1,9}$")]
"""A margin t as decimal text, in (0, 1): a whole number of 1e-9, in which evidence counts probabilities."""


class StrengthLaw(Model):
    """Strengths of the criterion ``path`` (theory §4b): ``(Bin(n, 1/2) - n/2) / g``.

    With n even, the released table (0) and E* (1) are among the n + g + 1 strengths of the lattice.
    """

    n: Annotated[int, Field(ge=2, le=256, multiple_of=2)]
    g: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _overlapping(self) -> StrengthLaw:
        if self.g > self.n:
            raise ValueError("g must not exceed n")
        return self


USUAL_LAW: Final = StrengthLaw(n=16, g=2)
"""The law of a declared guarantee that names none."""


def strength_law(text: str) -> StrengthLaw:
    """Read ``n,g``, such as ``16,2``.

    Raises:
        UsageError: it is not the like, or out of range (``PATH_LAW``).
    """
    try:
        n, g = map(int, text.split(","))
        return StrengthLaw(n=n, g=g)
    except ValueError as error:
        message = f"expected n,g with n even and 1 <= g <= n <= 256, such as 16,2, not {text}"
        raise UsageError(message, code="PATH_LAW") from error


class Calibration(Model):
    """A calibrated margin (theory §5): where the served model's own margin is at least ``t``, its decisions
    disagree with E* at a mean unit rate of at most ``alpha``.

    ``text_sha256`` is the digest of the text on which ``t`` was chosen, ``record`` the record of that.
    """

    t: MarginLevel
    alpha: Level
    text_sha256: Sha256
    record: BoundFile


class DeclaredClaim(Model):
    """A claim, declared before the evaluation: what the ticket itself promises.

    ``texts`` names the texts on which it is promised; empty: all of them. ``path`` is for ``guarantee:path``,
    ``calibration`` for ``guarantee:calibrated``.
    """

    kind: Slug
    comparator: Slug | None = None
    margin: Annotated[str, Field(pattern=r"^-?[0-9]{1,9}(\.[0-9]{1,12})?$")] | None = None
    delta: Level | None = None
    extraction: Slug | None = None
    texts: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    path: StrengthLaw | None = None
    calibration: Calibration | None = None

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Tickets that name none keep the digest that they had before these fields were.
        content: dict[str, Any] = handler(self)
        return {
            key: one for key, one in content.items() if key not in ("texts", "path", "calibration") or one
        }

    @model_validator(mode="after")
    def _of_its_kind(self) -> DeclaredClaim:
        if self.path is not None and (self.kind, self.comparator) != ("guarantee", "path"):
            raise ValueError("only guarantee:path has a path")
        if self.calibration is not None and (self.kind, self.comparator) != ("guarantee", "calibrated"):
            raise ValueError("only guarantee:calibrated has a calibration")
        return self

    @property
    def law(self) -> StrengthLaw | None:
        """Strengths that the claim needs; None for any claim but ``guarantee:path``."""
        return self.path or USUAL_LAW if (self.kind, self.comparator) == ("guarantee", "path") else None


def common_law(claims: Iterable[DeclaredClaim], given: StrengthLaw | None = None) -> StrengthLaw | None:
    """The one law that claims declare and a caller gives; None if nobody names one.

    Raises:
        UsageError: they name different ones (``PATH_DIFFERS``).
    """
    found = {(law.n, law.g): law for law in (given, *(claim.law for claim in claims)) if law is not None}
    if len(found) > 1:
        text = " and ".join(f"n = {n}, g = {g}" for n, g in sorted(found))
        raise UsageError(f"one evaluation has one path, not {text}", code="PATH_DIFFERS")
    return next(iter(found.values()), None)
