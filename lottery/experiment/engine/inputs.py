"""Digests of what an experiment starts from: the base model and the texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from certify.base.jsonio import canonical_json, sha256_bytes, sha256_file
from certify.tables.modeldigest import checkpoint_digest, tokenizer_digest
from certify.ticket.corpus import corpus_digest
from lottery.experiment.engine.context import resolve
from lottery.experiment.plan.plan import SYNTHETIC
from lottery.text.pairsource import read_pairs
from lottery.text.textfile import locate

UNKNOWN = "unknown"
"""Placeholder for the digest of a missing file, which only a dry run accepts."""


@dataclass(slots=True)
class InputDigests:
    """Digests of files from outside the experiment.

    Attributes:
        base: digest of the base model and its tokenizer; empty if a step makes it.
        data: folder of the texts.
        required: whether to refuse missing files instead of using :data:`UNKNOWN`.
    """

    base: str
    data: Path | None
    required: bool = True
    _known: dict[tuple[str, ...], str] = field(default_factory=dict)

    def pairs(self, name: str, languages: tuple[str, str], *, documents: bool = False) -> str:
        """Digest of a parallel text; with ``documents``, also of the document of each line."""

        def compute() -> str:
            pairs = read_pairs(resolve(name, self.data), *languages, documents=documents)
            digest = corpus_digest(pairs)
            if not documents:
                return digest
            return sha256_bytes(canonical_json([digest, [pair.document for pair in pairs]]))

        return self._digest((name, *languages, *(["documents"] if documents else [])), compute)

    def lines(self, name: str) -> str:
        """Digest of a monolingual text.

        Raises:
            UsageError: the file is missing.
        """
        return self._digest((name,), lambda: sha256_file(locate(Path(resolve(name, self.data)))))

    def known(self) -> dict[str, str]:
        """The digests computed so far, by name of the text (and languages)."""
        return {" ".join(key): digest for key, digest in sorted(self._known.items())}

    def _digest(self, key: tuple[str, ...], compute: Callable[[], str]) -> str:
        if key[0].startswith(f"{SYNTHETIC}:"):
            return key[0]  # the step that makes the text determines its content
        if not self.required:
            return UNKNOWN
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def base_digest(folder: Path) -> str:
    """Compute the digest of a base model: weights, configuration, tokenizer with special tokens.

    Raises:
        UsageError: a file is missing.
        InvalidInputError: a file is malformed.
    """
    return sha256_bytes(canonical_json([checkpoint_digest(folder), tokenizer_digest(folder)]))
