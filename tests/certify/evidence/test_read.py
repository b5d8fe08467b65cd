"""The evidence format: an honest file is read as written, and every planted fault is refused by its code."""

from __future__ import annotations

import copy
import hashlib
import json
import lzma
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import CertifyError, InvalidInputError
from certify.base.jsonio import canonical_json
from certify.base.model import json_schema
from certify.evidence.manifest import Manifest
from certify.evidence.parser import RecordParser
from certify.evidence.read import (
    check_files,
    iter_records,
    parse_manifest,
    parse_record,
    read_manifest,
    read_used,
    record_content,
    unit_key,
    unit_rank,
    write_manifest,
)

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
USED = ["0123456789abcdef", "123456789abcdef0"]

Json = dict[str, Any]


def vector(matched: int = 3, length: int = 5, wanted: int = 4) -> list[int]:
    """A possible statistics vector: ``length`` tokens against ``wanted``, ``matched`` of them right."""
    bleu = [length, wanted, matched, 0, 0, 0, length, length - 1, length - 2, length - 3]
    return bleu + [20, 16, 9] * 6 + [length, wanted, matched] * 2


def answer(**changes: Any) -> Json:
    return {
        "text": " Hola.\nEnglish: bye",
        "ended": False,
        "length": 6,
        "stats": [vector(), vector(matched=4, length=4)],
        "rules": [0, 1, 1],
        "differs": [[0, 9], [2, 11]],
    } | changes


def translation(number: int, **changes: Any) -> Json:
    """One valid record: three steps, the second of which has an argmax other than token."""
    reference = answer(ended=True, length=3)
    del reference["differs"]
    return {
        "id": f"text:{number}",
        "unit": str(number),
        "source": hashlib.sha256(b"s%d" % number).hexdigest()[:16],
        "target": hashlib.sha256(b"t%d" % number).hexdigest()[:16],
        "prompt": [1, 5, 70],
        "reference": {
            "tokens": [10, 7, 2],
            "top": [[1, 8]],
            "p_a": [900_000_000, 400_000_000, 10**9],
            "p_b": [50_000_001, 400_000_000, 1],
        },
        "arms": {
            "base": answer(tokens=[9, 9, 9, 9, 9, 9]),
            "reference": reference,
            "t.transfer": answer(differs=[]),
        },
    } | changes


def loss(number: int, **changes: Any) -> Json:
    nats = {"base": 3_000_000_000, "reference": 3_100_000_000, "t.transfer": 0}
    about = {"window": hashlib.sha256(b"w%d" % number).hexdigest()[:16], "lines": ["0" * 16, "1" * 16]}
    return {"id": f"w:{number}", "unit": "0", "tokens": 12, "nats": nats} | about | changes


def manifest(kind: str, records: int) -> Json:
    return {
        "schema": "certify.evidence",
        "schema_version": 1,
        "kind": kind,
        "created_by": "certify test",
        "procedure": {"translation": "translation/1", "loss": "loss/2"}[kind],
        "base": {"tensor_sha256": A, "model_sha256": B},
        "reference": {"tensor_sha256": C},
        "tokenizer_sha256": D,
        "template": {"name": "labels", "sha256": A},
        "languages": ["en", "ca"],
        "text": {"name": "text", "sha256": B, "sentences": records, "unit": "sentence", "attribution": ""},
        "decoding": {"beams": 1, "max_new_tokens": 8, "dtype": "F32"},
        "order_seed": 0,
        "design": "fixed",
        "signatures": {"bleu": "x", "chrf": "y"},
        "arms": [
            {"name": "base", "kind": "base", "table_sha256": A, "parameters": 0},
            {"name": "reference", "kind": "reference", "table_sha256": C, "parameters": 64},
            {"name": "t.transfer", "kind": "transfer", "ids": [3, 5], "table_sha256": D, "parameters": 8},
        ],
        "used": [{"role": "tuning", "path": "used/tuning.txt", "sha256": "", "count": len(USED)}],
        "records": {"path": "text.records.jsonl", "sha256": "", "count": records},
    }


class Files:
    """Evidence on disk that can be spoiled and made consistent again."""

    def __init__(self, folder: Path, kind: str = "translation", records: list[Json] | None = None) -> None:
        self.folder = folder
        make = translation if kind == "translation" else loss
        self.records = records if records is not None else [make(number) for number in range(4)]
        self.manifest = manifest(kind, len(self.records))

    def write(self) -> Path:
        lines = b"".join(
            json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            for record in self.records
        )
        used = "".join(f"{digest}\n" for digest in USED).encode()
        (self.folder / "used").mkdir(exist_ok=True)
        (self.folder / "text.records.jsonl").write_bytes(lines)
        (self.folder / "used/tuning.txt").write_bytes(used)
        self.manifest["records"]["sha256"] = hashlib.sha256(lines).hexdigest()
        self.manifest["used"][0]["sha256"] = hashlib.sha256(used).hexdigest()
        path = self.folder / "text.json"
        path.write_text(json.dumps(self.manifest))
        return path


def read_all(path: Path) -> list[Any]:
    found = read_manifest(path)
    check_files(found, path.parent)
    return list(iter_records(found, path.parent))


@pytest.mark.parametrize("kind", ["translation", "loss"])
def test_an_honest_file_is_read_as_written(tmp_path: Path, kind: str) -> None:
    files = Files(tmp_path, kind)
    found = read_all(files.write())
    assert [record.id for record in found] == [record["id"] for record in files.records]
    if kind == "loss":
        assert dict(found[1].nats) == files.records[1]["nats"]
        assert (found[1].window, list(found[1].lines)) == (
            files.records[1]["window"],
            files.records[1]["lines"],
        )
        return
    first, wanted = found[0], files.records[0]
    assert first.prompt == (1, 5, 70)
    assert first.reference.tokens == (10, 7, 2)
    assert first.reference.argmaxes() == (10, 8, 2)
    assert [first.reference.margin(step) for step in range(3)] == [849_999_999, 0, 999_999_999]
    assert first.arms["base"].tokens == (9,) * 6
    assert first.arms["base"].differs == ((0, 9), (2, 11))
    assert first.arms["reference"].differs == ()
    assert first.arms["t.transfer"].rules == (0, 1, 1)
    assert [list(v) for v in first.arms["t.transfer"].stats] == wanted["arms"]["t.transfer"]["stats"]
    assert first.witness is None
    assert read_used(read_manifest(tmp_path / "text.json").used[0], tmp_path) == set(USED)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = read_manifest(Files(tmp_path).write())
    write_manifest(tmp_path / "again.json", found)
    assert read_manifest(tmp_path / "again.json") == found
    assert found.arm("t.transfer").ids == (3, 5)
    with pytest.raises(KeyError):
        found.arm("nobody")


def test_a_sequential_design_may_stop_early_and_a_fixed_one_may_not(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.manifest["text"]["sentences"] = 9
    files.manifest["design"] = "sequential"
    assert len(read_all(files.write())) == 4
    files.manifest["design"] = "fixed"
    with pytest.raises(InvalidInputError, match="fixed design"):
        read_all(files.write())


def test_the_order_of_units_is_that_of_the_hash() -> None:
    assert unit_rank(7, "block-3") == hashlib.sha256(b"7:block-3").hexdigest()


# --- faults in the manifest ------------------------------------------------------------------------------


def edit(path: str, value: Any) -> Callable[[Json], None]:
    """Set (or, with ``...``, remove) what a dotted path names."""

    def apply(document: Json) -> None:
        *outer, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        place: Any = document
        for key in outer:
            place = place[key]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return apply


MANIFEST_FAULTS = {
    "no schema": edit("schema", ...),
    "another schema": edit("schema", "certify.tickets"),
    "newer": edit("schema_version", 2),
    "version true": edit("schema_version", True),
    "an unknown field": edit("verdict", "CERTIFIED"),
    "an unknown field of an arm": edit("arms.2.score", 3),
    "no arm base": edit("arms.0.name", "basis"),
    "the name base for a ticket": edit("arms.2.name", "base"),
    "two arms of one name": edit("arms.2.name", "reference"),
    "a reference by another name": edit("arms.1.name", "embed"),
    "ids out of order": edit("arms.2.ids", [5, 3]),
    "an id twice": edit("arms.2.ids", [5, 5]),
    "no ids": edit("arms.2.ids", None),
    "empty ids": edit("arms.2.ids", []),
    "no table": edit("arms.2.table_sha256", None),
    "weights bound as rows": edit("arms.2.model_sha256", A),
    "full tuning without its digest": edit("arms.2.kind", "full"),
    "another base table": edit("arms.0.table_sha256", B),
    "another reference table": edit("reference.tensor_sha256", A),
    "no reference": edit("reference", None),
    "no template": edit("template", None),
    "nothing to decode": edit("decoding.max_new_tokens", 0),
    "an unknown control": edit("arms.2.control", "lucky"),
    "a gate of an unknown segment": edit("arms.2.gate", ["prompt"]),
    "a gate twice": edit("arms.2.gate", ["source", "source"]),
    "a gated base": edit("arms.0.gate", ["source"]),
    "another procedure": edit("procedure", "loss/2"),
    "a unit of nothing": edit("text.unit", "block:0"),
    "an unknown unit": edit("text.unit", "word"),
    "a path outside": edit("records.path", "../text.records.jsonl"),
    "an absolute path": edit("used.0.path", "/etc/passwd"),
    "one path twice": edit("used.0.path", "text.records.jsonl"),
    "a float": edit("arms.2.parameters", 8.0),
    "a number as text": edit("text.sentences", "4"),
    "no sentences": edit("text.sentences", 0),
    "a digest too short": edit("tokenizer_sha256", "ab"),
    "strengths without 0 and 1": edit("path", {"n": 3, "g": 1}),
    "laws that do not overlap": edit("path", {"n": 2, "g": 3}),
    "too many strengths": edit("path", {"n": 258, "g": 1}),
    "margins of an arm without a ticket": edit("margins", {"base": None}),
    "margins of an arm that is not there": edit("margins", {"other.transfer": None}),
    "a margin of one": edit("margins", {"t.transfer": "1.0"}),
    "a margin finer than what is counted": edit("margins", {"t.transfer": ".8500000001"}),
}


@pytest.mark.parametrize("fault", MANIFEST_FAULTS.values(), ids=MANIFEST_FAULTS.keys())
def test_a_faulty_manifest_is_refused(tmp_path: Path, fault: Callable[[Json], None]) -> None:
    files = Files(tmp_path)
    files.write()
    fault(files.manifest)
    with pytest.raises(InvalidInputError) as error:
        parse_manifest(files.manifest)
    assert error.value.code in {"EVIDENCE_SCHEMA", "EVIDENCE_NEWER", "EVIDENCE_MALFORMED"}


def test_losses_that_do_not_say_what_their_text_is_are_refused(tmp_path: Path) -> None:
    files = Files(tmp_path, "loss")
    files.manifest["procedure"] = "loss/1"
    with pytest.raises(InvalidInputError, match=r"procedure: .*'loss/2'") as error:
        parse_manifest(files.manifest)
    assert error.value.code == "EVIDENCE_MALFORMED"


def test_every_field_of_the_manifest_counts(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write()
    for field in list(files.manifest):
        less = copy.deepcopy(files.manifest)
        del less[field]
        with pytest.raises(InvalidInputError):
            parse_manifest(less)


def test_two_equal_probabilities_may_come_to_lie_two_apart(tmp_path: Path) -> None:
    found = read_manifest(Files(tmp_path).write())
    record = translation(0)
    record["reference"]["p_a"][1], record["reference"]["p_b"][1] = 399_999_999, 400_000_001
    assert parse_record(record, found).reference.margin(1) == 0


def test_the_json_schema_requires_what_a_reader_requires() -> None:
    schema = json_schema(Manifest)
    assert {"schema", "schema_version", "arms", "records"} <= set(schema["required"])
    assert schema["additionalProperties"] is False


# --- faults in records -----------------------------------------------------------------------------------

RECORD_FAULTS = {
    "an unknown field": edit("comment", "x"),
    "an unknown field inside": edit("reference.probability", 1),
    "no id": edit("id", ...),
    "an empty id": edit("id", ""),
    "a unit that is no text": edit("unit", 3),
    "a digest of 15": edit("source", "a" * 15),
    "a digest in capitals": edit("target", "A" * 16),
    "no prompt": edit("prompt", []),
    "a prompt out of order": edit("prompt", [5, 1]),
    "a prompt id twice": edit("prompt", [5, 5]),
    "a negative id": edit("prompt", [-1]),
    "a float id": edit("prompt", [1.0]),
    "a boolean id": edit("prompt", [True]),
    "no steps": edit("reference.tokens", []),
    "a margin too few": edit("reference.p_a", [1, 2]),
    "a probability above 1": edit("reference.p_a", [10**9 + 1, 5, 5]),
    "a NaN": edit("reference.p_a", [float("nan"), 0, 0]),
    "second larger than first": edit("reference.p_b.1", 400_000_003),
    "more than everything": edit("reference.p_b", [100_000_002, 1, 1]),
    "a top that is the token": edit("reference.top", [[1, 7]]),
    "a top beyond": edit("reference.top", [[3, 7]]),
    "an arm too few": edit("arms.t.transfer", ...),
    "an arm too many": edit("arms.other", answer()),
    "no tokens of the base": edit("arms.base.tokens", ...),
    "tokens too few": edit("arms.base.tokens", [9]),
    "longer than allowed": edit("arms.base.length", 9),
    "a length of nothing": edit("arms.base.length", 0),
    "ended as a number": edit("arms.base.ended", 1),
    "the reference differs": edit("arms.reference.differs", []),
    "the reference of another length": edit("arms.reference.length", 2),
    "a step twice": edit("arms.base.differs", [[1, 9], [1, 10]]),
    "a step beyond": edit("arms.base.differs", [[3, 9]]),
    "a difference that is none": edit("arms.base.differs", [[1, 8]]),
    "a difference of three": edit("arms.base.differs", [[1, 9, 9]]),
    "no statistics": edit("arms.base.stats", []),
    "a vector of 33": edit("arms.base.stats", [vector()[:-1], vector()]),
    "one vector twice": edit("arms.base.stats", [vector(), vector()]),
    "an index beyond": edit("arms.base.rules", [0, 1, 2]),
    "a vector of no rule": edit("arms.base.rules", [0, 0, 0]),
    "more right than there are": edit("arms.base.stats.0.2", 6),
    "more matches than n-grams": edit("arms.base.stats.0.12", 17),
    "scored against another translation": edit("arms.base.stats.0.1", 5),
    "another reference length in another arm": edit("arms.reference.stats.1.11", 17),
    "a witness without its translation": edit("witness", {"source": "x"}),
}


def spoiled(record: Json, fault: Callable[[Json], None], name: str) -> Json:
    made = copy.deepcopy(record)
    # The one arm whose name holds a dot is reached by hand.
    if name == "an arm too few":
        del made["arms"]["t.transfer"]
    else:
        fault(made)
    return made


@pytest.mark.parametrize("name", RECORD_FAULTS)
def test_a_faulty_record_is_refused(tmp_path: Path, name: str) -> None:
    found = read_manifest(Files(tmp_path).write())
    honest = translation(0)
    parse_record(honest, found)
    with pytest.raises(InvalidInputError) as error:
        parse_record(spoiled(honest, RECORD_FAULTS[name], name), found)
    assert error.value.code == "EVIDENCE_MALFORMED"


PATH = {"n": 2, "g": 1}
PATH_FAULTS: dict[str, Callable[[Json], None]] = {
    "no labels": lambda arms: arms["t.transfer"].pop("path"),
    "labels of an arm that serves no ticket": lambda arms: arms["base"].update(path=["9*4"] * 3),
    "a step too few": lambda arms: arms["t.transfer"]["path"].pop(),
    "a label too few": lambda arms: arms["t.transfer"]["path"].__setitem__(2, "2*3"),
    "a run in two": lambda arms: arms["t.transfer"]["path"].__setitem__(2, "2*2,2*2"),
    "another decision of the arm": lambda arms: arms["t.transfer"]["path"].__setitem__(0, "9*2,10*2"),
    "another decision of the reference": lambda arms: arms["t.transfer"]["path"].__setitem__(1, "8*2,7*2"),
    "another decision of both": lambda arms: arms["t.transfer"]["path"].__setitem__(0, "9*4"),
}


@pytest.mark.parametrize("fault", PATH_FAULTS.values(), ids=PATH_FAULTS.keys())
def test_faulty_labels_along_a_path_are_refused(tmp_path: Path, fault: Callable[[Json], None]) -> None:
    files = Files(tmp_path)
    files.write()
    honest = translation(0)
    honest["arms"]["t.transfer"]["path"] = ["9*1,10*3", "8*4", "2*3,6*1"]
    found = parse_manifest(files.manifest | {"path": PATH})
    assert parse_record(honest, found).arms["t.transfer"].path[0] == "9*1,10*3"  # type: ignore[union-attr, index]
    with pytest.raises(InvalidInputError, match="path"):
        parse_record(honest, parse_manifest(files.manifest))
    fault(honest["arms"])
    with pytest.raises(InvalidInputError, match="path") as error:
        parse_record(honest, found)
    assert error.value.code == "EVIDENCE_MALFORMED"


def own_steps(**changes: Any) -> Json:
    """Six steps of ``t.transfer`` along its own output, the second with an argmax other than its token."""
    steps = {"tokens": [10, 7, 9, 9, 9, 2], "top": [[1, 8]], "p_a": [9 * 10**8] * 6, "p_b": [10**8] * 6}
    return steps | {"differs": [[1, 7], [4, 3]]} | changes


OWN_FAULTS: dict[str, Callable[[Json], None]] = {
    "no steps": lambda arms: arms["t.transfer"].pop("own"),
    "steps of an arm that is not listed": lambda arms: arms["base"].update(own=own_steps()),
    "null": lambda arms: arms["t.transfer"].update(own=None),
    "a token too few": lambda arms: arms["t.transfer"]["own"]["tokens"].pop(),
    "no word on E*": lambda arms: arms["t.transfer"]["own"].pop("differs"),
    "a probability too few": lambda arms: arms["t.transfer"]["own"]["p_a"].pop(),
    "a second larger than the first": lambda arms: arms["t.transfer"]["own"].update(p_b=[9 * 10**8 + 3] * 6),
    "probabilities above one": lambda arms: arms["t.transfer"]["own"].update(p_b=[10**8 + 2] * 6),
    "a step beyond the output": lambda arms: arms["t.transfer"]["own"].update(differs=[[6, 7]]),
    "E* differs with the same token": lambda arms: arms["t.transfer"]["own"].update(differs=[[1, 8]]),
    "an argmax that is the token": lambda arms: arms["t.transfer"]["own"].update(top=[[1, 7]]),
    "another length": lambda arms: arms["t.transfer"].update(length=5),
}


@pytest.mark.parametrize("fault", OWN_FAULTS.values(), ids=OWN_FAULTS.keys())
def test_faulty_steps_along_an_own_output_are_refused(tmp_path: Path, fault: Callable[[Json], None]) -> None:
    files = Files(tmp_path)
    files.write()
    honest = translation(0)
    honest["arms"]["t.transfer"]["own"] = own_steps()
    found = parse_manifest(files.manifest | {"margins": {"t.transfer": "0.85"}})
    steps = parse_record(honest, found).arms["t.transfer"].own  # type: ignore[union-attr]
    assert (steps.margin(0), steps.argmaxes()[1], steps.differs) == (8 * 10**8, 8, ((1, 7), (4, 3)))
    with pytest.raises(InvalidInputError, match="own"):
        parse_record(honest, parse_manifest(files.manifest))
    fault(honest["arms"])
    with pytest.raises(InvalidInputError, match=r"own|left out") as error:
        parse_record(honest, found)
    assert error.value.code == "EVIDENCE_MALFORMED"


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 0},
        {"nats": {"base": 1}},
        {"nats": {"base": -1, "reference": 1, "t.transfer": 1}},
        {"nats": {"base": 1.5, "reference": 1, "t.transfer": 1}},
        {"window": "0" * 15},
        {"window": None},
        {"window": "G" * 16},
        {"lines": []},
        {"lines": "0" * 16},
        {"lines": ["0" * 16, 1]},
        {"lines": ["0" * 17]},
        {"lines": ["1" * 16, "0" * 16]},
        {"lines": ["0" * 16, "0" * 16]},
        {"prompt": [1]},
    ],
)
def test_a_faulty_loss_is_refused(tmp_path: Path, changes: Json) -> None:
    found = read_manifest(Files(tmp_path, "loss").write())
    parse_record(loss(0), found)
    with pytest.raises(InvalidInputError) as error:
        parse_record(loss(0, **changes), found)
    assert error.value.code == "EVIDENCE_MALFORMED"


def pack(folder: Path) -> None:
    for name in (RECORDS, "used/tuning.txt"):
        path = folder / name
        path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()


def test_files_may_travel_packed(tmp_path: Path) -> None:
    path = Files(tmp_path).write()
    plain = read_all(path)
    pack(tmp_path)
    assert read_all(path) == plain
    assert read_used(read_manifest(path).used[0], tmp_path) == set(USED)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda packed: packed[:-30], "EVIDENCE_DIGEST"),
        (lambda _: b"no archive", "EVIDENCE_DIGEST"),
        (
            lambda packed: lzma.compress(lzma.decompress(packed).replace(b"Hola", b"Halo", 1)),
            "EVIDENCE_DIGEST",
        ),
        (lambda packed: lzma.compress(lzma.decompress(packed)[:-1]), "EVIDENCE_TRUNCATED"),
        (lambda _: lzma.compress(bytes(1 << 26)), "FILE_TOO_LARGE"),
    ],
    ids=["cut", "garbage", "edited", "truncated", "a bomb"],
)
def test_a_spoiled_archive_is_refused(tmp_path: Path, change: Callable[[bytes], bytes], code: str) -> None:
    path = Files(tmp_path).write()
    pack(tmp_path)
    packed = tmp_path / f"{RECORDS}.xz"
    packed.write_bytes(change(packed.read_bytes()))
    with pytest.raises(InvalidInputError) as error:
        read_all(path)
    assert error.value.code == code


# --- faults in the files ---------------------------------------------------------------------------------


def replace(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return apply


RECORDS = "text.records.jsonl"
FILE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an edited text": (replace(RECORDS, lambda b: b.replace(b"Hola", b"Halo", 1)), "EVIDENCE_DIGEST"),
    "an edited count": (
        replace(RECORDS, lambda b: b.replace(b"900000000", b"900000001", 1)),
        "EVIDENCE_DIGEST",
    ),
    "a record less": (replace(RECORDS, lambda b: b[: b[:-1].rindex(b"\n") + 1]), "EVIDENCE_TRUNCATED"),
    "a torn record": (replace(RECORDS, lambda b: b[:-20]), "EVIDENCE_TRUNCATED"),
    "no last line break": (replace(RECORDS, lambda b: b[:-1]), "EVIDENCE_TRUNCATED"),
    "a record more": (
        replace(RECORDS, lambda b: b + json.dumps(translation(9)).encode() + b"\n"),
        "EVIDENCE_TRUNCATED",
    ),
    "nothing": (replace(RECORDS, lambda _: b""), "EVIDENCE_TRUNCATED"),
    "a line that never ends": (replace(RECORDS, lambda _: b" " * (1 << 21)), "FILE_TOO_LARGE"),
    "no JSON": (replace(RECORDS, lambda b: b"{" + b), "JSON_MALFORMED"),
    "a key twice": (replace(RECORDS, lambda b: b'{"id":"x",' + b[1:]), "JSON_MALFORMED"),
    "a missing file": (lambda folder: (folder / RECORDS).unlink(), "FILE_MISSING"),
    "a used sentence less": (replace("used/tuning.txt", lambda b: b[17:]), "EVIDENCE_TRUNCATED"),
    "another used sentence": (replace("used/tuning.txt", lambda b: b"0" * 16 + b[16:]), "EVIDENCE_DIGEST"),
    "used sentences unsorted": (replace("used/tuning.txt", lambda b: b[17:] + b[:17]), "EVIDENCE_MALFORMED"),
    "used sentences in words": (replace("used/tuning.txt", lambda b: b"hello\n" + b), "EVIDENCE_MALFORMED"),
}


@pytest.mark.parametrize(("fault", "code"), FILE_FAULTS.values(), ids=FILE_FAULTS.keys())
def test_a_spoiled_file_is_refused(tmp_path: Path, fault: Callable[[Path], None], code: str) -> None:
    path = Files(tmp_path).write()
    read_all(path)
    fault(tmp_path)
    with pytest.raises(CertifyError) as error:
        read_all(path)
    assert error.value.code == code
    assert error.value.exit_code == 4


def test_ids_are_unique_in_a_file(tmp_path: Path) -> None:
    path = Files(tmp_path, records=[translation(0), translation(1, id="text:0")]).write()
    with pytest.raises(InvalidInputError) as error:
        read_all(path)
    assert error.value.code == "EVIDENCE_DUPLICATE"


def test_a_window_is_no_new_text_under_another_name(tmp_path: Path) -> None:
    copied = loss(1, unit="1", window=loss(0)["window"], nats=dict.fromkeys(loss(0)["nats"], 7))
    path = Files(tmp_path, "loss", records=[loss(0), copied, loss(2)]).write()
    with pytest.raises(InvalidInputError, match=r"'w:1' is the window of 'w:0' again") as error:
        read_all(path)
    assert error.value.code == "EVIDENCE_DUPLICATE"


def test_what_names_a_unit_follows_from_its_text_alone(tmp_path: Path) -> None:
    manifests = {kind: read_manifest(Files(tmp_path, kind).write()) for kind in ("translation", "loss")}
    for record, about in ((translation(3), "source"), (loss(3), "window")):
        found = manifests["loss" if about == "window" else "translation"]
        other = record | {"id": "other", "unit": "other"}
        if about == "window":
            other |= {"tokens": 13, "nats": dict.fromkeys(record["nats"], 1), "lines": ["2" * 16]}
        for one in (record, other):
            assert record_content(parse_record(one, found)) == record[about]
    parsed = [parse_record(loss(number), manifests["loss"]) for number in (2, 0, 1)]
    names = sorted(loss(number)["window"] for number in range(3))
    assert unit_key(parsed) == hashlib.sha256(",".join(names).encode()).hexdigest()


@pytest.mark.parametrize(
    ("unit", "units", "fits"),
    [
        ("sentence", ["0", "1", "2"], True),
        ("sentence", ["0", "0", "1"], False),
        ("block:2", ["0", "0", "1"], True),
        ("block:2", ["0", "0", "0"], False),
        ("document", ["0", "0", "0"], True),
    ],
)
def test_a_unit_is_no_larger_than_it_says(tmp_path: Path, unit: str, units: list[str], fits: bool) -> None:
    files = Files(tmp_path, records=[translation(i, unit=name) for i, name in enumerate(units)])
    files.manifest["text"]["unit"] = unit
    path = files.write()
    if fits:
        assert len(read_all(path)) == 3
    else:
        with pytest.raises(InvalidInputError, match="more sentences than a unit"):
            read_all(path)


def test_at_most_fifty_sentences_travel_in_words(tmp_path: Path) -> None:
    witness = {"source": "One.", "target": "Un."}
    files = Files(tmp_path, records=[translation(i, witness=witness) for i in range(50)])
    assert read_all(files.write())[0].witness.source == "One."
    more = Files(tmp_path, records=[translation(i, witness=witness) for i in range(51)])
    with pytest.raises(InvalidInputError, match="at most 50"):
        read_all(more.write())


@given(st.data())
def test_no_mutation_of_a_record_breaks_the_reader(data: st.DataObject) -> None:
    """Whatever is put anywhere: a record is read, or refused with a reason; nothing else is raised."""
    found = parse_manifest(manifest("translation", 1) | {"used": [], "records": READY})
    record = translation(0)
    places = list(_places(record))
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=3),
            st.lists(st.integers(-1, 10**9 + 1), max_size=4),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        )
    )
    with suppress(InvalidInputError):
        parse_record(record, found)


def lines_of(record: Json) -> bytes:
    return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"prompt":[1,5,70]', b'"prompt":' + b"[" * 80 + b"]" * 80, "JSON_TOO_DEEP"),
        (b'"witness":null', b'"witness":' + b'{"a":' * 70 + b"1" + b"}" * 70, "JSON_TOO_DEEP"),
        (b'"prompt":[1,5,70]', b'"prompt":' + b"[" * 100_000, "JSON_TOO_DEEP"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,' + b"9" * 5000 + b"]", "JSON_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,' + b"9" * 100 + b"]", "EVIDENCE_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,16777216]', "EVIDENCE_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,5.0,70]', "EVIDENCE_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,5e0,70]', "EVIDENCE_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,1e999]', "JSON_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[NaN]', "JSON_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[-Infinity]', "JSON_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,"5"]', "EVIDENCE_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[01]', "JSON_MALFORMED"),
        (b'"prompt":[1,5,70]', b'"prompt":[1,5],"prompt":[1,5,70]', "JSON_MALFORMED"),
        (b'"top":[[1,8]]', b'"top":[[1,8]],"top":[[1,8]]', "JSON_MALFORMED"),
        (b'"id":"text:0"', b'"id":"\\ud800"', "JSON_MALFORMED"),
        (b'"id":"text:0"', b'"id":"\xed\xa0\x80"', "JSON_MALFORMED"),
        (b'"id":"text:0"', b'"id":"\xff"', "JSON_MALFORMED"),
        (b'"id":"text:0"', b'"id":"a\x01"', "JSON_MALFORMED"),
        (b'"witness":null', b'"witness":null', "EVIDENCE_MALFORMED"),
        (b'"differs":[]', b'"differs":null', "EVIDENCE_MALFORMED"),
        (b'"differs":[]', b'"differs":[],"tokens":null', "EVIDENCE_MALFORMED"),
        (b'"source":"', b'"source":"\\n', "EVIDENCE_MALFORMED"),
        (b'"witness":null', b'"' + b"x" * 1000 + b'":1', "EVIDENCE_MALFORMED"),
        (b'{"arms"', b'["arms"', "JSON_MALFORMED"),
        (b'"witness":null}', b'"witness":null} 1', "JSON_MALFORMED"),
        (b'"witness":null}', b'"witness":null', "JSON_MALFORMED"),
    ],
)
def test_a_hostile_line_is_refused_with_its_code(tmp_path: Path, old: bytes, new: bytes, code: str) -> None:
    found = read_manifest(Files(tmp_path).write())
    line = lines_of(translation(0))[:-1] + (b',"witness":null}' if b"witness" in old else b"}")
    assert old in line
    with pytest.raises(InvalidInputError) as error:
        RecordParser(found).read(line.replace(old, new, 1), "a line")
    assert error.value.code == code
    assert len(str(error.value)) < 500


def test_a_line_need_not_be_canonical_to_be_read(tmp_path: Path) -> None:
    found = read_manifest(Files(tmp_path).write())
    record = translation(0, id="é \u2028 \x00 \U0001f600")
    wanted = parse_record(record, found)
    for line in (
        lines_of(record),
        json.dumps(record).encode(),
        json.dumps(record, indent=1).encode() + b" \r",
        json.dumps(dict(reversed(record.items())), ensure_ascii=False).encode(),
        lines_of(record).replace(b"[1,5,70]", b"[1,5,70 ]").replace(b'"rules":[0,', b'"rules":[-0,'),
    ):
        assert RecordParser(found).read(line, "a line") == wanted


@given(st.text(), st.text(min_size=1))
def test_canonical_lines_are_written_back_byte_for_byte(text: str, name: str) -> None:
    """Reading compares bytes: both programs that write JSON must escape alike."""
    assert msgspec.json.encode({"a": text, "b": name}) == canonical_json({"a": text, "b": name})


READY = {"path": "r.jsonl", "sha256": A, "count": 1}


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)
