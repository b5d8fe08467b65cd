"""How many sentences of each text travel in words: one budget for everything that an experiment hands on."""

from __future__ import annotations

from lottery.experiment.plan.plan import ExperimentPlan

_ORDER = ("evaluation", "report", "choice")
"""Roles of texts in the order in which they are served."""


def witness_shares(plan: ExperimentPlan) -> dict[tuple[str, str], int]:
    """Most witnesses of each text in each language pair; ``evaluation.witnesses`` at most in all.

    Texts that claims rest on (role ``evaluation``) come first and share evenly; only what they leave goes to
    the others. A text gets no more than it asks for (``witnesses`` of the text) nor than it has sentences
    (``limit``). Paraphrased templates repeat the sentences of their text, and get none.

    Returns:
        (name of the pair, name of the text) -> number.
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
