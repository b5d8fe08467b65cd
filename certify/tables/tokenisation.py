"""What a tokenizer makes of text as an engine serves it: ids in front, control tokens, a probe.

A tokenizer here is a loaded fast one of ``transformers`` (:func:`lottery.model.tokenizer.load_tokenizer`).
``tokenizer.json`` alone does not determine these answers: ``tokenizer_config.json`` and the library do, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from certify.base.errors import InvalidInputError
from certify.base.jsonio import canonical_json, sha256_bytes
from certify.tables.safefile import is_file, is_folder
from certify.tables.vocabulary import ordinary

PROBES: Final = (
    "The house is old.",
    " leading space",
    "  two leading spaces",
    "two  spaces,   three spaces",
    "trailing space ",
    "one line\nanother line\n\n",
    "a\ttab and\r\na carriage return",
    "L'àvia, n\u2019hi ha; col\u00b7laborar!",
    "Добрый день",
    "\u03b1\u03b2\u03b3 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "e\u0301 is not \u00e9, nor \uff45",
    "0 12 345 6789 3.14 1,000",
    "\u0915\u094d\u200d\u0937 a\u200db",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "(a) [b] {c} <d> \u00abe\u00bb \u2014 #@$%& ... ?! : ;",
    "Mixed CASE, camelCase",
    "<s>after",
    "before</s> after",
    "a <unk> b",
    "<|endoftext|>after <pad> [SEP]",
)
"""Texts that loaders disagree on: white space, marks, scripts, digits, neighbours of control tokens.

Digests rest on them: they stay as they are.
"""


def probe_digest(tokenizer: Any) -> str:
    """SHA-256 of the canonical JSON of the ids of each of :data:`PROBES`, special tokens included."""
    ids = [list(tokenizer(text, verbose=False)["input_ids"]) for text in PROBES]
    return sha256_bytes(canonical_json(ids))


Probe = Callable[[Path], str | None]
"""Digest of the probe for the tokenizer in a folder; None if it cannot be loaded: certify loads none."""

Tokenisation = Literal["as stated", "not bound", "not compared"]
"""How a tokenizer compares with what is stated: nothing is, or none can be loaded here."""


def check_probe(made: str | None, stated: str | None) -> None:
    """Refuse a tokenizer that makes other ids of the probe than stated; None is not known.

    Raises:
        InvalidInputError: ``TOKENISATION_DIFFERS``.
    """
    if len({made, stated} - {None}) > 1:
        raise InvalidInputError(
            "the tokenizer makes other ids of the probe texts than the ticket, adapter or evidence states:"
            " its tokenizer_config.json or the library is another",
            code="TOKENISATION_DIFFERS",
        )


def compare_tokenizer(stated: str | None, base: Path, probe: Probe | None) -> Tokenisation:
    """Compare the tokenizer in the folder of a base, or beside its file, with a stated digest of the probe.

    Raises:
        InvalidInputError: it makes other ids (``TOKENISATION_DIFFERS``).
    """
    if stated is None:
        return "not bound"
    home = base if is_folder(base) else base.parent
    made = probe(home) if probe and is_file(home / "tokenizer.json") else None
    check_probe(made, stated)
    return "not compared" if made is None else "as stated"


def front_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids that the tokenizer itself puts in front of a text; what it puts behind is not part of a prompt.

    Raises:
        InvalidInputError: with special tokens, a text no longer contains its own ids
            (``TOKENIZER_MALFORMED``).
    """
    plain, whole = (
        list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True)
    )
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(int(i) for i in whole[:start])
    raise InvalidInputError(
        "the tokenizer encodes a text otherwise once it adds special tokens", code="TOKENIZER_MALFORMED"
    )


_MARKER: Final = re.compile(r"[^\w\s].*\w.*[^\w\s]", re.DOTALL)
"""A word between signs, such as ``<think>``, ``[INST]`` or ``<|user|>``."""


class Controls:
    """The control tokens of a tokenizer, unless they are ordinary text such as line breaks.

    These are tokens with a role, and added tokens that are flagged special or spelled like a marker: many
    chat models do not flag ``<think>`` or ``<tool_call>``. Other added tokens are ordinary text: letters that
    a model's vocabulary lacks, words, runs of spaces or dashes.

    Attributes:
        ids: their ids, without the unknown token, which any rare character becomes.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Collect them from a tokenizer."""
        added = tokenizer.added_tokens_decoder.items()
        spelling = {i: one.content for i, one in added if one.special or _MARKER.fullmatch(one.content)}
        spelling |= zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        control = {i: text for i, text in spelling.items() if not ordinary(text)}
        self.ids = frozenset(control) - {tokenizer.unk_token_id}
        self._tokenizer = tokenizer
        self._spelled = re.compile("|".join(map(re.escape, control.values())) or r"(?!)")

    def spelled(self, text: str) -> bool:
        """Whether ``text`` contains the spelling of one."""
        return self._spelled.search(text) is not None

    def held(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text contains one, as it is spelled or once the tokenizer has normalised it."""
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [
            self.spelled(text) or not self.ids.isdisjoint(ids)
            for text, ids in zip(texts, encoded, strict=True)
        ]
