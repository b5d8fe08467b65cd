"""Select rows from a scan by a rule, with everything needed to repeat the choice (theory §2).

==================  =========================================================================================
rule                chooses
==================  =========================================================================================
``ks``              rows that the corrected test rejects at ``alpha``
``distance:k``      the k rows with the largest D (smallest p), among those with D > 0
``norm:k``          the k rows with the largest norm of the shift, among those that moved
``frequency:k``     the k most frequent tokens, among those that occur
``template:en-ca``  the rows that the prompt template itself feeds, for a pair of languages (its counts > 0)
``random:k``        k rows at random: those with the smallest SHA-256 of ``SEED:ID`` (decimal, ASCII)
``ids:1,2,3``       these rows
``published:PAIR``  the ticket reported for a language pair of the paper (LLaMA-1, 32,000 rows)
==================  =========================================================================================

Ties go to the smaller id. Searching rules do not see excluded rows, and these do not count as tests. Naming a
special token in ``ids:`` includes it (a ticket of BOS alone is a control, theory §6). Naming an id that the
caller excludes is an error.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError, UsageError
from certify.base.records import Correction, Excluded, KSResult, Selection
from certify.scan.multiplicity import rejected
from certify.scan.smirnov import critical_count, parse_alpha, threshold

if TYPE_CHECKING:
    from certify.tables.vocabulary import Vocabulary

BEYOND = "beyond the tokenizer"
"""Reason for excluding rows after the tokenizer's last id, which pad the table."""

UNTESTED_LEVEL: Final = Fraction(1, 20)
"""Level of rules that do not test: whoever could choose it could choose what is looked at."""

TOGETHER: Final = "special tokens"
"""Beginning of the reason for excluding many special tokens of one role, which are one group."""

_APART: Final = 8  # special tokens of one role that are still named one by one

NO_PIECE = "no piece in the tokenizer"
"""Reason for excluding rows between the tokenizer's ids that do not belong to a token."""

_COUNT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_IDS = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*", re.ASCII)
_PAIR = re.compile(r"[a-z]{2,3}-[a-z]{2,3}", re.ASCII)
RULES: Final = "ks, distance:k, norm:k, frequency:k, template:PAIR, random:k, ids:1,2,3 or published:PAIR"
"""Every rule, as messages spell them."""

RULE_NAMES: Final = ("ks", "distance", "norm", "frequency", "template", "random", "ids", "published")

COUNTED: Final = ("frequency", "template")
"""Rules that read token counts: over text, or of what a template feeds."""


@dataclass(frozen=True, slots=True)
class Published:
    """The tickets reported in the paper, shipped with the package; not verified.

    ``rows`` is the size of their vocabulary, ``pieces`` maps ids to text, and ``tickets`` maps a language
    pair such as ``en-ca`` to ids.
    """

    note: str
    rows: int
    pieces: Mapping[int, str]
    tickets: Mapping[str, tuple[int, ...]]


def select(
    result: KSResult,
    *,
    rule: str = "ks",
    alpha: str = "0.05",
    correction: Correction = "none",
    vocabulary: Vocabulary | None = None,
    exclude: Sequence[Excluded] = (),
    counts: NDArray[Any] | None = None,
    seed: int | None = None,
    together: bool = True,
) -> Selection:
    """Choose rows of a scanned table.

    Args:
        result: the scan of V rows.
        rule: see the module docstring; recorded in canonical form (``ids:`` sorted).
        alpha: level in (0, 1) as a decimal string. Rules other than ``ks`` do not test; what the published
            criterion needs of a level, its ``h_alpha`` and ``tau``, is that of :data:`UNTESTED_LEVEL`.
        correction: for rule ``ks``.
        vocabulary: names special tokens and rows without a token, which are then excluded.
        exclude: further groups of ids to leave out, with reasons.
        counts: for rules ``frequency:k`` and ``template:PAIR``, non-negative integers ``[V]``.
        seed: for rule ``random:k``, a non-negative integer.
        together: list more than eight special tokens of one role as one group, as tickets do since schema
            version 2.

    Returns:
        The selection; ``excluded`` lists the groups by reason: ``exclude`` first, then special tokens by id,
        then those that are many, then the rows without a token. An id is reported under every reason that
        applies to it.

    Raises:
        UsageError: the rule, level or correction is malformed; an option is missing or not used by the rule;
            k exceeds the number of rows to choose from; an id does not exist, is repeated or is excluded; a
            published ticket is for a table of another size.
        InvalidInputError: the tokenizer is larger than the table, ``counts`` is not as described, or the
            tokenizer's pieces differ from those of the published ticket (``PUBLISHED_MISMATCH``).
    """
    level = parse_alpha(alpha)
    rows = result.rows
    name, _, argument = rule.partition(":")
    _check_options(name, level, correction, counts, seed)
    named = _named(argument, rule) if name == "ids" else np.zeros(0, np.int64)
    from_vocabulary = _vocabulary_groups(vocabulary, rows, together) if vocabulary is not None else ()
    groups = (*exclude, *_without(from_vocabulary, named))
    available = _available(groups, rows)
    canonical = rule
    if rule == "ks":
        candidates = np.flatnonzero(available)
        hits = rejected(result.h[candidates], result.n, level, correction, result.method)
        ids = candidates[hits]
    elif name == "distance":
        ids = _top(result.h, available & (result.h > 0), argument, rule, "have D > 0")
    elif name == "norm":
        ids = _top(result.shift_norm, available & (result.shift_norm > 0), argument, rule, "moved")
    elif name == "frequency" and counts is not None:
        ids = _top(counts, available & (_checked_counts(counts, rows) > 0), argument, rule, "occur")
    elif name == "template" and counts is not None:
        languages(rule)
        ids = np.flatnonzero(available & (_checked_counts(counts, rows) > 0))
    elif name == "random" and seed is not None:
        ids = _random(seed, available, argument, rule)
    elif name == "ids":
        ids = named
        canonical = "ids:" + ",".join(str(i) for i in np.sort(ids))
    elif name == "published":
        ids = _published(argument, rows, vocabulary)
    else:
        raise _unknown(rule)
    return Selection(
        ids=_checked_ids(ids, available),
        rule=canonical,
        alpha=alpha,
        correction=correction,
        method=result.method,
        n=result.n,
        tests=int(available.sum()),
        h_alpha=critical_count(level, result.n, result.method),
        tau=threshold(level, result.n),
        excluded=groups,
        seed=seed,
    )


def languages(rule: str) -> tuple[str, str]:
    """The two languages of a rule ``template:PAIR``.

    Raises:
        UsageError: it names none (``RULE_MALFORMED``).
    """
    pair = rule.partition(":")[2]
    if not _PAIR.fullmatch(pair):
        raise UsageError(f"rule {rule[:60]!r} needs languages, as in template:en-ca", code="RULE_MALFORMED")
    source, _, target = pair.partition("-")
    return source, target


def seeded_order(ids: Iterable[int], seed: int, count: int | None = None) -> list[int]:
    """Sort ``ids`` by the SHA-256 of ``SEED:ID`` (decimal, ASCII): a random order that anyone can reproduce.

    Args:
        ids: the ids.
        seed: a non-negative integer.
        count: how many to return, from the first on; None for all.

    Raises:
        UsageError: the seed is not a non-negative integer (``SEED``).
    """
    if isinstance(seed, bool) or seed < 0:
        raise UsageError(f"the seed must be a non-negative integer, not {seed!r}", code="SEED")
    start = hashlib.sha256(b"%d:" % seed)

    def mark(token_id: int) -> bytes:
        state = start.copy()
        state.update(b"%d" % token_id)
        return state.digest()

    ordered = sorted(ids)  # of equal marks the smaller id comes first
    return heapq.nsmallest(len(ordered) if count is None else count, ordered, key=mark)


def candidates(
    rows: int, vocabulary: Vocabulary | None = None, exclude: Sequence[Excluded] = ()
) -> NDArray[np.bool_]:
    """Mark the rows that a rule may choose, bool ``[V]``: not special, not without a token, not excluded.

    Raises:
        UsageError: an excluded id is not a row of the table (``ID_RANGE``).
        InvalidInputError: the tokenizer is larger than the table (``TOKENIZER_TABLE_SIZE``).
    """
    from_vocabulary = _vocabulary_groups(vocabulary, rows) if vocabulary is not None else ()
    return _available((*exclude, *from_vocabulary), rows)


@lru_cache(maxsize=1)
def published() -> Published:
    """Load the tickets that ship with the package."""
    content = json.loads((files("certify.selection") / "published.json").read_text(encoding="utf-8"))
    return Published(
        note=content["note"],
        rows=content["rows"],
        pieces={int(i): piece for i, piece in content["pieces"].items()},
        tickets={pair: tuple(ids) for pair, ids in content["tickets"].items()},
    )


def _check_options(
    name: str, level: Fraction, correction: Correction, counts: NDArray[Any] | None, seed: int | None
) -> None:
    """Refuse options that the rule does not use: none is silently ignored, and no level is a free label."""
    if correction not in get_args(Correction):
        known = ", ".join(get_args(Correction))
        raise UsageError(f"unknown correction {correction!r}: choose {known}", code="CORRECTION_UNKNOWN")
    if name != "ks" and correction != "none":
        raise UsageError(f"rule {name} does not test: leave the correction at none", code="RULE_OPTION")
    if name != "ks" and level != UNTESTED_LEVEL:
        raise UsageError(
            f"rule {name} does not test: its level is {float(UNTESTED_LEVEL):g}, not one of your choice",
            code="RULE_OPTION",
        )
    if (name == "random") != (seed is not None):
        text = "needs a seed" if name == "random" else "takes no seed"
        raise UsageError(f"rule {name} {text}", code="RULE_OPTION")
    if (name in COUNTED) != (counts is not None):
        text = "needs token counts" if name in COUNTED else "takes no token counts"
        raise UsageError(f"rule {name} {text}", code="RULE_OPTION")


def _vocabulary_groups(vocabulary: Vocabulary, rows: int, together: bool = True) -> tuple[Excluded, ...]:
    if vocabulary.size > rows:
        raise InvalidInputError(
            f"the tokenizer has {vocabulary.size} ids, but the table only {rows} rows",
            code="TOKENIZER_TABLE_SIZE",
        )
    special = sorted(vocabulary.special.items())
    of_role = Counter(text.partition(" ")[0] for _, text in special)
    many = [role for role, count in of_role.items() if together and count > _APART]
    groups = [
        Excluded(f"special: {text.removeprefix('special ')}", (i,))
        for i, text in special
        if text.partition(" ")[0] not in many
    ]
    for role in many:
        ids = tuple(i for i, text in special if text.partition(" ")[0] == role)
        groups.append(Excluded(f"{TOGETHER}: {role}".removesuffix(": special"), ids))
    holes = tuple(sorted(set(range(vocabulary.size)).difference(vocabulary.pieces)))
    if holes:
        groups.append(Excluded(NO_PIECE, holes))
    if vocabulary.size < rows:
        groups.append(Excluded(BEYOND, tuple(range(vocabulary.size, rows))))
    return tuple(groups)


def _without(groups: Sequence[Excluded], named: NDArray[np.int64]) -> Iterator[Excluded]:
    """Remove the ids in ``named`` from the groups and drop empty groups."""
    taken = frozenset(named.tolist())
    for group in groups:
        ids = tuple(i for i in group.ids if i not in taken)
        if ids:
            yield Excluded(group.reason, ids)


def _available(groups: Sequence[Excluded], rows: int) -> NDArray[np.bool_]:
    available = np.ones(rows, dtype=np.bool_)
    for group in groups:
        outside = [i for i in group.ids if not 0 <= i < rows]
        if outside:
            raise UsageError(
                f"excluded id {outside[0]} ({group.reason}) is not a row of a table of {rows}",
                code="ID_RANGE",
            )
        available[list(group.ids)] = False
    return available


def _top(
    score: NDArray[Any], candidates: NDArray[np.bool_], argument: str, rule: str, what: str
) -> NDArray[np.int64]:
    ids = np.flatnonzero(candidates)
    k = _size(argument, rule, ids.size, what)
    # A stable sort keeps ids with equal scores in order; negation is exact for floats and int64.
    return ids[np.argsort(-score[ids], kind="stable")[:k]]


def _checked_counts(counts: NDArray[Any], rows: int) -> NDArray[Any]:
    if counts.shape != (rows,) or counts.dtype != np.int64 or (rows and int(counts.min()) < 0):
        raise InvalidInputError(
            f"token counts must be {rows} non-negative 64-bit integers, one per row", code="COUNTS_MALFORMED"
        )
    return counts


def _random(seed: int, available: NDArray[np.bool_], argument: str, rule: str) -> NDArray[np.int64]:
    ids = np.flatnonzero(available)
    k = _size(argument, rule, ids.size, "are not excluded")
    return np.array(seeded_order(ids.tolist(), seed, k), dtype=np.int64)


def _size(argument: str, rule: str, available: int, what: str) -> int:
    if not _COUNT.fullmatch(argument):
        raise UsageError(f"rule {rule[:60]!r} needs a positive size, as in norm:18", code="RULE_MALFORMED")
    k = int(argument)
    if k > available:
        raise UsageError(f"rule {rule} asks for {k} rows, but only {available} {what}", code="RULE_SIZE")
    return k


def _named(argument: str, rule: str) -> NDArray[np.int64]:
    if not _IDS.fullmatch(argument):
        raise UsageError(
            f"rule {rule[:60]!r} needs non-negative ids separated by commas, as in ids:13,263",
            code="RULE_MALFORMED",
        )
    return np.array([int(i) for i in argument.split(",")], dtype=np.int64)


def _published(pair: str, rows: int, vocabulary: Vocabulary | None) -> NDArray[np.int64]:
    known = published()
    if pair not in known.tickets:
        raise UsageError(
            f"no published ticket for {pair[:40]!r}: choose {', '.join(known.tickets)}",
            code="PUBLISHED_UNKNOWN",
        )
    if rows != known.rows:
        raise UsageError(
            f"published tickets belong to a table of {known.rows} rows (LLaMA-1), not {rows}",
            code="PUBLISHED_MISMATCH",
        )
    ids = known.tickets[pair]
    if vocabulary is not None:
        for i in ids:
            if vocabulary.piece(i) != known.pieces[i]:
                raise InvalidInputError(
                    f"id {i} of the published ticket is {known.pieces[i]!r}, but {vocabulary.piece(i)!r} in"
                    " this tokenizer: the ticket is for another vocabulary",
                    code="PUBLISHED_MISMATCH",
                )
    return np.array(ids, dtype=np.int64)


def _checked_ids(ids: NDArray[np.int64], available: NDArray[np.bool_]) -> tuple[int, ...]:
    chosen = sorted(ids.tolist())
    for i, following in pairwise(chosen):
        if i == following:
            raise UsageError(f"id {i} is named twice", code="ID_DUPLICATE")
    for i in chosen:
        if i >= available.size:
            raise UsageError(f"id {i} is not a row of a table of {available.size}", code="ID_RANGE")
        if not available[i]:
            raise UsageError(f"id {i} is excluded and cannot be selected", code="ID_EXCLUDED")
    return tuple(chosen)


def _unknown(rule: str) -> UsageError:
    return UsageError(f"unknown rule {rule[:60]!r}: choose {RULES}", code="RULE_UNKNOWN")
