"""Segments: the part of a prompt that a position belongs to, defined once for gates and for counts.

A position belongs to exactly one segment. ``source`` is the sentence to translate. ``instruction`` is the
rest of the prompt: the token that begins the sequence, the instruction, and the *frame*, that is the labels
and line breaks around the two. ``target`` is what was generated. A token that crosses the border of the
sentence belongs to the source.
"""

from __future__ import annotations

from typing import Final

from certify.evidence.manifest import Segment
from certify.ticket.templates import Example

SEGMENTS: Final[tuple[Segment, ...]] = ("instruction", "source", "target")
"""The segments; the code of a position is an index into them."""

INSTRUCTION: Final = SEGMENTS.index("instruction")
SOURCE: Final = SEGMENTS.index("source")
TARGET: Final = SEGMENTS.index("target")


def segments_of(prompt: Example) -> list[int]:
    """Return the segment code of each position of an example, with or without a response."""
    codes = [INSTRUCTION] * prompt.prompt_length + [TARGET] * (len(prompt) - prompt.prompt_length)
    codes[prompt.source.start : prompt.source.stop] = [SOURCE] * len(prompt.source)
    return codes


def frame_of(prompt: Example) -> list[int]:
    """Find the positions of the frame: ``instruction`` less the ids in front and the instruction itself."""
    inside = range(prompt.instruction.start, prompt.instruction.stop)
    return [
        position
        for position, code in enumerate(segments_of(prompt))
        if code == INSTRUCTION and position not in inside and position >= prompt.front
    ]
