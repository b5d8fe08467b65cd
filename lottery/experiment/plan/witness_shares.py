"""How many sentences of each text are published as readable text: one budget for the whole experiment."""

from __future__ import annotations

from lottery.experiment.plan.plan import ExperimentPlan

_ORDER = ("evaluation", "report", "choice")
"""Roles of texts, in order of priority."""


def witness_shares(plan: ExperimentPlan) -> dict[tuple[str, str], int]:
    """Divide ``evaluation.witnesses`` among all texts: (pair, text) -> largest number.

    Texts that claims rest on (role ``evaluation``) come first and share evenly; the rest goes to the others.
    No text gets more than its own ``witnesses`` or its number of sentences (``limit``). Paraphrased templates
    repeat the sentences of their text and get none.
    """
    left = plan.evaluation.witnesses
    shares: dict[tuple[str, str], int] = {}
    for role in _ORDER:
        wanted = {
            (pair.name, text.name): text.witnesses if text.limit is None else min(text.witnesses, text.limit)
            for text in plan.text
            if text.role == role
            for pair in plan.pairs_of(text)
        }
        shares |= dict.fromkeys(wanted, 0)
        while left and (hungry := [one for one, most in wanted.items() if shares[one] < most]):
            for one in hungry[:left]:
                shares[one] += 1
            left -= len(hungry[:left])
    return shares
