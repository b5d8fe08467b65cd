"""Judges of what evidence says its text is: records, units, sentences used before; in gate and checker.

See :mod:`proofs_checks.mutations.judges`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

from msgspec.structs import replace

from certify.base.errors import CertifyError
from certify.evidence.read import LossRecord, parse_manifest
from proofs_checks.worlds import outlines, synthetic

Fact = tuple[str, bool]
Json = Any

TUNED: Final = "f" * 16
"""Digest of a sentence that tuning used, and no text holds."""

_ARMS: Final = [synthetic.arm("base", "base", table_sha256=synthetic.BASE_TABLE)]


def code_of(action: Callable[[], Any]) -> str:
    """The code of the error in which an action ends; empty if it ends in none."""
    try:
        action()
    except CertifyError as error:
        return error.code
    return ""


def _window(number: int, unit: int, **fields: Json) -> Json:
    """A window of its own, cut from two lines that the windows of a unit share."""
    lines = sorted(synthetic.digest(f"line {unit}.{j}")[:16] for j in range(2))
    return synthetic.window(number, {"base": 10**9}, unit=str(unit)) | {"lines": lines} | fields


_TEXT: Final = [_window(0, 0), _window(1, 0), _window(2, 1)]

_MALFORMED: Final[Mapping[str, Json]] = {
    "a window named in words": {"window": "words"},
    "a window cut from nothing": {"lines": []},
    "lines in words": {"lines": ["words"]},
    "a line twice": {"lines": [TUNED, TUNED]},
    "lines in any order": {"lines": [TUNED, "0" * 16]},
}


def judge_records(m: Any) -> Iterator[Fact]:
    """Windows of unrelated text as records: what each must say, and that none is there twice."""

    def ends(*records: Json) -> str:
        parse = m.RecordParser(parse_manifest(synthetic.manifest(records, _ARMS)))
        return code_of(lambda: [parse(record, "a record") for record in records])

    yield "windows of two units", ends(*_TEXT) == ""
    for fault, fields in _MALFORMED.items():
        yield fault, ends(_TEXT[0] | fields) == "EVIDENCE_MALFORMED"
    copied = _window(3, 7, window=_TEXT[0]["window"])
    yield "a copy under another name", ends(*_TEXT, copied) == "EVIDENCE_DUPLICATE"


def judge_content(m: Any) -> Iterator[Fact]:
    """What units are named by: their text, and nothing that a model did with it."""
    one = LossRecord("w", "0", "b" * 16, (TUNED,), 10, {"base": 5, "t": 9})
    other = replace(one, window="a" * 16)
    named = hashlib.sha256(f"{'a' * 16},{'b' * 16}".encode()).hexdigest()
    yield "a unit is named by its windows", m.unit_key([one, other]) == named
    for fields in ({"id": "x", "unit": "y"}, {"tokens": 11}, {"nats": {"base": 6, "t": 9}}):
        changed = replace(one, **fields)
        yield f"whatever their {', '.join(fields)}", m.unit_key([other, changed]) == named
    pair = SimpleNamespace(source="s" * 16)
    yield "a sentence by its source", m.record_content(pair) == pair.source


def _loss_records() -> list[LossRecord]:
    return [
        LossRecord(record["id"], record["unit"], record["window"], tuple(record["lines"]), 10, {"base": 1})
        for record in _TEXT
    ]


def judge_lines(m: Any) -> Iterator[Fact]:
    """Lines of unrelated text that stand in two units, or were used."""
    records, used = _loss_records(), {"tuning": frozenset({TUNED})}
    line = records[0].lines[1]
    yield "windows of a unit share lines", code_of(partial(m.check_split, records, used)) == ""
    found = m.check_split(records, used | {"pretraining": frozenset({line})})
    yield "lines are counted, once", (found.sentences, found.pretraining) == (4, 1)
    shared = [*records[:2], replace(records[2], lines=(line, *records[2].lines))]
    ends = code_of(partial(m.check_split, shared, used))
    yield "a line in a second unit", ends == "EVALUATION_DUPLICATES"
    for role in ("tuning", "scan", "choice", "order"):
        banned = used | {role: frozenset({TUNED, line})}
        ends = code_of(partial(m.check_split, records, banned))
        yield f"a line that was used for {role}", ends == "DATA_OVERLAP"
    yield "nothing says what tuning used", m.check_split(records, {"scan": frozenset({TUNED})}) is None


def _evidence(used: Mapping[str, frozenset[str]], *, kind: str = "loss") -> Any:
    """Unrelated text, or translations, with these lists of used sentences."""
    if kind == "loss":
        made = outlines.windows([(0, 10)] * 3)
        made.records = _loss_records()
    else:
        made = outlines.evidence([outlines.arm("t")], {"t": [outlines.RIGHT] * 3})
    made.used, made.manifest.kind = used, kind
    return made


def judge_report(m: Any) -> Iterator[Fact]:
    """That every text is held against what was used, also where another text or the choice says so."""
    m.check_binding = lambda *_, **__: None
    about = SimpleNamespace(**vars(outlines.subject()), chosen_on=frozenset[str]())
    tuned = {"tuning": frozenset({TUNED})}
    line = _loss_records()[2].lines[0]
    good = _evidence(tuned)
    found = m._claims(good, about, m.DELTA)
    yield "what losses support", [claim.kind for claim in found] == ["data-split", "unrelated-loss"]
    other = _evidence({"tuning": frozenset({TUNED, line})}, kind="translation")
    yield "two texts that share nothing", code_of(lambda: m.check_splits([good, good])) == ""
    yield "another text says what was used", code_of(lambda: m.check_splits([good, other])) == "DATA_OVERLAP"
    other.used, good.used = tuned, {"tuning": frozenset({TUNED, "s1"})}
    yield "and of that text, this one", code_of(lambda: m.check_splits([other, good])) == "DATA_OVERLAP"


def judge_split_claim(m: Any) -> Iterator[Fact]:
    """What one text says about the sentences and lines that were used."""
    about = SimpleNamespace(**vars(outlines.subject()), chosen_on=frozenset[str]())
    good = _evidence({"tuning": frozenset({TUNED})})
    split = m.split_claim(good, about)
    yield "lines are counted", (split.code, split.n) == ("DISJOINT", 4)
    silent = m.split_claim(_evidence({"scan": frozenset({TUNED})}), about)
    yield "nothing says what tuning used", silent.code == "USED_NOT_LISTED"
    about.chosen_on = frozenset({_loss_records()[2].lines[0]})
    ends = code_of(lambda: m.split_claim(good, about))
    yield "the ticket was chosen on a line", ends == "DATA_OVERLAP"


def judge_item(m: Any) -> Iterator[Fact]:
    """The item of the gate about used sentences, over texts of both kinds."""
    about = SimpleNamespace(**vars(outlines.subject()), chosen_on=frozenset[str]())
    tuned, nothing = {"tuning": frozenset({TUNED})}, {"tuning": frozenset[str]()}
    overlap = {"tuning": frozenset({TUNED, _loss_records()[0].lines[0]})}
    for kinds, used, outcome, code in (
        (("translation", "loss"), (tuned, tuned), "pass", "DISJOINT"),
        (("loss",), (tuned,), "pass", "DISJOINT"),
        (("translation", "loss"), (tuned, nothing), "missing", "USED_NOT_LISTED"),
        (("translation", "loss"), (nothing, tuned), "missing", "USED_NOT_LISTED"),
        (("translation", "loss"), (tuned, overlap), "invalid", "DATA_OVERLAP"),
        (("translation", "loss"), (overlap, tuned), "invalid", "DATA_OVERLAP"),
        (("translation", "loss"), (overlap, nothing), "invalid", "DATA_OVERLAP"),
    ):
        texts = [_evidence(one, kind=kind) for kind, one in zip(kinds, used, strict=True)]
        item = m._split(texts, about)
        listed = [sorted(map(len, one.values())) for one in used]
        yield f"{kinds} with lists of {listed}", (str(item.outcome), item.code) == (outcome, code)


def judge_checker_text(m: Any) -> Iterator[Fact]:
    """The same of the independent checker, from files."""

    def ends(records: Sequence[Json], used: Sequence[str] = (TUNED,), chosen: str = "") -> str:
        # What somebody who would have evidence accepted writes: whatever is asked for, and all in one folder.
        with TemporaryDirectory() as folder:
            try:
                path = synthetic.write(Path(folder), records, _ARMS, used={"tuning": used}, reference=None)
                evidence = m.Evidence(path)
                evidence.disjoint([evidence], frozenset({chosen}))
            except m.Stop as stop:
                return str(stop.args[1])
        return ""

    yield "windows of two units", ends(_TEXT) == ""
    for fault, fields in _MALFORMED.items():
        yield fault, ends([_TEXT[0] | fields]) == "MALFORMED"
    yield "a field of translations", ends([_TEXT[0] | {"source": "0" * 16}]) == "MALFORMED"
    copied = _window(3, 7, window=_TEXT[0]["window"])
    yield "a copy under another name", ends([*_TEXT, copied]) == "EVIDENCE_DUPLICATE"
    stray = _window(3, 7, lines=_TEXT[0]["lines"])
    yield "a line in a second unit", ends([*_TEXT, stray]) == "EVALUATION_DUPLICATES"
    line = _TEXT[2]["lines"][0]
    yield "a line that was tuned on", ends(_TEXT, sorted((line, TUNED))) == "DATA_OVERLAP"
    yield "a line that the ticket was chosen on", ends(_TEXT, chosen=line) == "DATA_OVERLAP"
    yield "nothing says what tuning used", ends(_TEXT, ()) == "USED_NOT_LISTED"
    changed = _TEXT[0] | {"tokens": 9, "nats": {"base": 1}}
    named = m.content(_TEXT[0]) == m.content(changed) == _TEXT[0]["window"]
    yield "a unit is named by its windows", named
    yield from _judge_audit(m)


def _judge_audit(m: Any) -> Iterator[Fact]:
    """Which texts the checker asks: those of every role."""
    for role in ("evaluation", "other-template", "loss"):
        for code, status in (("", ""), ("DATA_OVERLAP", "INVALID"), ("USED_NOT_LISTED", "INCONCLUSIVE")):

            def disjoint(*_: Any, code: str = code, status: str = status) -> None:
                m.need(not code, code, status)

            text = SimpleNamespace(role=role, e=SimpleNamespace(disjoint=disjoint), compute=lambda *_: None)
            audit = _Audit(m, text)
            with suppress(m.Stop):
                m.Audit.examine(audit)
            yield f"{role} that ends in {code}", audit.items["evidence.split"] == (status, code)


class _Audit:
    """An audit of a ticket without rows, with one text."""

    def __init__(self, m: Any, text: Any) -> None:
        self._answer, self._text = m.answer, text
        self.items: dict[str, Any] = {"released.rows": ("", "")}
        self.moved: dict[int, Any] = {}
        self.ids, self.rows, self.reference = list[int](), list[bytes](), list[bytes]()

    def ask(self, name: str, question: Callable[..., Any], *about: Any) -> Any:
        """As the real one does."""
        value, self.items[name] = self._answer(question, *about)
        return value

    def certificate(self) -> Json:
        """The least that is looked at."""
        return {"parameters": {"delta": "0.05"}}

    def gather(self, _: Json) -> list[Any]:
        """The text."""
        return [self._text]

    def chosen(self) -> set[str]:
        """The ticket binds no choice."""
        return set()

    def proofs(self, _: Json) -> None:
        """None is named."""

    def compared(self, _: Json) -> None:
        """Nothing is stated."""


SPLIT_JUDGES: Mapping[str, tuple[Callable[[Any], Iterator[Fact]], ...]] = {
    "certify.evidence.record": (judge_records,),
    "certify.evidence.read": (judge_content,),
    "certify.evidence.split": (judge_lines,),
    "certify.claims.every": (judge_report,),
    "certify.claims.exact": (judge_split_claim,),
    "certify.gate.evidence": (judge_item,),
    "certify.checker": (judge_checker_text,),
}
"""Judges of each module."""
