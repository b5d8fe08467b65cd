"""From a line of evidence to its record: what is between fields, and between records, is checked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from operator import lt
from typing import Any, Final

from msgspec import ValidationError
from msgspec.json import Decoder, Encoder
from msgspec.structs import replace

from certify.base.errors import InvalidInputError
from certify.base.jsonio import canonical_json, parse_json
from certify.evidence.manifest import BASE_ARM, REFERENCE_ARM, Manifest
from certify.evidence.record import (
    MAX_WITNESSES,
    NO_STEPS,
    UNIT,
    Answer,
    LossRecord,
    Record,
    Steps,
    TranslationRecord,
)
from certify.stats.path import decode

_LONGEST_PROBLEM = 300  # characters: the name of an unknown field may be as long as its line

_DECODERS: Final[dict[str, Decoder[Any]]] = {
    "translation": Decoder(TranslationRecord),
    "loss": Decoder(LossRecord),
}
_ENCODER = Encoder(order="sorted")  # canonical JSON


def parse_record(value: Any, manifest: Manifest, *, what: str = "record") -> Record:
    """Validate one parsed record by itself; uniqueness is a matter of the file.

    Raises:
        InvalidInputError: ``EVIDENCE_MALFORMED``, naming the field.
    """
    return RecordParser(manifest)(value, what)


class RecordParser:
    """Validates records against one manifest and against the records that it was given before."""

    def __init__(self, manifest: Manifest) -> None:
        """Start a file of records; ``manifest`` says which arms there are and what a unit is."""
        self._manifest = manifest
        self._decode = _DECODERS[manifest.kind].decode
        self._names = frozenset(arm.name for arm in manifest.arms)
        self._on_path = {arm.name for arm in manifest.arms if manifest.path is not None and arm.released}
        self._ids: set[str] = set()
        self._windows: dict[str, str] = {}
        self._units: Counter[str] = Counter()
        self._witnesses = 0
        kind, _, size = manifest.text.unit.partition(":")
        # How many records may share a unit; the units of a loss may be longer than a window.
        self._most = {"sentence": 1, "block": int(size or 0), "document": None}[kind]
        if manifest.kind == "loss":
            self._most = None

    def __call__(self, value: Any, what: str) -> Record:
        """Validate the next record, as parsed JSON, called ``what`` in messages.

        Raises:
            InvalidInputError: ``EVIDENCE_MALFORMED``, naming the field, or ``EVIDENCE_DUPLICATE``.
        """
        try:
            line = canonical_json(value)
        except (TypeError, ValueError) as error:
            raise _malformed(what, str(error)) from error
        return self._checked(self._canonical(line, what), what)

    def read(self, line: bytes, what: str) -> Record:
        """Validate the next record from its line, the line break left out.

        Raises:
            InvalidInputError: as for :meth:`__call__`, and the codes of
                :func:`certify.base.jsonio.parse_json`.
        """
        try:
            record = self._decode(line)
        except ValueError:  # no JSON, no UTF-8, or a wrong type
            record = None
        # Only what is written back byte for byte was read as every reader reads it: no key twice, no null in
        # place of a field. Anything else goes the long way, where a refusal has its reason.
        if record is None or _ENCODER.encode(record) != line:
            record = self._canonical(canonical_json(parse_json(line, what=what)), what)
        return self._checked(record, what)

    def _canonical(self, line: bytes, what: str) -> Record:
        try:
            record: Record = self._decode(line)
        except ValidationError as error:
            said, _, where = str(error).partition(" - at `$")
            raise _malformed(what, f"{where.strip('.`') or 'record'}: {said}") from error
        if _ENCODER.encode(record) != line:
            raise _malformed(what, "expected a field to be left out, not null")
        return record

    def _checked(self, record: Record, what: str) -> Record:
        problem = self._loss(record) if isinstance(record, LossRecord) else self._translation(record)
        if problem:
            raise _malformed(what, problem)
        if record.id in self._ids:
            raise InvalidInputError(f"{what}: the id {record.id!r} occurs twice", code="EVIDENCE_DUPLICATE")
        self._ids.add(record.id)
        if isinstance(record, LossRecord):
            first = self._windows.setdefault(record.window, record.id)
            if first != record.id:
                raise InvalidInputError(
                    f"{what}: {record.id!r} is the window of {first!r} again, which is no new text",
                    code="EVIDENCE_DUPLICATE",
                )
        self._units[record.unit] += 1
        if self._most is not None and self._units[record.unit] > self._most:
            text = f"unit {record.unit!r} has more sentences than a unit of {self._manifest.text.unit}"
            raise _malformed(what, text)
        return record

    def _loss(self, record: LossRecord) -> str:
        """What is wrong between the fields of a loss record; empty if nothing is."""
        if record.nats.keys() != self._names:
            return "nats: expected one number for every arm of the manifest"
        if not _ascending(record.lines):
            return "lines: expected sorted distinct digests"
        return ""

    def _translation(self, record: TranslationRecord) -> str:
        """What is wrong between the fields of a translation record; empty if nothing is."""
        steps, most = record.reference, self._manifest.decoding.max_new_tokens
        if not _ascending(record.prompt):
            return "prompt: expected sorted distinct token ids"
        if problem := _steps(steps, most):
            return f"reference.{problem}"
        if record.arms.keys() != self._names:
            return "arms: expected one answer for every arm of the manifest"
        ours = self._manifest.produced_by is None
        if (steps is NO_STEPS) == ours:
            return "reference: required if this program made the outputs, forbidden otherwise"
        argmaxes = steps.argmaxes()
        target = _of_target(record.arms[BASE_ARM].stats[0])
        for name, answer in record.arms.items():
            problem = _answer(answer, name, argmaxes, target, most, ours)
            if problem := problem or self._path(answer, name, argmaxes) or self._own(answer, name):
                return f"arms.{name}.{problem}"
        reference = record.arms[REFERENCE_ARM]
        if ours and reference.length != len(steps.tokens):
            return "arms.reference.length: expected the number of reference.tokens"
        # Whoever decides as the reference does has an equal answer.
        record.arms[REFERENCE_ARM] = replace(reference, stated_differs=())
        self._witnesses += record.witness is not None
        if self._witnesses > MAX_WITNESSES:
            return f"witness: expected at most {MAX_WITNESSES} in a file"
        return ""

    def _path(self, answer: Answer, name: str, argmaxes: tuple[int, ...]) -> str:
        """What is wrong with the labels of an arm along the path; empty if nothing is."""
        law, actual = self._manifest.path, dict(answer.differs)
        if (answer.path is not None) != (name in self._on_path):
            return "path: expected of every arm of a ticket if the manifest has one, and of no other"
        if law is None or answer.path is None:
            return ""
        if len(answer.path) != len(argmaxes):
            return "path: expected labels for every step"
        for t, text in enumerate(answer.path):
            try:
                labels = decode(text, law.n, law.g)
            except InvalidInputError as error:
                return f"path, step {t}: {error}"
            # At strength 0 the arm decides, at 1 the reference.
            middle = law.n // 2
            if (labels[middle], labels[middle + law.g]) != (actual.get(t, argmaxes[t]), argmaxes[t]):
                return f"path, step {t}: expected the decisions of arm and reference at strengths 0 and 1"
        return ""

    def _own(self, answer: Answer, name: str) -> str:
        """What is wrong with the steps of an arm along its own output; empty if nothing is."""
        own, manifest = answer.own, self._manifest
        if (own is not None) != (name in (manifest.margins or ())):
            return "own: expected of the arms under margins in the manifest, and of no other"
        if own is None:
            return ""
        if len(own.tokens) != answer.length:
            return "own.tokens: expected as many ids as length says"
        problem = _steps(own, manifest.decoding.max_new_tokens)
        if not problem and not _changes(own.differs, own.argmaxes()):
            problem = f"differs: {_CHANGES}"
        return problem and f"own.{problem}"


_CHANGES = "expected pairs (step, token) with increasing steps, each token different from the recorded one"


def _steps(steps: Steps, most: int) -> str:
    """What is wrong between the fields of steps; empty if nothing is."""
    if len(steps.tokens) > most:
        return f"tokens: expected at most {most} ids, max_new_tokens"
    # Rounding down and up moves each by at most a unit: two equal ones may come to lie two apart.
    if not len(steps.p_a) == len(steps.p_b) == len(steps.tokens) or any(
        b > a + 2 or a + b > UNIT + 1 for a, b in zip(steps.p_a, steps.p_b, strict=True)
    ):
        return "p_a and p_b: expected the two largest probabilities of every step"
    return "" if _changes(steps.top, steps.tokens) else f"top: {_CHANGES}"


def _answer(
    answer: Answer, name: str, argmaxes: tuple[int, ...], target: tuple[int, ...], most: int, ours: bool
) -> str:
    """What is wrong between the fields of an arm's answer; empty if nothing is. Ours: no other engine's."""
    if ours and (answer.ended is None or not answer.length):
        return "ended and length: expected unless another engine made the outputs"
    if answer.length > most:
        return f"length: expected at most {most}, max_new_tokens"
    if len(set(answer.stats)) != len(answer.stats) or not all(map(_possible, answer.stats)):
        return "stats: expected distinct, possible statistics"
    # All arms are scored against one translation.
    if any(_of_target(vector) != target for vector in answer.stats):
        return "stats: expected statistics against the same translation"
    if set(answer.rules) != set(range(len(answer.stats))):
        return "rules: expected indices that name every vector of stats"
    if (answer.stated_differs is not None) != (ours and name != REFERENCE_ARM):
        return "differs: expected of every arm but the reference, unless another engine made the outputs"
    if not _changes(answer.differs, argmaxes):
        return f"differs: {_CHANGES}"
    if (answer.tokens is not None) != (ours and name == BASE_ARM):
        return "tokens: expected of the arm base, and of no other, unless another engine made the outputs"
    if answer.tokens is not None and len(answer.tokens) != answer.length:
        return "tokens: expected as many ids as length says"
    return ""


def _ascending(values: tuple[Any, ...]) -> bool:
    return all(map(lt, values, values[1:]))


def _changes(pairs: Iterable[tuple[int, int]], against: tuple[int, ...]) -> bool:
    """Whether steps increase, and each names a token that is not the one ``against`` has there."""
    last = -1
    for step, token in pairs:
        if not last < step < len(against) or against[step] == token:
            return False
        last = step
    return True


def _possible(vector: tuple[int, ...]) -> bool:
    """Whether counts of matches never exceed what there was to match."""
    if vector[6] != vector[0]:
        return False
    if any(map(lt, vector[6:10], vector[2:6])):
        return False
    matches = vector[12::3]
    return not any(map(lt, vector[10::3], matches)) and not any(map(lt, vector[11::3], matches))


def _of_target(vector: tuple[int, ...]) -> tuple[int, ...]:
    return (vector[1], *vector[11::3])  # of the translation alone: its length and its n-gram counts


def _malformed(what: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"{what}: {problem[:_LONGEST_PROBLEM]}", code="EVIDENCE_MALFORMED")
