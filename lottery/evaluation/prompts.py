"""Input of every arm of an evaluation: a text under a template, and all that determines an output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from certify.base.errors import NothingToDoError, UsageError
from certify.base.jsonio import canonical_json, sha256_bytes
from certify.evidence.read import Arm, BaseModelRef, Decoding, EvidenceTemplateRef, Producer, TextRef
from certify.tables.tokenisation import probe_digest
from certify.ticket.corpus import Pair, deduplicate, text_digest
from certify.ticket.declared import StrengthLaw
from certify.ticket.templates import Example, Template, encode
from lottery.text.score import Scorer

DOCUMENT: Final = "document"
"""Name of the unit for texts whose lines name their documents."""


@dataclass(frozen=True, slots=True)
class Task:
    """A text to translate, ready to be fed; see :func:`make_task`.

    Attributes:
        pairs: the sentences, without duplicates.
        prompts: their bare prompts.
        labels: field labels at which an output can be cut.
        units: unit of each sentence.
        text: name, digest, unit and attribution of the text.
        languages: codes of source and target.
        template: name and digest.
        tokenizer_sha256: file digest of ``tokenizer.json``.
        probe_sha256: what the tokenizer makes of the probe (:mod:`certify.tables.tokenisation`).
        special_tokens: further settings of the tokenizer that determine outputs; see :func:`special_tokens`.
        prompts_sha256: SHA-256 of the canonical JSON of the ids of all prompts, as fed.
        base: digests of the base model.
        reference_sha256: tensor digest of E* in the served dtype.
        decoding: beams, longest answer, dtype of the arithmetic.
        batch_size: number of prompts decoded together; affects speed, not outputs.
        scorer: computes the statistics.
        path: strengths at which the arms of tickets are asked, too (theory §4b).
        margins: arms to follow along their own outputs, and the t that the ticket of each declares.
        produced_by: another engine that made the outputs; None if they are made here.
    """

    pairs: tuple[Pair, ...]
    prompts: tuple[Example, ...]
    labels: tuple[str, ...]
    units: tuple[str, ...]
    text: TextRef
    languages: tuple[str, str]
    template: EvidenceTemplateRef
    tokenizer_sha256: str
    probe_sha256: str
    special_tokens: Mapping[str, Any]
    prompts_sha256: str
    base: BaseModelRef
    reference_sha256: str
    decoding: Decoding
    batch_size: int
    scorer: Scorer
    path: StrengthLaw | None = None
    margins: Mapping[str, str | None] | None = None
    produced_by: Producer | None = None

    def key(self, arm: Arm) -> Mapping[str, Any]:
        """Everything that determines the part file of an arm, as JSON."""
        path = {} if self.path is None or not arm.released else {"path": self.path.model_dump(mode="json")}
        own = {"margins": True} if arm.name in (self.margins or ()) else {}
        return (
            path
            | own
            | {
                "procedure": "translation/1",
                "arm": arm.model_dump(mode="json", include={"kind", "table_sha256", "model_sha256", "gate"}),
                "base": self.base.model_dump(mode="json"),
                "reference": self.reference_sha256,
                "tokenizer": self.tokenizer_sha256,
                "special_tokens": dict(self.special_tokens),
                "prompts": self.prompts_sha256,
                "template": self.template.sha256,
                "text": self.text.sha256,
                "languages": list(self.languages),
                "decoding": self.decoding.model_dump(mode="json"),
                "signatures": self.signatures,
            }
        )

    @property
    def signatures(self) -> dict[str, str]:
        """Settings behind the scores."""
        return {"bleu": self.scorer.bleu_signature, "chrf": self.scorer.chrf_signature}


def special_tokens(tokenizer: Any) -> dict[str, Any]:
    """Tokenizer settings that determine prompts and outputs but may not come from ``tokenizer.json``.

    Args:
        tokenizer: a tokenizer of ``transformers``.

    Returns:
        Ids that begin (``bos``) and end (``eos``) a sequence, None if there are none. ``clean_up`` tells part
        files apart in which spaces were cleaned up.
    """
    return {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "clean_up": False,
    }


def make_task(
    pairs: Sequence[Pair],
    languages: tuple[str, str],
    template: Template,
    tokenizer: Any,
    *,
    name: str,
    unit: str,
    attribution: str,
    tokenizer_sha256: str,
    base: BaseModelRef,
    reference_sha256: str,
    decoding: Decoding,
    batch_size: int = 64,
    scorer: Scorer | None = None,
    path: StrengthLaw | None = None,
    margins: Mapping[str, str | None] | None = None,
    produced_by: Producer | None = None,
) -> Task:
    """Prepare a text: drop repeated sentences, encode prompts, number units.

    Args:
        pairs: the text, in its order.
        languages: codes of source and target.
        template: prompt template.
        tokenizer: a fast tokenizer of ``transformers``.
        name: name of the text.
        unit: ``sentence``, ``block:N`` for N consecutive sentences, or ``document`` for the documents that
            the pairs name.
        attribution: owner of the text; if empty, evidence includes no sentence in words.
        tokenizer_sha256: file digest of ``tokenizer.json``.
        base: digests of the base model.
        reference_sha256: tensor digest of E* in the served dtype.
        decoding: beams, longest answer, dtype of the arithmetic.
        batch_size: number of prompts decoded together.
        scorer: computes the statistics; None means BLEU with tokenizer 13a.
        path: strengths at which to ask the arms of tickets, too.
        margins: arms to follow along their own outputs (:class:`Task`).
        produced_by: another engine that made the outputs.

    Raises:
        UsageError: the unit is unknown (``UNIT``), a pair does not name its document (``DOCUMENT_ID``), a
            language is unknown, or the tokenizer is slow.
        NothingToDoError: the text has no sentences.
    """
    kept = deduplicate(pairs)
    if not kept:
        raise NothingToDoError(f"{name} contains no sentences", code="NO_EXAMPLES")
    units = units_of(kept, unit)
    prompts = tuple(encode(template, kept, tokenizer, *languages, response=False))
    return Task(
        pairs=tuple(kept),
        prompts=prompts,
        labels=template.field_labels(*languages),
        units=units,
        text=TextRef(
            name=name, sha256=text_digest(kept), sentences=len(kept), unit=unit, attribution=attribution
        ),
        languages=languages,
        template=EvidenceTemplateRef(name=template.name, sha256=template.digest()),
        tokenizer_sha256=tokenizer_sha256,
        probe_sha256=probe_digest(tokenizer),
        special_tokens=special_tokens(tokenizer),
        prompts_sha256=sha256_bytes(canonical_json([list(prompt.ids) for prompt in prompts])),
        base=base,
        reference_sha256=reference_sha256,
        decoding=decoding,
        batch_size=batch_size,
        scorer=scorer or Scorer(),
        path=path,
        margins=margins or None,
        produced_by=produced_by,
    )


def units_of(pairs: Sequence[Pair], unit: str) -> tuple[str, ...]:
    """Return the unit of each pair: the number of its block, or the id of its document.

    Raises:
        UsageError: the unit is unknown (``UNIT``), or a pair does not name its document (``DOCUMENT_ID``).
    """
    if unit != DOCUMENT:
        size = _block_size(unit)
        return tuple(str(index // size) for index in range(len(pairs)))
    named = tuple(pair.document for pair in pairs if pair.document is not None)
    if len(named) != len(pairs):
        lacking = next(pair.id for pair in pairs if pair.document is None)
        raise UsageError(
            f"{lacking} does not name its document: read the text with document ids", code="DOCUMENT_ID"
        )
    return named


def _block_size(unit: str) -> int:
    kind, _, size = unit.partition(":")
    if unit == "sentence":
        return 1
    if kind == "block" and size.isascii() and size.isdigit() and 1 <= int(size) < 10**7:
        return int(size)
    raise UsageError(f"the unit must be sentence, block:N or document, not {unit!r}", code="UNIT")
