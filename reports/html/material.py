"""One ticket with what its plots are drawn from, and what it shares with the other tickets of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from certify.base.files import inside
from certify.certificate.build import TextClaims
from certify.claims.claim import Claim
from certify.claims.registry import KINDS, opposite_limit
from certify.evidence.load import Subject, ticket_arm
from certify.evidence.read import Arm
from certify.gate.check import CheckReport, TicketReport
from certify.policy.requirement import Requirement
from certify.selection.frequency import read_counts
from certify.tables.dtypes import to_float32
from certify.ticket.schema import Ticket
from reports.html.markup import Markup


@dataclass
class Sheet:
    """What is computed once for a page: definitions by id, and columns by what they are of."""

    definitions: dict[str, Markup] = field(default_factory=dict)
    columns: dict[tuple[str, ...], NDArray[np.float64]] = field(default_factory=dict)

    def column(self, key: tuple[str, ...], make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """A column ``[V]``, made once."""
        if key not in self.columns:
            self.columns[key] = make()
        return self.columns[key]


@dataclass(frozen=True)
class Material:
    """One ticket of one report.

    Attributes:
        key: what ids of its section begin with.
        report: the report.
        one: its part about the ticket.
        sheet: shared with the other tickets of the page.
    """

    key: str
    report: CheckReport
    one: TicketReport
    sheet: Sheet

    @cached_property
    def main(self) -> TextClaims | None:
        """The evaluated text with most units, under the ticket's own template; None if there is none."""
        texts = self.one.examined.texts if self.one.examined else ()
        found = [text for text in texts if text.role == "evaluation"]
        return max(found, key=lambda text: len(text.evidence.units), default=None)

    @cached_property
    def arm(self) -> Arm | None:
        """The arm that served the ticket on that text; None if there is none."""
        return None if self.main is None else ticket_arm(self.main.evidence, self.subject)

    @property
    def subject(self) -> Subject:
        """What claims are about.

        Raises:
            ValueError: no evidence was used.
        """
        if self.one.examined is None or self.one.examined.subject is None:
            raise ValueError("there is no subject without evidence")
        return self.one.examined.subject

    @cached_property
    def pieces(self) -> dict[int, str]:
        """Pieces of the ticket's rows by id."""
        return {token.id: token.piece or "" for token in self.one.ticket.tokens}

    def claim(self, name: str) -> Claim | None:
        """The claim of that name on the main text; None if it has no figures."""
        claims = self.main.claims if self.main else ()
        return next((one for one in claims if one.name == name and one.estimate is not None), None)

    @property
    def without_evidence(self) -> str:
        """Why nothing can be drawn that needs an evaluation."""
        if self.one.examined is None:
            return f"the policy {self.report.policy.name} reads no evidence."
        if self.one.examined.subject is None:
            return "tables or rows of the ticket are missing, and without them it shows nothing."
        return "there is no usable evidence of a translated text."

    @property
    def without_tables(self) -> str:
        """Why nothing can be drawn that needs both tables."""
        return "the tables are missing or invalid, so they were not scanned."

    @cached_property
    def frequency(self) -> tuple[NDArray[np.float64], str, str] | None:
        """How often each row is fed ``[V]``, what was counted, and a name of it; None if it is not known.

        The bound token counts, or in how many evaluated sentences a row is fed: by the prompt, or by the
        output of embed tuning.
        """
        ticket, rows = self.one.ticket, self.one.ticket.base.shape[0]
        if (bound := ticket.selection.counts) is not None:
            path = inside(self.report.path.parent, bound.path, bound.sha256)
            made = self.sheet.column(("counts", bound.sha256), lambda: read_counts(path, rows).astype(float))
            return made, "occurrences in the counted text", bound.sha256
        if self.main is None:
            return None
        evidence = self.main.evidence

        def fed() -> NDArray[np.float64]:
            counts = Counter(
                token
                for record in evidence.sentences
                for token in {*record.prompt, *record.reference.tokens[:-1]}
            )
            found = np.zeros(rows)
            found[list(counts)] = list(counts.values())
            return found

        name = f"evaluated sentences ({self.main.name}) that feed the row"
        return self.sheet.column(("fed", evidence.sha256), fed), name, evidence.sha256

    @property
    def norms(self) -> NDArray[np.float64] | None:
        """Euclidean norms of the base's rows ``[V]``, as served; None without a table."""
        base = self.one.base
        if base is None:
            return None

        def measured() -> NDArray[np.float64]:
            rows = (to_float32(block, base.dtype).astype(np.float64) for _, block in base.blocks())
            return np.concatenate([np.linalg.norm(block, axis=1) for block in rows])

        return self.sheet.column(("norms", self.one.ticket.base.tensor_sha256), measured)


def both_limits(claim: Claim) -> tuple[Fraction | None, Fraction | None]:
    """Lower and upper limit, each at the claim's error probability: one is stated, the units give another."""
    if KINDS[claim.kind].reverse is None or claim.estimate is None:
        return claim.lower, claim.upper
    other = opposite_limit(claim)
    return (claim.lower, other) if claim.upper is None else (other, claim.upper)


def wanted(requirement: Requirement, ticket: Ticket) -> Fraction:
    """What a limit is held against: the threshold, or the level of a promise."""
    return Fraction(requirement.level(ticket)) if requirement.threshold is None else requirement.threshold
