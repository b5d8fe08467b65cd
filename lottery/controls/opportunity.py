"""Opportunity: the share of real prompts that feed each token of a ticket (theory §6).

Ids are counted in tokenised prompts, in context, because a piece can have one id alone and other ids inside a
sentence. A row whose token is never fed changes nothing (theory §5). A control whose rows are never fed
controls nothing.

==================  =================================================================================
segment             positions
==================  =================================================================================
``prompt``          everything before the response
``instruction``     the prompt without the sentence to translate, as for gates
``frame``           within ``instruction``: labels and line breaks around instruction and sentence
``source``          the sentence to translate
``target``          the part of the response that is fed: all but its last token
``anywhere``        prompt and target together
==================  =================================================================================

Instruction, source and target are the segments of :mod:`lottery.text.segments`, which gates use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from certify.base.errors import NothingToDoError, UsageError
from certify.ticket.templates import Example
from lottery.text.segments import INSTRUCTION, SOURCE, frame_of, segments_of

SEGMENTS = ("prompt", "instruction", "frame", "source", "target", "anywhere")
"""Segments of an example, in the order in which reports list them."""


@dataclass(frozen=True, slots=True)
class Opportunity:
    """Number of prompts that feed each token of a ticket.

    Attributes:
        ids: the ticket's token ids, strictly increasing.
        prompts: number of prompts, at least 1.
        fed: by segment, for each of ``ids`` the number of prompts that feed it there.
        touched: by segment, the number of prompts that feed at least one of ``ids`` there.
    """

    ids: tuple[int, ...]
    prompts: int
    fed: Mapping[str, tuple[int, ...]]
    touched: Mapping[str, int]

    def shares(self, segment: str = "anywhere") -> dict[int, Fraction]:
        """Share of prompts that feed each id, in [0, 1]."""
        return {
            i: Fraction(count, self.prompts) for i, count in zip(self.ids, self.fed[segment], strict=True)
        }

    def unsupported(self, segment: str = "anywhere") -> tuple[int, ...]:
        """Ids that no prompt feeds: rows without effect there."""
        return tuple(i for i, count in zip(self.ids, self.fed[segment], strict=True) if count == 0)


def of_examples(ids: Sequence[int], examples: Iterable[Example]) -> Opportunity:
    """Count over tokenised examples, with or without responses.

    Raises:
        UsageError: there are no ids, or one occurs twice.
        NothingToDoError: there are no examples.
    """
    chosen = tuple(sorted(ids))
    wanted = frozenset(chosen)
    if not chosen or len(wanted) != len(chosen):
        raise UsageError("expected at least one id, and no id twice", code="ID_DUPLICATE")
    fed = {segment: dict.fromkeys(chosen, 0) for segment in SEGMENTS}
    touched = dict.fromkeys(SEGMENTS, 0)
    number = 0
    for example in examples:
        number += 1
        prompt = _segments(example)
        for segment in SEGMENTS:
            met = wanted & prompt[segment]
            touched[segment] += bool(met)
            for token in met:
                fed[segment][token] += 1
    if not number:
        raise NothingToDoError("there are no prompts to count in", code="NO_PROMPTS")
    counts = {segment: tuple(fed[segment][i] for i in chosen) for segment in SEGMENTS}
    return Opportunity(chosen, number, counts, touched)


def _segments(example: Example) -> dict[str, frozenset[int]]:
    prompt = example.ids[: example.prompt_length]
    # The last token of a response, usually the end of sentence, is never fed.
    target = frozenset(example.ids[example.prompt_length : -1])
    codes = segments_of(example)[: example.prompt_length]
    return {
        "prompt": frozenset(prompt),
        "instruction": frozenset(i for i, code in zip(prompt, codes, strict=True) if code == INSTRUCTION),
        "frame": frozenset(prompt[position] for position in frame_of(example)),
        "source": frozenset(i for i, code in zip(prompt, codes, strict=True) if code == SOURCE),
        "target": target,
        "anywhere": frozenset(prompt) | target,
    }
