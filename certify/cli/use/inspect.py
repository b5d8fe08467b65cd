"""``certify inspect``: what a file is, whether it reads strictly, and what one wants to know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from certify.cli import options
from certify.cli.registry import READ, SCHEMAS, load
from certify.cli.use import interop

if TYPE_CHECKING:
    from certify.base.model import Model

Facts = Iterable[tuple[str, object]]
Look = tuple[str, Mapping[str, object], tuple[object, ...]]
"""What kind of file it is, the facts by name, and the words of the next command."""


def _ticket_file(one: Any) -> Facts:
    for ticket in one.tickets:
        claims = ", ".join(claim.kind for claim in ticket.declared)
        yield (
            f"ticket {ticket.id}",
            f"{len(ticket.ids)} of {ticket.base.shape[0]} rows, {ticket.base.dtype}, rule"
            f" {ticket.selection.rule[:60]} at {ticket.selection.alpha}, {ticket.released.object}, declares"
            f" {claims or 'nothing'}, digest {ticket.digest()[:12]}",
        )


def _certificate(one: Any) -> Facts:
    yield "ticket", f"{one.ticket.id}, digest {one.ticket.sha256[:12]}"
    yield "claims", f"{len(one.claims)} at delta {one.parameters.delta}"
    yield "texts", ", ".join(f"{text.text} ({text.role})" for text in one.evidence)


def _manifest(one: Any) -> Facts:
    yield "text", f"{one.text.name}, {one.text.sentences} sentences, unit {one.text.unit}"
    yield "made", f"{one.kind}, {one.design} design, {one.records.count} records in {one.records.path}"
    yield "arms", ", ".join(arm.name for arm in one.arms)


def _report(one: Any) -> Facts:
    yield "tickets", ", ".join(f"{ticket.id} {ticket.verdict}" for ticket in one.tickets)
    yield "policy", one.policy
    yield "exit code", int(one.exit_code)


def _experiment(one: Any) -> Facts:
    yield "plan", f"{one.plan['name']}, sha256 {one.plan_sha256[:12]}"
    yield "made by", one.created_by
    yield from _sized("steps", "files")(one)


def _summary(one: Any) -> Facts:
    yield "plan", one.plan
    yield "texts", ", ".join(one.texts)
    yield "steps without a result", ", ".join(one.void) or "none"


def _pick(*names: str) -> Callable[[Any], Facts]:
    return lambda one: [(name, getattr(one, name)) for name in names if getattr(one, name) is not None]


def _sized(*names: str) -> Callable[[Any], Facts]:
    return lambda one: [(name, len(getattr(one, name))) for name in names]


SUMMARIES: Final[Mapping[str, tuple[Callable[[Any], Facts], tuple[str, ...]]]] = {
    "ticket": (_ticket_file, ("check",)),
    "certificate": (_certificate, ()),
    "evidence": (_manifest, ("issue", "--ticket", "FILE#ID", "--out", "FILE.json", "--evidence")),
    "policy": (_pick("name", "question", "extends"), ("check", "--policy")),
    "plan": (lambda one: [("pairs", ", ".join(pair.name for pair in one.pair))], ("experiment",)),
    "pretraining": (_pick("name", "seed"), ("pretrain", "--out", "RUN")),
    "model": (lambda one: [("model", one.line()), ("tensors", len(one.tensors))], ()),
    "outputs": (_pick("engine", "version", "arm"), ()),
    "diff": (_sized("ids_added", "ids_removed", "ids_changed", "changes"), ()),
    "report": (_report, ()),
    "reports": (_sized("reports", "errors"), ()),
    "proofs": (_sized("clauses", "checks"), ()),
    "run": (_pick("status", "created_by"), ()),
    "choice": (_pick("chosen"), ()),
    "calibration": (_pick("t", "alpha"), ()),
    "experiment": (_experiment, ()),
    "summary": (_summary, ()),
}
"""By kind of file: the facts of one, and the command that takes it (the file comes last)."""


def inspect(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE[#ID]", help="A file that certify knows; #ID shows that ticket alone."),
    ],
    report_format: options.Format = "terminal",
) -> None:
    """Say what a file is, its digest, and the facts one wants; refuse what does not read strictly.

    JSON files that name their schema, policies and plans, rows and tables in safetensors, token counts,
    outputs, and scans as CSV. What a file says is not verified: certify check does that. The exit code is 4
    if the file is unknown or malformed.
    """
    from certify.base.errors import UsageError
    from certify.base.jsonio import sha256_file
    from certify.tables.safefile import refuse_pickle
    from certify.ticket.released import split_spec

    path, name = split_spec(file)
    by_ending = {".safetensors": _safetensors, ".csv": _scan, ".toml": _toml, ".jsonl": _first_line}
    refuse_pickle(_start(path), path)
    kind, facts, following = (by_ending | {".npy": _counts}).get(path.suffix, _json)(path)
    if name:
        facts = {key: value for key, value in facts.items() if key == f"ticket {name}"}
        following = (*following[:-1], file)
        if not facts:
            raise UsageError(f"no ticket {name!r} in {path}, which is: {kind}", code="TICKET_UNKNOWN")
    data = {"file": str(path), "kind": kind, "sha256": sha256_file(path), "facts": dict(facts)}
    lines = [f"{path}: {kind}, reads strictly", f"sha256 {data['sha256']}"]
    lines += [f"{name}: {value}" for name, value in facts.items()]
    interop.show(lines, data, report_format, *(["certify", *following] if following else []))


def _start(path: Path) -> bytes:
    from certify.base.errors import UsageError
    from certify.base.files import opened

    try:
        with opened(path) as stream:
            return stream.read(8)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE") from error


def _unknown(path: Path, why: str) -> Exception:
    from certify.base.errors import InvalidInputError

    return InvalidInputError(f"{path} is no file that certify knows: {why}", code="INSPECT_UNKNOWN")


def _described(path: Path, value: Any, kind: str, model: type[Model], data: bytes = b"") -> Look:
    from certify.base.model import Document, Refusal, validate
    from certify.certificate.schema import canonical_certificate

    if kind == "certificate":
        one: Any = canonical_certificate(value, data, what=str(path))
    else:
        one = validate(model, value, what=str(path), refusal=Refusal("INSPECT_MALFORMED"))
    summary, command = SUMMARIES[kind]
    facts = {name: value if isinstance(value, int) else str(value) for name, value in summary(one)}
    version = (
        f"{value['schema']} version {value['schema_version']}" if issubclass(model, Document) else "no schema"
    )
    return f"{kind} ({version})", facts, (*command, path) if command else ()


def _content(path: Path, value: Any, data: bytes = b"") -> Look:
    """Take a document for what its schema says that it is; ``data`` is the file, where its bytes count."""
    from certify.base.model import Document

    if isinstance(value, dict) and value.get("format") == "certify-proofs/1":
        return _described(path, value, "proofs", load(SCHEMAS["proofs"]))
    name = value.get("schema") if isinstance(value, dict) else None
    for kind, home in {**SCHEMAS, **READ}.items():
        model = load(home)
        if issubclass(model, Document) and model.schema_name() == name:
            return _described(path, value, kind, model, data)
    raise _unknown(path, f"its schema is {str(name)[:60]!r}" if name else "it names no schema")


def _json(path: Path) -> Look:
    from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes

    data = read_bytes(path, what="file", limit=MAX_JSON_BYTES)
    if not data.lstrip().startswith(b"{"):
        raise _unknown(path, "it is not a JSON object, and its ending names no other format")
    return _content(path, parse_json(data, what=str(path)), data)


def _toml(path: Path) -> Look:
    from certify.base.jsonio import read_bytes
    from certify.base.model import Refusal, parse_toml
    from certify.policy.policy import parse_policy

    data = read_bytes(path, what="file", limit=1 << 20)
    value = parse_toml(data, what=str(path), refusal=Refusal("INSPECT_MALFORMED"))
    if "schema" not in value:
        for table, kind, home in (
            ("pair", "plan", SCHEMAS["plan"]),
            ("source", "pretraining", READ["pretraining"]),
        ):
            if table in value:
                return _described(path, value, kind, load(home))
    found = _content(path, value)  # of TOML, policies alone name a schema
    parse_policy(data, what=str(path))
    return found


def _first_line(path: Path) -> Look:
    from certify.base.files import opened
    from certify.base.jsonio import parse_json

    with opened(path) as stream:
        line = stream.readline(1 << 20)
    value = parse_json(line, what=f"{path}, line 1")
    if isinstance(value, dict) and "schema" not in value:
        raise _unknown(path, "records read with their manifest: inspect that")
    return _content(path, value)


def _safetensors(path: Path) -> Look:
    from certify.tables.movedrows import BASE_KEY, IDS, is_moved
    from certify.tables.rowfile import FP32, open_rows_file
    from certify.tables.safefile import map_file

    file = map_file(path)
    if FP32 in file.header:
        rows, digests = open_rows_file(path)
        k, d = rows.fp32.shape
        return "rows of a ticket", {"rows": k, "width": d, "dtype": rows.dtype} | _digests(digests), ()
    if is_moved(file):
        facts = {"rows": file.header[IDS].shape[0], "base": file.metadata.get(BASE_KEY, "?")}
        return "moved rows of a table", facts, ("table", "apply", "BASE", path, "--out", "FILE.safetensors")
    shapes = {name: f"{one.dtype} {list(one.shape)}" for name, one in [*file.header.items()][:8]}
    return "tensors", {"tensors": len(file.header), **shapes}, ()


def _digests(digests: Any) -> dict[str, object]:
    return {"fp32 sha256": digests.fp32_sha256, "served sha256": digests.served_sha256}


def _scan(path: Path) -> Look:
    from certify.base.files import opened

    with opened(path) as stream:
        head = stream.readline(4096).decode("utf-8", "replace")
        columns = stream.readline(4096).decode("utf-8", "replace").strip()
        rows = sum(1 for _ in stream)
    if not head.startswith("# method:") or not columns.startswith("id,"):
        raise _unknown(path, "a scan begins with its method")
    facts = dict(part.partition(":")[::2] for part in head[2:].strip().split("|"))
    return "scan", {**facts, "rows": rows, "columns": columns}, ()


def _counts(path: Path) -> Look:
    from certify.selection.frequency import read_counts

    counts = read_counts(path)
    facts = {"rows": len(counts), "with a token": int((counts > 0).sum()), "tokens": int(counts.sum())}
    return "token counts", facts, ()
