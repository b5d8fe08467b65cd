"""How often a ticket can act at all: the share of real prompts that feed each of its tokens (theory §6).

Ids are looked for in tokenised prompts, in context: a piece alone and the same piece inside a sentence can
have different ids. A row whose token is never fed cannot change anything (theory §5); a control without such
support is no control.

==================  =================================================================================
segment             positions
==================  =================================================================================
``prompt``          everything before the response
``instruction``     the prompt without the sentence to translate, as a gate counts it
``frame``           of the instruction: labels and line breaks around instruction and sentence
``source``          the sentence to translate
``target``          the response, as far as it is fed: all but its last token
``anywhere``        prompt and target together
==================  =================================================================================

Instruction, source and target are those of :mod:`lottery.text.segments`, in which a gate lets rows act.
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
    """In how many prompts each token of a ticket is fed.

    Attributes:
        ids: the ticket's token ids, strictly increasing.
        prompts: number of prompts, at least 1.
        fed: by segment, for each of ``ids`` the number of prompts in which it is fed there.
        touched: by segment, the number of prompts in which at least one of ``ids`` is fed there.
    """

    ids: tuple[int, ...]
    prompts: int
    fed: Mapping[str, tuple[int, ...]]
    touched: Mapping[str, int]

    def shares(self, segment: str = "anywhere") -> dict[int, Fraction]:
        """Share of prompts in which each id is fed, in [0, 1]."""
        return {
            i: Fraction(count, self.prompts) for i, count in zip(self.ids, self.fed[segment], strict=True)
        }

    def unsupported(self, segment: str = "anywhere") -> tuple[int, ...]:
        """Ids that are fed in no prompt: rows that cannot act there."""
        return tuple(i for i, count in zip(self.ids, self.fed[segment], strict=True) if count == 0)


def of_examples(ids: Sequence[int], examples: Iterable[Example], *, bos: int | None) -> Opportunity:
    """Count over tokenised examples, with or without responses.

    Args:
        ids: the ticket's token ids.
        examples: what :func:`certify.ticket.templates.encode` gives.
        bos: id that begins a sequence, which is no part of the frame; None if the tokenizer has none.

    Raises:
        UsageError: no ids, or one twice.
        NothingToDoError: no examples.
    """
    chosen = tuple(sorted(ids))
    wanted = frozenset(chosen)
    if not chosen or len(wanted) != len(chosen):
        raise UsageError("opportunity is counted for at least one id, and for each once", code="ID_DUPLICATE")
    fed = {segment: dict.fromkeys(chosen, 0) for segment in SEGMENTS}
    touched = dict.fromkeys(SEGMENTS, 0)
    number = 0
    for example in examples:
        number += 1
        prompt = _segments(example, bos)
        for segment in SEGMENTS:
            met = wanted & prompt[segment]
            touched[segment] += bool(met)
            for token in met:
                fed[segment][token] += 1
    if not number:
        raise NothingToDoError("there is no prompt in which a token could be fed", code="NO_PROMPTS")
    counts = {segment: tuple(fed[segment][i] for i in chosen) for segment in SEGMENTS}
    return Opportunity(chosen, number, counts, touched)


def _segments(example: Example, bos: int | None) -> dict[str, frozenset[int]]:
    prompt = example.ids[: example.prompt_length]
    # The response's last token is never fed; with an end-of-sentence token that is the last one.
    target = frozenset(example.ids[example.prompt_length : -1])
    codes = segments_of(example)[: example.prompt_length]
    return {
        "prompt": frozenset(prompt),
        "instruction": frozenset(i for i, code in zip(prompt, codes, strict=True) if code == INSTRUCTION),
        "frame": frozenset(prompt[position] for position in frame_of(example, bos)),
        "source": frozenset(i for i, code in zip(prompt, codes, strict=True) if code == SOURCE),
        "target": target,
        "anywhere": frozenset(prompt) | target,
    }
