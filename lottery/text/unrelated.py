"""Text outside the task, to compare the loss before and after on (theory §6.6).

Monolingual lines are grouped into *passages* of N consecutive lines; every M-th passage of a file is taken,
so that they spread over it; of these, a limit draws a sample. Repeated lines, and lines used in scanning,
tuning or choosing, are left out first. Two lines are the same if their normalised forms are
(:func:`certify.ticket.corpus.normalise`). A passage is a unit of the evidence: adjacent lines are correlated,
distant passages much less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from certify.base.errors import InvalidInputError, NothingToDoError, UsageError
from certify.tables.tokenisation import Controls, front_ids
from certify.ticket.corpus import Take, drawn, lines_digest, normalise, sentence_digest

DIGEST_DIGITS = 16
"""Hexadecimal digits of a sentence digest that evidence keeps."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Consecutive lines of a text.

    Attributes:
        unit: number of the passage as a string, counted from 0 over the whole file.
        id: origin, such as ``bible.en:11-20``: one-based lines of the file, counting those left out.
        lines: the lines, stripped, none empty.
    """

    unit: str
    id: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines, joined by line breaks."""
        return "\n".join(self.lines)

    @property
    def digests(self) -> tuple[str, ...]:
        """Sorted distinct digests of the lines, first 16 digits, as in lists of used sentences."""
        return tuple(sorted({sentence_digest(line)[:DIGEST_DIGITS] for line in self.lines}))


@dataclass(frozen=True, slots=True)
class UnrelatedText:
    """Passages chosen from a file, and counts of what was left out.

    Attributes:
        name: name of the text.
        passages: in the order of the file.
        unit: ``block:N``, with N lines per passage.
        empty: lines without a letter or digit.
        repeated: lines left out because they had occurred before.
        used: lines left out because they had been used.
        control: lines left out because they contain a control token of the tokenizer.
    """

    name: str
    passages: tuple[Passage, ...]
    unit: str
    empty: int
    repeated: int
    used: int
    control: int = 0

    def left_out(self) -> dict[str, int]:
        """Numbers of lines left out, by reason."""
        reasons = {"empty": self.empty, "repeated": self.repeated, "used_before": self.used}
        return reasons | {"control_token": self.control}

    def digest(self) -> str:
        """The text's digest, as evidence binds it (:func:`certify.ticket.corpus.lines_digest`)."""
        return lines_digest(line for passage in self.passages for line in passage.digests)


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids on which a loss is measured.

    Attributes:
        id: ``PASSAGE/j``, j counted from 0.
        unit: the passage's.
        ids: token ids; the first begins the sequence, all others are predicted.
        lines: sorted distinct digests of the lines of the passage, first 16 digits.
    """

    id: str
    unit: str
    ids: tuple[int, ...]
    lines: tuple[str, ...]


def choose_passages(
    lines: Iterable[str],
    *,
    name: str,
    block: int,
    every: int = 1,
    limit: int | None = None,
    take: Take = "sample",
    used: Set[str] = frozenset(),
    tokenizer: Any = None,
) -> UnrelatedText:
    """Choose passages of ``block`` consecutive lines, every ``every``-th of them, at most ``limit``.

    A line that is left out does not end a passage. Lines after the last complete passage are dropped.

    Args:
        lines: the lines of a text.
        name: its name.
        block: number of lines per passage.
        every: 1 takes all passages, 2 the first, third and so on.
        limit: largest number of passages; None for no limit.
        take: whether ``limit`` draws a sample by digest (:func:`certify.ticket.corpus.drawn`) or takes the
            first.
        used: digests of sentences that no passage may contain, in full or their first 16 digits.
        tokenizer: tokenizer of ``transformers`` whose control tokens no passage may contain; None for any.

    Raises:
        UsageError: ``block``, ``every`` or ``limit`` below 1 (``LIMITS``); a digest of fewer than 16 digits.
        NothingToDoError: no passage is left (``NO_TEXT``).
    """
    if block < 1 or every < 1 or (limit is not None and limit < 1):
        raise UsageError("lines per passage, stride and limit must be at least 1", code="LIMITS")
    if any(len(digest) < DIGEST_DIGITS for digest in used):
        raise UsageError(
            f"digests of used sentences must have at least {DIGEST_DIGITS} digits", code="DIGEST"
        )
    banned = {digest[:DIGEST_DIGITS] for digest in used}
    seen: set[str] = set()
    kept: list[tuple[int, str]] = []
    empty = repeated = taken = 0
    for number, line in enumerate(lines, start=1):
        if not normalise(line):
            empty += 1
            continue
        digest = sentence_digest(line)
        if digest in seen:
            repeated += 1
        elif digest[:DIGEST_DIGITS] in banned:
            taken += 1
        else:
            kept.append((number, line.strip()))
        seen.add(digest)
    whole = len(kept)
    if tokenizer is not None:
        held = Controls(tokenizer).held([line for _, line in kept])
        kept = [entry for entry, control in zip(kept, held, strict=True) if not control]
    starts = range(0, len(kept) - block + 1, block * every)
    passages = [
        Passage(
            unit=str(start // block),
            id=f"{name}:{kept[start][0]}-{kept[start + block - 1][0]}",
            lines=tuple(line for _, line in kept[start : start + block]),
        )
        for start in starts
    ]
    if not passages:
        raise NothingToDoError(f"{name} has fewer than {block} lines that are not used yet", code="NO_TEXT")
    chosen = tuple(drawn(passages, limit, lambda passage: passage.digests, take))
    return UnrelatedText(name, chosen, f"block:{block}", empty, repeated, taken, whole - len(kept))


def passage_windows(passages: Iterable[Passage], tokenizer: Any, *, max_tokens: int) -> list[Window]:
    """Cut passages into windows of at most ``max_tokens`` ids, each starting with a sequence-begin token.

    The windows of a passage without their first ids are exactly its tokens. The first id is the last one that
    the tokenizer puts in front of a text. If it puts none there, it is its sequence-begin token all the same:
    the first token of a window is predicted too, and has to be predicted from something.

    Args:
        passages: the passages.
        tokenizer: a tokenizer of ``transformers`` with a token that begins a sequence.
        max_tokens: longest window, at least 2.

    Raises:
        UsageError: ``max_tokens`` is below 2, or the tokenizer has no such token.
        InvalidInputError: a passage has no tokens.
    """
    front = front_ids(tokenizer)
    begin = front[-1] if front else tokenizer.bos_token_id
    if begin is None:
        raise UsageError("the tokenizer has no token that begins a sequence", code="TOKENIZER_NO_BOS")
    if max_tokens < 2:
        raise UsageError("a window needs at least 2 tokens: one to begin, one to predict", code="LIMITS")
    windows: list[Window] = []
    for passage in passages:
        ids: Sequence[int] = tokenizer(passage.text, add_special_tokens=False, verbose=False)["input_ids"]
        if not ids:
            raise InvalidInputError(f"{passage.id} has no tokens", code="TEXT_MALFORMED")
        step, digests = max_tokens - 1, passage.digests
        for index, start in enumerate(range(0, len(ids), step)):
            part = tuple(int(i) for i in ids[start : start + step])
            windows.append(Window(f"{passage.id}/{index}", passage.unit, (int(begin), *part), digests))
    return windows
