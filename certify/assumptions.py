"""The assumptions behind the published theorem, by id, with what is known of each (theory §3)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that must hold for the published theorem to speak about a deployed network.

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
