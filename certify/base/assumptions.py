"""The assumptions behind the published theorem and behind claims from evidence, by id (theory §3, §5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Assumption:
    """A condition under which a statement applies to a deployed network, or beyond the sample.

    Attributes:
        id: stable name used in reports and certificates.
        statement: what is assumed.
        status: what is known about it.
    """

    id: str
    statement: str
    status: str


PUBLISHED_ASSUMPTIONS: tuple[Assumption, ...] = (
    Assumption(
        "A-LAW",
        "the predictor sees a changed row only as random draws from the row's law",
        "false for a deployed network: a permuted row has D = 0 and changes the prediction",
    ),
    Assumption(
        "A-SCALAR",
        "each row enters through one scalar draw",
        "interpretive; with d draws a row the bound is V·h and vacuous for every h ≥ 1",
    ),
    Assumption(
        "A-POINT",
        "the softmax gap at the reference stands for the expected gap under the row law",
        "interpretive",
    ),
    Assumption(
        "A-ORDER(V)",
        "along each changed coordinate the decision has total variation at most V (published: 2)",
        "not checked; V = 2 fails already with three classes in a row",
    ),
    Assumption("A-ONE", "one changed row in the input", "false for prompts with several non-ticket tokens"),
    Assumption(
        "A-NULL",
        "a row that is not rejected at level α has D ≤ τ(α) in the population",
        "false: non-rejection is not equivalence",
    ),
)

EVIDENCE_ASSUMPTIONS: tuple[Assumption, ...] = (
    Assumption(
        "A-UNITS",
        "the sentences are independent draws from the domain of use",
        "accepted for corpora of unrelated sentences; sentences of one article are correlated",
    ),
    Assumption(
        "A-BLOCKS",
        "blocks of consecutive lines are independent draws from the domain of use",
        "accepted where documents are not known; weaker than independent lines, and not checked",
    ),
    Assumption(
        "A-DOCUMENTS",
        "documents are independent draws from the domain of use, and their limits were not drawn afterwards",
        "not checkable: who groups sentences after the results can make a mean of units say anything; no"
        " shipped policy takes it",
    ),
    Assumption(
        "A-EVIDENCE",
        "the records are what the named models produced on the named text; the seed was fixed beforehand",
        "not checkable from the records alone; a replay on the model re-executes them",
    ),
    Assumption(
        "A-ENGINE",
        "an engine other than this program made the outputs, from the tables and model that the arms name",
        "the author's word: nothing recorded depends on a table; a replay only counts outputs that differ",
    ),
    Assumption(
        "A-UNTIED",
        "the output head does not share the input table",
        "named where the ticket does not state it; with a tied head every logit moves with the ticket's rows",
    ),
    Assumption(
        "A-ASYMPTOTIC",
        "there are units enough for the law of the limit",
        "no number of units is known to be enough: what rests on it informs, and no policy can accept it",
    ),
)

ASSUMPTIONS: Mapping[str, Assumption] = MappingProxyType(
    {entry.id: entry for entry in (*PUBLISHED_ASSUMPTIONS, *EVIDENCE_ASSUMPTIONS)}
)
"""All assumptions by id."""
