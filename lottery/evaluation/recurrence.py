"""Recorded decisions beside those found on a rerun: what differs, and whether rounding explains it.

Other batches and processors round differently. A probability is then off by at most a *tolerance*
(:func:`tolerance_of`), so two tokens can change places only where their probabilities, as found, are no more
than twice that apart: one rises by the tolerance, the other falls by it. Steps are compared along the
recorded output, so that none follows from another. A difference that needs more is a contradiction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal

from certify.base.records import Dtype
from certify.evidence.read import UNIT, TranslationRecord
from certify.evidence.record import OwnSteps
from certify.stats.path import decision, decode, path_law
from certify.ticket.declared import StrengthLaw
from lottery.evaluation.forced_decoding import Certainty

Result = Literal["REPRODUCED", "WITHIN_ROUNDING", "NOT_REPRODUCED", "NOT_RUN", "SAME", "OTHER"]

Case = tuple[str, int]
"""Id of a record and one of its steps, counted from 0."""

_LEAST: Final = 10**5
_BITS: Final[Mapping[Dtype, int]] = {"F32": 24, "F16": 11, "BF16": 8}


def tolerance_of(dtype: Dtype) -> int:
    """Largest difference of a probability that rounding explains, in units of 1e-9.

    Sixteen units of roundoff of the dtype in which the outputs were decoded, and at least 1e-4: 1e-4 in fp32,
    .0078 in fp16, .0625 in bf16.
    """
    return max(_LEAST, 16 * UNIT >> _BITS[dtype])


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, as recorded or as found.

    Attributes:
        reference: most probable token under E*.
        p_a: largest probability under E*, in units of 1e-9.
        p_b: second largest probability, likewise.
    """

    reference: int
    arm: int
    p_a: int
    p_b: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """Result of rerunning one case.

    Attributes:
        result: see :mod:`lottery.evaluation.replay`.
        recorded: the decision in the record; None if there is no such step.
        found: the decision found; None if the case was not run.
    """

    record: str
    step: int
    result: Result
    text: str
    recorded: Decision | None = None
    found: Decision | None = None


@dataclass(frozen=True, slots=True)
class Deviation:
    """Something that is not as recorded.

    Attributes:
        margin: the two largest probabilities found where a decision differs, subtracted, in units of 1e-9,
            the widest of them if several do; None where rounding cannot be the reason.
    """

    text: str
    margin: int | None = None


_NONE: Final = Certainty((), (), ())


@dataclass(slots=True)
class Redecided:
    """What a rerun found about one record.

    Attributes:
        reference: decisions of E* along its recorded output, up to the last requested step.
        arm: those of the ticket's arm there.
        labels: the labels along the path, if there is one.
        between: margins of each step at the strengths of the path other than 0 and 1, in their order.
        deviations: what else of the record is not as recorded.
    """

    reference: Certainty = _NONE
    arm: Certainty = _NONE
    labels: Sequence[str] = ()
    between: Sequence[Sequence[int]] = ()
    deviations: list[Deviation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How cases are compared: the ticket's arm in the records, the law of its path, the tolerance."""

    arm: str
    law: StrengthLaw | None
    tolerance: int

    def compare(
        self,
        case: Case,
        record: TranslationRecord | None,
        refused: Mapping[str, str],
        runs: Mapping[str, Redecided],
    ) -> Replayed:
        """The result of one case; ``refused`` says by record why it was not run."""
        id_, step = case
        if record is None or not 0 <= step < len(record.reference.tokens):
            return Replayed(id_, step, "NOT_RUN", "the evidence has no such step")
        steps, answer = record.reference, record.arms[self.arm]
        expected = steps.argmaxes()
        actual = _patched(expected, answer.differs)
        recorded = Decision(expected[step], actual[step], steps.p_a[step], steps.p_b[step])
        if id_ in refused:
            return Replayed(id_, step, "NOT_RUN", refused[id_], recorded)
        run = runs[id_]
        sure, said = run.reference, run.arm
        found = Decision(sure.argmax[step], said.argmax[step], sure.p_a[step], sure.p_b[step])
        deviations = [
            *run.deviations,
            *_decided("embed tuning", sure, expected, step),
            *_decided("the ticket", said, actual, step),
        ]
        if self.law is not None and answer.path is not None:
            deviations += _uncertified(answer.path[step], run, step, self.law)
        off = max(abs(found.p_a - recorded.p_a), abs(found.p_b - recorded.p_b))
        if off > self.tolerance:
            deviations.append(Deviation(f"a probability is off by {off / UNIT:.2e}"))
        text = "; ".join(one.text for one in deviations) or (
            f"embed tuning says {found.reference}, the ticket {found.arm}, as recorded; probabilities within"
            f" {off / UNIT:.1e}"
        )
        return Replayed(id_, step, self._result(deviations), text, recorded, found)

    def _result(self, deviations: Sequence[Deviation]) -> Result:
        if not deviations:
            return "REPRODUCED"
        near = [one.margin is not None and one.margin <= 2 * self.tolerance for one in deviations]
        return "WITHIN_ROUNDING" if all(near) else "NOT_REPRODUCED"


def own_deviations(
    own: OwnSteps, arm: Certainty, reference: Certainty, tolerance: int
) -> Iterator[Deviation]:
    """Along an arm's own output: its decisions, those of E*, its probabilities that are not as recorded."""
    expected = own.argmaxes()
    along = "along its own output the ticket decides otherwise than recorded"
    for text, found, recorded in (
        (along, arm, expected),
        (
            "along the ticket's own output embed tuning decides otherwise than recorded",
            reference,
            _patched(expected, own.differs),
        ),
    ):
        if (margin := _widest(found, recorded)) is not None:
            yield Deviation(text, margin)
    pairs = [*zip(arm.p_a, own.p_a, strict=True), *zip(arm.p_b, own.p_b, strict=True)]
    off = max(abs(found - stated) for found, stated in pairs)
    if off > tolerance:
        yield Deviation(f"a probability along its own output is off by {off / UNIT:.2e}")


def margins(found: Certainty) -> list[int]:
    """The two largest probabilities at each step, subtracted, in units of 1e-9."""
    return [a - b for a, b in zip(found.p_a, found.p_b, strict=True)]


def _patched(tokens: Sequence[int], changes: Sequence[tuple[int, int]]) -> list[int]:
    """``tokens`` with other ones at the steps that ``changes`` lists."""
    other = dict(changes)
    return [other.get(t, token) for t, token in enumerate(tokens)]


def _widest(found: Certainty, recorded: Sequence[int]) -> int | None:
    """The largest margin of a decision that is not as recorded; None if all are."""
    steps = zip(found.argmax, recorded, margins(found), strict=False)  # found may end earlier
    return max((margin for said, wanted, margin in steps if said != wanted), default=None)


def _uncertified(recorded: str, run: Redecided, step: int, law: StrengthLaw) -> Iterator[Deviation]:
    """That labels along the path no longer certify a step that the recorded ones certify."""
    made = run.labels[step]
    if not decision(recorded, law.n, law.g).certified or decision(made, law.n, law.g).certified:
        return
    ends, between = {Fraction(0): margins(run.arm), Fraction(1): margins(run.reference)}, iter(run.between)
    apart = (ends[t] if t in ends else next(between) for t in path_law(law.n, law.g).strengths)
    labels = zip(decode(recorded, law.n, law.g), decode(made, law.n, law.g), apart, strict=True)
    text = f"the labels along the path are {made} and do not certify the step"
    yield Deviation(text, max(margin[step] for before, after, margin in labels if before != after))


def _decided(who: str, found: Certainty, recorded: Sequence[int], step: int) -> Iterator[Deviation]:
    """Decisions up to ``step`` that are not as recorded."""
    if (margin := _widest(found, recorded[:step])) is not None:
        at = next(t for t in range(step) if found.argmax[t] != recorded[t])
        yield Deviation(f"{who} decides differently already at step {at}", margin)
    if found.argmax[step] != recorded[step]:
        text = f"{who} says {found.argmax[step]}, recorded is {recorded[step]}"
        yield Deviation(text, found.p_a[step] - found.p_b[step])
