"""What evidence says its text is: records, units, and sentences that were used before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

from msgspec.structs import replace

from certify.base.errors import CertifyError
from certify.claims import counts, every
from certify.evidence import load, read, sampling, split
from certify.evidence.load import DISJOINT_ROLES
from certify.evidence.read import LossRecord
from proofs_checks.check import Fact
from proofs_checks.mutations.bug import Judged
from proofs_checks.worlds import outlines, synthetic

Json = Any
Used = Mapping[str, frozenset[str]]

TUNED: Final = "f" * 16
"""Digest of a sentence that tuning used, and no text holds."""

ARMS: Final = [synthetic.arm("base", "base", table_sha256=synthetic.BASE_TABLE)]


def code_of(action: Callable[[], Any]) -> str:
    """The code of the error in which an action ends; empty if it ends in none."""
    try:
        action()
    except CertifyError as error:
        return error.code
    return ""


def window(number: int, unit: int, **fields: Json) -> Json:
    """A window of its own, cut from two lines that the windows of a unit share."""
    lines = sorted(synthetic.digest(f"line {unit}.{j}")[:16] for j in range(2))
    return synthetic.window(number, {"base": 10**9}, unit=str(unit)) | {"lines": lines} | fields


def write(folder: Path, records: Sequence[Json], **fields: Json) -> Path:
    """Evidence about windows in passages of two lines."""
    text = synthetic.manifest(records, ARMS)["text"] | {"unit": "block:2"}
    return synthetic.write(folder, records, ARMS, reference=None, text=text, **fields)


TEXT: Final = [window(0, 0), window(1, 0), window(2, 1)]
"""Three windows in two units."""

MALFORMED: Final[Mapping[str, Json]] = {
    "a window named in words": {"window": "words"},
    "a window cut from nothing": {"lines": []},
    "lines in words": {"lines": ["words"]},
    "a line twice": {"lines": [TUNED, TUNED]},
    "lines in any order": {"lines": [TUNED, "0" * 16]},
}
"""What no window may say."""

COPIED: Final = window(3, 7, window=TEXT[0]["window"])
"""A window of another name and unit that is there already."""

RECORDS: Final = Judged("records", "records of a text, and what its units are called")


def _forgiving(code: str, original: Any, *arguments: Any) -> Iterator[Any]:
    """Records up to the first that is refused with this code."""
    try:
        yield from original(*arguments)
    except CertifyError as error:
        if error.code != code:
            raise


@RECORDS.bug("certify.evidence.read:iter_records")
def _skipped(original: Any, *arguments: Any) -> Iterator[Any]:
    """Readers that skip lines they cannot parse: leaving out a record is a choice of data."""
    return _forgiving("EVIDENCE_MALFORMED", original, *arguments)


@RECORDS.bug("certify.evidence.read:iter_records")
def _copies(original: Any, *arguments: Any) -> Iterator[Any]:
    """Ours, before windows had digests: a copy under another name is no new draw."""
    return _forgiving("EVIDENCE_DUPLICATE", original, *arguments)


@RECORDS.bug("certify.evidence.read:record_content")
def _by_results(_: Any, record: Any) -> str:
    """Ours, before windows had digests: no result may decide the order of units."""
    return record.source if hasattr(record, "source") else str(sorted(record.nats.items()))


@RECORDS.bug("certify.evidence.read:unit_key")
def _by_file(_: Any, records: Sequence[Any]) -> str:
    """Ours, with bets in the order of a file: what can be chosen after the results decides no limit."""
    return hashlib.sha256(",".join(map(read.record_content, records)).encode()).hexdigest()


@RECORDS.judge
def judge_records() -> Iterator[Fact]:
    """Windows of unrelated text from files: what each must say, and that none is there twice."""

    def ends(*records: Json) -> str:
        with TemporaryDirectory() as folder:
            path = write(Path(folder), records, used={"tuning": [TUNED]})
            return code_of(lambda: load.load(path))

    yield "windows of two units", ends(*TEXT) == ""
    for fault, fields in MALFORMED.items():
        yield fault, ends(TEXT[0] | fields) == "EVIDENCE_MALFORMED"
    yield "a copy under another name", ends(*TEXT, COPIED) == "EVIDENCE_DUPLICATE"


@RECORDS.judge
def judge_content() -> Iterator[Fact]:
    """What units are named by: their text, and nothing that a model did with it."""
    one = LossRecord("w", "0", "b" * 16, (TUNED,), 10, {"base": 5, "t": 9})
    other = replace(one, window="a" * 16)
    named = hashlib.sha256(f"{'a' * 16},{'b' * 16}".encode()).hexdigest()
    yield "a unit is named by its windows", read.unit_key([one, other]) == named
    for fields in ({"id": "x", "unit": "y"}, {"tokens": 11}, {"nats": {"base": 6, "t": 9}}):
        changed = replace(one, **fields)
        yield f"whatever their {', '.join(fields)}", read.unit_key([other, changed]) == named
    pair: Any = SimpleNamespace(source="s" * 16)
    yield "a sentence by its source", read.record_content(pair) == pair.source


SAMPLING: Final = Judged("sampling", "units that were drawn")


@SAMPLING.bug("certify.evidence.sampling:check_drawn")
def _any_size(original: Any, manifest: Any, records: Any) -> None:
    """Ours, with sizes asked of sequential designs only: one block is not many units."""
    if manifest.design != "fixed":
        original(manifest, records)


@SAMPLING.bug("certify.evidence.sampling:check_drawn")
def _picked(original: Any, manifest: Any, records: Any) -> None:
    """Reports on the sentences that went well: anytime limits hold for the first units of the order."""
    if manifest.design == "fixed":
        original(manifest, records)


@SAMPLING.bug("certify.evidence.sampling:check_drawn")
def _half_units(original: Any, manifest: Any, records: Any) -> Any:
    """Runs that end in the middle of a document: a unit counts when it is complete."""
    block, total = int(manifest.text.unit.partition(":")[2] or 0), manifest.text.sentences
    if manifest.design == "fixed" or not block:
        return original(manifest, records)
    units = dict.fromkeys(record.unit for record in records)
    padded = [unit for unit in units for _ in range(min(block, total - int(unit) * block))]
    return original(manifest, [SimpleNamespace(unit=unit, source="", target="") for unit in padded])


@SAMPLING.judge
def judge_drawn() -> Iterator[Fact]:
    """Blocks of two sentences of a text of 19: the first ones of the seeded order, each complete."""
    order = sorted(map(str, range(10)), key=lambda u: hashlib.sha256(f"3:{u}".encode()).hexdigest())

    def accepted(
        units: Sequence[str], *, less: str = "", unit: str = "block:2", other: str = "", **fields: Any
    ) -> bool:
        plain = {"design": "sequential", "kind": "translation", "order_seed": 3}
        sizes = {name: (1 if name == "9" else 2) - (name == less) for name in units}
        names = [name for name, size in sizes.items() for _ in range(size)]
        records: Any = [SimpleNamespace(unit=u, source=f"{i}", target=u) for i, u in enumerate(names)]
        digest = hashlib.sha256("".join(f"{i} {u}\n" for i, u in enumerate(names)).encode()).hexdigest()
        size = len(names) if fields else 19
        text = SimpleNamespace(name="text", unit=unit, sentences=size, sha256=other or digest)
        manifest: Any = SimpleNamespace(**plain | fields, text=text)
        return code_of(lambda: sampling.check_drawn(manifest, records)) == ""

    for count in (1, 4, 9, 10):
        yield f"the first {count} units", accepted(order[:count])
    yield "the last ones", not accepted(order[-4:])
    yield "one was left out", not accepted([*order[:3], *order[4:6]])
    yield "one was replaced", not accepted([*order[:3], order[-1]])
    full = next(unit for unit in order if unit != "9")
    yield "a unit is not complete", not accepted(order[:10], less=full)
    yield "documents are not known beforehand", not accepted(order[:4], unit="document")
    yield "a fixed design holds its text", accepted(order[-4:], design="fixed")
    yield "and no other", not accepted(order[-4:], design="fixed", other="0" * 64)
    yield "in units of the stated size", not accepted(order, less=full, design="fixed")


SPLIT: Final = Judged("split", "data that are disjoint")


@SPLIT.bug("certify.evidence.split:check_split")
def _source_only(original: Any, records: Sequence[Any], used: Used) -> Any:
    """Decontamination by the source side: a known translation under another source is known."""
    if not hasattr(records[0], "target"):
        return original(records, used)
    return original([SimpleNamespace(**vars(one) | {"target": f"{one.id}!"}) for one in records], used)


@SPLIT.bug("certify.evidence.split:check_split")
def _passages(original: Any, records: Sequence[Any], used: Used) -> Any:
    """Ours, before windows had digests: windows of one passage are one unit."""
    loss = hasattr(records[0], "lines")
    return original([replace(one, unit="0") for one in records] if loss else records, used)


@SPLIT.bug("certify.evidence.split:check_split")
def _tuned_lines(original: Any, records: Sequence[Any], used: Used) -> Any:
    """Ours, before windows had digests: text that was tuned on is not unrelated, whatever its kind."""
    if hasattr(records[0], "lines") and used.get("tuning"):
        used = {**used, **dict.fromkeys(DISJOINT_ROLES, frozenset({"-"}))}
    return original(records, used)


@SPLIT.bug("certify.evidence.split:check_split")
def _unlisted(original: Any, records: Sequence[Any], used: Used) -> Any:
    """Comparing names and digests of files, not sentences: where nothing is listed, nothing is shown."""
    return original(records, used if used.get("tuning") else {**used, "tuning": frozenset({"-"})})


@SPLIT.bug("certify.claims.every:check_splits")
def _own_lists(_: Any, texts: Sequence[Any]) -> None:
    """Ours, with each text held against its own lists: what one text says was used, was used for all."""
    for one in texts:
        split.check_split(one.records, one.used)


@SPLIT.bug("certify.claims.counts:split_claim")
def _choice(original: Any, found: Any, about: Any) -> Any:
    """Ours, before a ticket named its data of choice: the text that it was chosen on is no evidence."""
    return original(found, SimpleNamespace(**vars(about) | {"choice": None}))


@SPLIT.bug("certify.claims.counts:split_claim")
def _margin(original: Any, found: Any, about: Any) -> Any:
    """Ours, with sentences compared alone: the text that a margin was chosen on is no evidence for it."""
    ticket = SimpleNamespace(**vars(about.ticket) | {"calibration": None})
    return original(found, SimpleNamespace(**vars(about) | {"ticket": ticket}))


@SPLIT.judge
def judge_pairs() -> Iterator[Fact]:
    """Sentences that repeat or were used, on either side and in each role."""

    def pair(number: int, source: str = "", target: str = "") -> Any:
        return SimpleNamespace(id=f"r{number}", source=source or f"s{number}", target=target or f"t{number}")

    def refused(*more: Any, **roles: frozenset[str]) -> bool:
        return code_of(lambda: split.check_split([*records, *more], used | roles)) != ""

    records, used = [pair(i) for i in range(4)], {"tuning": frozenset({"x"})}
    found = split.check_split(records, used)
    yield "disjoint data", found is not None and (found.sentences, found.pretraining) == (4, None)
    yield "a source twice", refused(pair(9, source="s1"))
    yield "a target twice", refused(pair(9, target="t1"))
    for role in ("tuning", "scan", "choice", "order"):
        for digest in ("s2", "t2"):
            yield f"{digest} was used for {role}", refused(**{role: frozenset({digest})})
    seen = split.check_split(records, used | {"pretraining": frozenset({"s2", "t2", "t3"})})
    yield "pretraining is counted", seen is not None and seen.pretraining == 2
    yield "nothing says what tuning used", split.check_split(records, {"scan": frozenset()}) is None


def _losses() -> list[LossRecord]:
    return [
        LossRecord(record["id"], record["unit"], record["window"], tuple(record["lines"]), 10, {"base": 1})
        for record in TEXT
    ]


@SPLIT.judge
def judge_lines() -> Iterator[Fact]:
    """Lines of unrelated text that stand in two units, or were used."""
    records, used = _losses(), {"tuning": frozenset({TUNED})}
    line = records[0].lines[1]
    yield "windows of a unit share lines", code_of(partial(split.check_split, records, used)) == ""
    found = split.check_split(records, used | {"pretraining": frozenset({line})})
    counted = found is not None and (found.sentences, found.pretraining) == (4, 1)
    yield "lines are counted, once", counted
    shared = [*records[:2], replace(records[2], lines=(line, *records[2].lines))]
    ends = code_of(partial(split.check_split, shared, used))
    yield "a line in a second unit", ends == "EVALUATION_DUPLICATES"
    for role in ("tuning", "scan", "choice", "order"):
        banned = used | {role: frozenset({TUNED, line})}
        ends = code_of(partial(split.check_split, records, banned))
        yield f"a line that was used for {role}", ends == "DATA_OVERLAP"
    yield "nothing says what tuning used", split.check_split(records, {"scan": frozenset({TUNED})}) is None


def _evidence(used: Used, *, kind: str = "loss") -> Any:
    """Unrelated text, or translations, with these lists of used sentences."""
    if kind == "loss":
        made = outlines.windows([(0, 10)] * 3)
        made.records = _losses()
    else:
        made = outlines.evidence([outlines.arm("t")], {"t": [outlines.RIGHT] * 3})
    made.used, made.manifest.kind = used, kind
    return made


@SPLIT.judge
def judge_texts() -> Iterator[Fact]:
    """That every text is held against what was used, also where another text or the choice says so."""
    about = outlines.subject()
    tuned = {"tuning": frozenset({TUNED})}
    line = _losses()[2].lines[0]
    good = _evidence(tuned)
    claim = counts.split_claim(good, about)
    yield "lines are counted", (claim.code, claim.n) == ("DISJOINT", 4)
    silent = counts.split_claim(_evidence({"scan": frozenset({TUNED})}), about)
    yield "nothing says what tuning used", silent.code == "USED_NOT_LISTED"
    about.choice = SimpleNamespace(sentences=(line,))
    ends = code_of(lambda: counts.split_claim(good, about))
    yield "the ticket was chosen on a line", ends == "DATA_OVERLAP"
    about.choice, about.ticket.calibration = None, SimpleNamespace(text_sha256=good.manifest.text.sha256)
    ends = code_of(lambda: counts.split_claim(good, about))
    yield "its margin was chosen on the text", ends == "DATA_OVERLAP"
    other = _evidence({"tuning": frozenset({TUNED, line})}, kind="translation")
    yield "two texts that share nothing", code_of(lambda: every.check_splits([good, good])) == ""
    ends = code_of(lambda: every.check_splits([good, other]))
    yield "another text says what was used", ends == "DATA_OVERLAP"
    other.used, good.used = tuned, {"tuning": frozenset({TUNED, "s1"})}
    yield "and of that text, this one", code_of(lambda: every.check_splits([other, good])) == "DATA_OVERLAP"
