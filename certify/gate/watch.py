"""When to stop drawing units: what a policy asks of evidence that is still growing (theory §5).

After every look at evidence of design ``sequential`` each claim that the policy requires of the text is
computed with anytime-valid limits and judged by the rules of :mod:`certify.policy.requirement`, the very
ones of the gate. Drawing can stop when nothing is *open*: every claim was shown or refuted, or no further
unit could change what stands in its way. The decision taken at the last look is the one that the gate will
find, because a limit by betting that was reached once is never lost (:mod:`certify.stats.betting`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from certify.base.errors import InvalidInputError, UsageError
from certify.base.verdict import Outcome
from certify.claims.counts import split_claim
from certify.claims.every import choices
from certify.claims.registry import claim_named, opposite_limit
from certify.claims.subject import make_subject, with_records
from certify.evidence.growing import Growing
from certify.evidence.load import Evidence, Subject, check_binding
from certify.gate.session import Session
from certify.policy.outcomes import asked
from certify.policy.policy import Policy
from certify.policy.requirement import Requirement, RequirementAnswer, judge
from certify.ticket.released import open_rows, open_source


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one requirement on one ticket stands after a look.

    Attributes:
        ticket: id of the ticket.
        requirement: what the policy asks.
        answer: what the units so far make of it.
    """

    ticket: str
    requirement: Requirement
    answer: RequirementAnswer

    @property
    def open(self) -> bool:
        """More units could change the answer from undecided to decided."""
        return self.answer.open


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the evidence found.

    Attributes:
        units: units drawn so far.
        standings: one for each requirement on the text and each ticket.
    """

    units: int
    standings: tuple[Standing, ...]

    @property
    def decided(self) -> bool:
        """Nothing is open."""
        return not any(standing.open for standing in self.standings)


class Watch:
    """Looks at growing evidence until everything that a policy asks of its text is decided.

    Attributes:
        looks: what was found, look by look.
        left_out: claims that the policy asks of other evidence, such as unrelated text.
    """

    def __init__(self, policy: Policy, subjects: Sequence[Subject], delta: Fraction | None = None) -> None:
        """Watch for the claims of ``policy`` about ``subjects``.

        Args:
            policy: what is required.
            subjects: the tickets that are evaluated.
            delta: error probability of each limit; None takes the policy's. Where a certificate is to rest on
                several texts, each has its share of the policy's.

        Raises:
            UsageError: there is no ticket (``TICKET_NEEDED``); the policy asks nothing of a translated text
                (``POLICY_NO_CLAIMS``); ``delta`` is larger than the policy's (``DELTA_TOO_LARGE``).
        """
        if policy.delta is None or not any(one.role == "evaluation" for one in policy.claims):
            raise UsageError(
                f"policy {policy.name} asks nothing of a translated text: nothing would be decided",
                code="POLICY_NO_CLAIMS",
            )
        if not subjects:
            raise UsageError("no ticket is named: --until-decided needs at least one", code="TICKET_NEEDED")
        if delta is not None and not 0 < delta <= policy.delta:
            raise UsageError(
                f"policy {policy.name} allows an error probability above 0 and up to {float(policy.delta):g}",
                code="DELTA_TOO_LARGE",
            )
        self._policy, self._subjects = policy, tuple(subjects)
        self._most, self._delta = policy.delta, policy.delta if delta is None else delta
        self.left_out = tuple(one.claim for one in policy.claims if one.role != "evaluation")
        self.looks: list[Look] = []
        self._growing: dict[Path, Growing] = {}

    def __call__(self, manifest: Path) -> bool:
        """Look at the evidence that lies there; True if nothing is open any more.

        What an earlier look read is not read again (:class:`certify.evidence.growing.Growing`).

        Raises:
            InvalidInputError: the evidence is refused, is of a fixed design (``EVIDENCE_DESIGN``), or is one
                that no gate would take (another model, sentences that were used before).
        """
        return self.look(self._growing.setdefault(manifest, Growing(manifest)).read()).decided

    def look(self, evidence: Evidence) -> Look:
        """One look; see :meth:`__call__`."""
        if evidence.design != "sequential":
            raise InvalidInputError(
                "evidence of a fixed design says nothing before its last unit", code="EVIDENCE_DESIGN"
            )
        found = []
        for subject in self._subjects:
            split_claim(evidence, subject)
            check_binding(evidence, subject)
            required = asked(subject.ticket, self._policy)
            # A certificate has one error probability: the smallest that the policy or a declaration allows.
            least = min(self._most, *(one.delta or self._most for one in required))
            delta = self._delta * least / self._most / choices(evidence, subject)
            for requirement in required:
                if requirement.role != "evaluation":
                    continue
                answer = self._answer(requirement, evidence, subject, delta)
                found.append(Standing(subject.ticket.id, requirement, answer))
        self.looks.append(Look(len(evidence.units), tuple(found)))
        return self.looks[-1]

    def _answer(
        self, requirement: Requirement, evidence: Evidence, subject: Subject, delta: Fraction
    ) -> RequirementAnswer:
        if requirement.texts and evidence.manifest.text.name not in requirement.texts:
            return RequirementAnswer(Outcome.NOT_RUN, "OTHER_TEXT", "the policy asks it of other texts")
        claim = claim_named(requirement.about(subject.ticket), evidence, subject, delta)
        return judge(
            requirement,
            claim,
            alpha=requirement.level(subject.ticket),
            taken=self._policy.taken,
            opposite=lambda: opposite_limit(claim),
        )


def rehearse(watch: Watch, evidence: Evidence, batch: int) -> tuple[Look, ...]:
    """Where drawing would have stopped, told from evidence of a whole text: to say what it would have saved.

    Looks at growing prefixes of the order of units, as if they had been drawn in batches, up to the first
    look with nothing open or the last unit. For information: evidence of a fixed design stays what it is.

    Args:
        watch: a watch; its looks are extended.
        evidence: translations of either design.
        batch: units drawn between looks, at least 1.

    Raises:
        UsageError: ``batch`` is below 1 (``UNITS_RANGE``).
        InvalidInputError: see :meth:`Watch.__call__`.
    """
    if batch < 1:
        raise UsageError("at least one unit is drawn at a time", code="UNITS_RANGE")
    order = [records[0].unit for records in evidence.units.values()]
    manifest = evidence.manifest.model_copy(update={"design": "sequential"})
    found = []
    for start in range(0, len(order), batch):
        drawn = frozenset(order[: start + batch])
        records = tuple(record for record in evidence.records if record.unit in drawn)
        found.append(watch.look(replace(evidence, manifest=manifest, records=records)))
        if found[-1].decided:
            break
    return tuple(found)


def open_subjects(specs: Iterable[str], base: Path | None, reference: Path | None) -> tuple[Subject, ...]:
    """The subjects of claims about tickets, from ``FILE#ID``, a base and a reference.

    Args:
        specs: the tickets, as :func:`lottery.evaluation.evaluate.evaluate_tickets` takes them.
        base: checkpoint folder with E⁰; None takes the table that travels with each ticket.
        reference: E*; None takes the one that travels with each ticket.

    Raises:
        UsageError: something does not exist or must be named.
        InvalidInputError: a ticket, a table or rows are refused.
    """
    session, subjects = Session(), []
    for spec in specs:
        source = open_source(spec)
        ticket = source.ticket
        if reference is None and ticket.reference.path is None:
            raise UsageError(
                "the reference does not travel with the ticket: name it", code="REFERENCE_NEEDED"
            )
        stored = session.role(source, "base", base)
        tuned = session.role(source, "reference", reference, stored)
        result = session.scan(stored, tuned, ticket.selection.method)
        rows = open_rows(source, tuned)
        subject = make_subject(ticket, stored, tuned, rows, result, digest=session.table_digest)
        subjects.append(with_records(subject, source.folder))
    return tuple(subjects)
