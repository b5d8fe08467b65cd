"""One manifest with its records, in memory, the ticket it is about, and whether the two belong together.

A ticket's arm is recognised by the digest of its whole table, a control by what it says it controls; names
decide nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from certify.base.errors import InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes, sha256_bytes
from certify.base.records import Rule
from certify.evidence.choice_record import ChoiceRecord
from certify.evidence.corpus_scores import CorpusSums
from certify.evidence.distances import Distances
from certify.evidence.null_labels import Labels, check_labels
from certify.evidence.read import (
    Arm,
    LossRecord,
    Manifest,
    Record,
    TranslationRecord,
    iter_records,
    parse_manifest,
    read_used,
    record_content,
    unit_key,
    unit_rank,
)
from certify.evidence.sampling import check_drawn
from certify.stats.betting import Design
from certify.stats.path import decode
from certify.ticket.declared import DeclaredClaim
from certify.ticket.schema import Ticket

DISJOINT_ROLES: Final = ("tuning", "scan", "choice", "order")
"""Uses of a sentence that exclude it from evaluation; pretraining does not."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What claims are about: one ticket, the table it makes, and that table's distances to E*.

    Attributes:
        ticket: the ticket.
        table_sha256: tensor digest of the base with the released rows put in, in the served dtype.
        distances: rows of that table that differ from E*, with their KS counts (theory §1: for a transfer the
            rows outside the ticket; for tuned rows the ticket's own, too).
        labels: what labels of null tickets are judged by; None where nothing is decided.
        choice: the record of how the ticket was chosen; None if it binds none.
        calibrated_on: digests of the sentences on which its margin was chosen; empty if it declares none.
    """

    ticket: Ticket
    table_sha256: str
    distances: Distances
    labels: Labels | None = None
    choice: ChoiceRecord | None = None
    calibrated_on: frozenset[str] = frozenset()

    def declared(self, kind: str, comparator: str | None = None) -> DeclaredClaim | None:
        """The first claim of that kind and comparator that the ticket declared, or None."""
        for claim in self.ticket.declared:
            if claim.kind == kind and claim.comparator == comparator:
                return claim
        return None


@dataclass(frozen=True)
class Evidence:
    """A manifest with its records and used sentences, all verified against its digests.

    Attributes:
        manifest: the manifest.
        sha256: file digest of the manifest, by which claims name the evidence.
        records: in file order.
        used: sentence digests by role.
    """

    manifest: Manifest
    sha256: str
    records: tuple[Record, ...]
    used: Mapping[str, frozenset[str]]

    @property
    def design(self) -> Design:
        """Fixed or sequential."""
        return self.manifest.design

    @cached_property
    def units(self) -> dict[str, tuple[TranslationRecord, ...]]:
        """Sentences by unit, ascending by content within a unit. Kind ``translation``.

        Units of a fixed design are named by :func:`certify.evidence.read.unit_key` and ascend by it; those
        of a sequential one keep their names, which the design fixes, and the order in which they were drawn.
        """
        return _by_unit(self.manifest, self.sentences)

    @cached_property
    def corpus(self) -> CorpusSums:
        """Statistics summed by unit and arm, ready for resampling. Kind ``translation``."""
        return CorpusSums(self.units, self.manifest.order_seed)

    @cached_property
    def scores(self) -> dict[tuple[str, Rule], tuple[int, ...]]:
        """Scores of each arm and rule that was asked for, by unit; see
        :func:`certify.evidence.sentence_scores.unit_scores`.

        Cached, because tickets and claims share arms. May cover only the first units.
        """
        return {}

    def check_steps(self) -> None:
        """Refuse outputs that another engine made where their steps are asked for.

        Raises:
            InvalidInputError: ``STEPS_NOT_RECORDED``.
        """
        if self.manifest.produced_by is not None:
            raise InvalidInputError(self.without_steps, code="STEPS_NOT_RECORDED")

    @property
    def without_steps(self) -> str:
        """Why claims about single decisions are missing, and the command that makes them."""
        return (
            f"{self.manifest.produced_by} made the outputs on {self.manifest.text.name}, and no step of them"
            " is recorded: certify evaluate --evidence ... without --outputs"
        )

    @property
    def sentences(self) -> tuple[TranslationRecord, ...]:
        """All sentences in file order. Kind ``translation``."""
        return tuple(self._translations())

    @cached_property
    def windows(self) -> dict[str, tuple[LossRecord, ...]]:
        """Windows by unit, in the order of units. Kind ``loss``."""
        return _by_unit(self.manifest, self._losses())

    def _translations(self) -> Iterator[TranslationRecord]:
        for record in self.records:
            if not isinstance(record, TranslationRecord):
                raise InvalidInputError("these records are no translations", code="EVIDENCE_KIND")
            yield record

    def _losses(self) -> Iterator[LossRecord]:
        for record in self.records:
            if not isinstance(record, LossRecord):
                raise InvalidInputError("these records hold no losses", code="EVIDENCE_KIND")
            yield record


def load(path: Path) -> Evidence:
    """Read a manifest and every file that it names.

    Memory holds all records: some kilobytes for each arm of each sentence.

    Raises:
        UsageError: a file cannot be read.
        InvalidInputError: a file is refused or is not the one of the manifest; units of a sequential design
            were picked (:func:`certify.evidence.sampling.check_drawn`).
    """
    manifest, sha256 = read_head(path)
    records = tuple(iter_records(manifest, path.parent))
    check_drawn(manifest, records)
    return Evidence(manifest, sha256, records, read_used_lists(manifest, path.parent))


def read_head(path: Path) -> tuple[Manifest, str]:
    """The manifest and its file digest; see :func:`load`."""
    data = read_bytes(path, what="evidence manifest", limit=MAX_JSON_BYTES)
    what = f"evidence manifest {path}"
    return parse_manifest(parse_json(data, what=what), what=what), sha256_bytes(data)


def read_used_lists(manifest: Manifest, folder: Path) -> dict[str, frozenset[str]]:
    """Digests of the used sentences by role, from the lists that the manifest names; see :func:`load`."""
    used: dict[str, frozenset[str]] = {}
    for entry in manifest.used:
        used[entry.role] = used.get(entry.role, frozenset()) | read_used(entry, folder)
    return used


def ticket_arm(evidence: Evidence, subject: Subject) -> Arm | None:
    """The arm that served the ticket: its table, its kind, no gate. None if there is none.

    An arm that is called a control is taken only if no other one fits: a null ticket can hold the same rows.

    Raises:
        InvalidInputError: two arms fit equally well (``EVIDENCE_ARMS``).
    """
    fitting = [
        arm
        for arm in evidence.manifest.arms
        if arm.table_sha256 == subject.table_sha256
        and arm.kind == subject.ticket.released.object
        and arm.gate is None
    ]
    best = [arm for arm in fitting if arm.control is None] or fitting
    if len(best) > 1:
        named = ", ".join(arm.name for arm in best)
        raise InvalidInputError(f"several arms serve the ticket's table: {named}", code="EVIDENCE_ARMS")
    return best[0] if best else None


def arms_of_kind(evidence: Evidence, kind: str) -> tuple[Arm, ...]:
    """Arms of that kind that are no control and have no gate, in the order of the manifest."""
    return tuple(
        arm for arm in evidence.manifest.arms if arm.kind == kind and arm.control is None and arm.gate is None
    )


def check_binding(evidence: Evidence, subject: Subject, *, other_template: bool = False) -> None:
    """Refuse evidence about another model, another tokenizer or another template.

    Args:
        evidence: the evidence.
        subject: the ticket.
        other_template: the evidence is meant to have a template other than the ticket's.

    Raises:
        InvalidInputError: ``EVIDENCE_BASE``, ``EVIDENCE_REFERENCE``, ``EVIDENCE_TOKENIZER``,
            ``TOKENISATION_DIFFERS``, ``EVIDENCE_TEMPLATE``, ``EVIDENCE_IDS`` (an arm's ids or labels lie
            beyond the table), or ``NULL_LABEL`` (:func:`certify.evidence.null_labels.check_labels`).
    """
    manifest, ticket = evidence.manifest, subject.ticket

    def refuse(what: str, code: str) -> InvalidInputError:
        return InvalidInputError(f"evidence {manifest.text.name}: {what}", code=code)

    if manifest.base.tensor_sha256 != ticket.base.tensor_sha256:
        raise refuse("it is about a base table other than the ticket's", "EVIDENCE_BASE")
    if manifest.reference is not None and manifest.reference.tensor_sha256 != ticket.reference.tensor_sha256:
        raise refuse("it is about a reference table other than the ticket's", "EVIDENCE_REFERENCE")
    if ticket.tokenizer is not None and manifest.tokenizer_sha256 != ticket.tokenizer.sha256:
        raise refuse("another tokenizer was used than the ticket binds", "EVIDENCE_TOKENIZER")
    if len({ticket.probe_sha256, manifest.tokenizer_probe_sha256} - {None}) > 1:
        raise refuse(
            "its tokenizer made other ids of the probe texts than the ticket's", "TOKENISATION_DIFFERS"
        )
    if manifest.template is not None and ticket.template is not None:
        same = manifest.template.sha256 == ticket.template.sha256
        if same == other_template:
            wanted = "a template other than" if other_template else "the template of"
            raise refuse(f"it must use {wanted} the ticket", "EVIDENCE_TEMPLATE")
    beyond = [arm.name for arm in manifest.arms if arm.ids and arm.ids[-1] >= ticket.base.shape[0]]
    if (law := manifest.path) is not None:
        beyond += [
            name
            for record in evidence.sentences
            for name, answer in record.arms.items()
            for labels in answer.path or ()
            if max(decode(labels, law.n, law.g)) >= ticket.base.shape[0]
        ]
    if beyond:
        raise refuse(f"the arm {beyond[0]} has ids beyond the table", "EVIDENCE_IDS")
    if subject.labels is not None:
        check_labels(manifest.arms, ticket, subject.labels)


_R = TypeVar("_R", TranslationRecord, LossRecord)


def _by_unit(manifest: Manifest, records: Iterable[_R]) -> dict[str, tuple[_R, ...]]:
    found: dict[str, list[_R]] = {}
    for record in records:
        found.setdefault(record.unit, []).append(record)
    units = {unit: tuple(sorted(members, key=record_content)) for unit, members in found.items()}
    if manifest.design == "fixed":
        named: dict[str, tuple[_R, ...]] = {}
        seen = Counter[str]()
        for members in units.values():
            key = unit_key(members)
            named[f"{key}:{seen[key]}" if seen[key] else key] = members
            seen[key] += 1
        return {unit: named[unit] for unit in sorted(named)}
    return {
        unit: units[unit] for unit in sorted(units, key=lambda unit: unit_rank(manifest.order_seed, unit))
    }
