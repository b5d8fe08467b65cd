"""Which part of a prompt a position belongs to: one definition, for what gates open and what counts count.

A position belongs to exactly one segment. ``source`` is the sentence to translate; ``instruction`` is all
the rest of the prompt: the token that begins the sequence, the instruction, and the *frame*, labels and line
breaks around the two; ``target`` is what was generated. A token that reaches over the border of the sentence
belongs to the source.
"""

from __future__ import annotations

from typing import Final

from certify.evidence.manifest import Segment
from certify.ticket.templates import Example

SEGMENTS: Final[tuple[Segment, ...]] = ("instruction", "source", "target")
"""The parts of what is fed; their index is the code of a position."""

INSTRUCTION: Final = SEGMENTS.index("instruction")
SOURCE: Final = SEGMENTS.index("source")
TARGET: Final = SEGMENTS.index("target")


def segments_of(prompt: Example) -> list[int]:
    """Segment code of each position of an example: of a bare prompt, or with its response."""
    codes = [INSTRUCTION] * prompt.prompt_length + [TARGET] * (len(prompt) - prompt.prompt_length)
    codes[prompt.source.start : prompt.source.stop] = [SOURCE] * len(prompt.source)
    return codes


def frame_of(prompt: Example, bos: int | None) -> list[int]:
    """Positions of the frame: of the segment ``instruction`` what is neither the instruction nor ``bos``.

    Args:
        prompt: the example.
        bos: id that begins a sequence; None if the tokenizer has none.
    """
    inside = range(prompt.instruction.start, prompt.instruction.stop)
    return [
        position
        for position, code in enumerate(segments_of(prompt))
        if code == INSTRUCTION and position not in inside and not (position == 0 and prompt.ids[0] == bos)
    ]
