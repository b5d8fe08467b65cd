"""What a tokenizer makes of text as an engine serves it: ids in front, control tokens.

A tokenizer here is a loaded fast one of ``transformers`` (:func:`lottery.model.tokenizer.load_tokenizer`).
``tokenizer.json`` alone does not determine these answers: ``tokenizer_config.json`` and the library do, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from certify.base.errors import InvalidInputError
from certify.tables.vocabulary import ordinary


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


class Controls:
    """The control tokens of a tokenizer: special ones, unless they are ordinary text such as line breaks.

    Attributes:
        ids: their ids, without the unknown token, which any rare character becomes.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Collect added tokens that are flagged special, and tokens with a role."""
        spelling = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
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
