"""The end of an experiment: overlap of tickets, and publication with a summary.

The step ``publish`` collects ticket files, evidence and summary in its own folder, with a manifest of
digests. :func:`deliver` copies the folder to the top of the experiment's folder.
"""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from certify.base.jsonio import canonical_json, sha256_bytes, sha256_file, write_bytes
from certify.base.version import __version__
from certify.evidence.read import read_manifest
from certify.selection.frequency import read_counts
from certify.selection.nulls import frequency_strata
from certify.selection.rules import candidates
from certify.tables.vocabulary import open_vocabulary
from certify.ticket.schema import Located, TicketFile, read_ticket_file, write_ticket_file
from lottery.controls.overlap import TicketPair, study
from lottery.experiment.engine.context import SELECTION, RunContext, procedure
from lottery.experiment.engine.graph import Input, Result, Void, Work
from lottery.experiment.steps.evidence import OPPORTUNITY
from lottery.experiment.steps.rows import COUNTS, TICKETS
from lottery.experiment.steps.summary import markdown, summarise

OVERLAP, MANIFEST, SUMMARY, REPORT = "overlap.json", "manifest.json", "summary.json", "summary.md"
TICKET_FOLDER, EVIDENCE_FOLDER = "tickets", "evidence"


@procedure("overlap", 2)
def compare_tickets(context: RunContext, work: Work) -> Result:
    """Compute the overlap of every ticket between languages and between seeds: ``overlap.json``.

    Strata have similar frequency in the tuning text of all languages together.

    Raises:
        Void: no ticket has rows in two of the tunings.
    """
    p = work.parameters
    vocabulary = open_vocabulary(context.base_folder(work))
    rows = 0
    found: dict[str, Any] = {}
    for ticket, roles in p["tickets"].items():
        chosen: dict[str, dict[int, list[int]]] = {}
        for role, pair, seed in roles:
            record = work.inputs[role].json(SELECTION)
            rows = record["rows"]
            if record["ids"]:
                chosen.setdefault(pair, {})[seed] = record["ids"]
        if sum(map(len, chosen.values())) < 2:
            continue
        counts = sum(
            (read_counts(work.inputs[role].path(COUNTS), rows) for role in p["counts"]),
            start=np.zeros(rows, np.int64),
        )
        pool = np.flatnonzero(candidates(rows, vocabulary)).tolist()
        named = {i for seeds in chosen.values() for ids in seeds.values() for i in ids}
        pool = sorted({*pool, *named})  # a rule that names ids may name special ones
        compared = study(chosen, pool, strata=frequency_strata(counts))
        found[ticket] = {
            "seed_ceiling": _share(compared.ceiling),
            "across_languages": _share(compared.agreement),
            "ratio": _share(compared.ratio),
            "comparisons": [_comparison(pair) for pair in (*compared.within, *compared.across)],
        }
    if not found:
        raise Void("no ticket has rows in two tunings")
    work.write(OVERLAP, found)
    return Result((OVERLAP,), {"tickets": len(found)})


def _comparison(comparison: TicketPair) -> dict[str, Any]:
    overlap = comparison.overlap
    return {
        "first": list(comparison.first),
        "second": list(comparison.second),
        "sizes": list(overlap.sizes),
        "shared": overlap.shared,
        "expected": f"{float(overlap.expected):.2f}",
        "p": f"{overlap.p:.3g}",
        "jaccard": _share(overlap.jaccard),
        "coefficient": _share(overlap.coefficient),
    }


def _share(value: Any) -> str | None:
    return None if value is None else f"{float(value):.4f}"


@procedure("publish", 3, collects=True)
def publish(_context: RunContext, work: Work) -> Result:
    """Collect ticket files with their evidence, a summary and a manifest, ready for publication."""
    p = work.parameters
    shutil.rmtree(work.folder / TICKET_FOLDER, ignore_errors=True)
    evidence: dict[str, dict[str, Path]] = {}
    opportunity: dict[str, Any] = {}
    for pair in p["pairs"]:
        target = work.folder / TICKET_FOLDER
        if len(p["pairs"]) > 1:
            target = target / pair["name"]
        files = {
            name: _copy(work.inputs[role], target / EVIDENCE_FOLDER) / f"{name}.json"
            for name, role in pair["evidence"].items()
            if not work.inputs[role].void
        }
        # Records and lists of used sentences travel compressed. Digests are of the unpacked content.
        folder = target / EVIDENCE_FOLDER
        for path in sorted((*folder.glob("*.jsonl"), *folder.glob("*/*.txt"))):
            write_bytes(path.with_name(f"{path.name}.xz"), lzma.compress(path.read_bytes()))
            path.unlink()
        evidence[pair["name"]] = files
        for name, role in pair["opportunity"].items():
            if not work.inputs[role].void:
                counted = work.inputs[role].json(OPPORTUNITY)
                opportunity[f"{pair['name']}/{name}"] = counted
        given = work.inputs[pair["tickets"]]
        if not given.void:
            _copy(given, target, below=Path(TICKETS).parent.name)
            linked = {name: path for name, path in files.items() if name in pair["linked"]}
            _link(target / Path(TICKETS).name, linked)
    overlap = None
    if "overlap" in work.inputs and not work.inputs["overlap"].void:
        overlap = work.inputs["overlap"].json(OVERLAP)
    summary = summarise(
        p["plan"],
        evidence,
        opportunity=opportunity,
        overlap=overlap,
        void={role: given.void for role, given in work.inputs.items() if given.void},
        root=work.folder,
        notices=p["notices"],
    )
    work.write(SUMMARY, summary)
    write_bytes(work.folder / REPORT, markdown(summary).encode("utf-8"))
    _write_manifest(work)
    outputs = (TICKET_FOLDER, SUMMARY, REPORT, MANIFEST)
    return Result(tuple(name for name in outputs if (work.folder / name).exists()))


def _copy(given: Input, target: Path, *, below: str = "") -> Path:
    """Copy the outputs of a step into ``target``; only those in folder ``below``, if named."""
    for output in given.outputs:
        if below and not output.startswith(f"{below}/"):
            continue
        to = target / (output.removeprefix(f"{below}/") if below else output)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given.path(output), to)
    return target


def _link(path: Path, evidence: Mapping[str, Path]) -> None:
    """Record in every ticket the evidence that has an arm with its rows."""
    content = read_ticket_file(path)
    manifests = {name: read_manifest(file) for name, file in evidence.items()}
    tickets = []
    for ticket in content.tickets:
        located = tuple(
            Located(path=f"{EVIDENCE_FOLDER}/{name}.json", sha256=sha256_file(evidence[name]))
            for name, manifest in manifests.items()
            if any(
                (arm.ids, arm.kind, arm.gate, arm.control) == (ticket.ids, ticket.released.object, None, None)
                for arm in manifest.arms
            )
        )
        tickets.append(ticket.model_copy(update={"evidence": located}))
    write_ticket_file(path, TicketFile(created_by=content.created_by, tickets=tuple(tickets)))


def _write_manifest(work: Work) -> None:
    """Write digests of the plan, of the inputs of the experiment and of every step, and of every file."""
    handed_on = (TICKET_FOLDER, SUMMARY, REPORT)
    places = {path: path.relative_to(work.folder) for path in work.folder.rglob("*") if path.is_file()}
    files = sorted(path for path, place in places.items() if place.parts[0] in handed_on)
    manifest = {
        "schema": "lottery.experiment",
        "schema_version": 1,
        "created_by": f"certify {__version__}",
        "plan": work.parameters["plan"],
        "plan_sha256": sha256_bytes(canonical_json(work.parameters["plan"])),
        "started_from": work.parameters["started_from"],
        "steps": {
            role: {"outputs": len(given.outputs)} | ({"void": given.void} if given.void else {})
            for role, given in sorted(work.inputs.items())
        },
        "files": {places[path].as_posix(): sha256_file(path) for path in files},
    }
    work.write(MANIFEST, manifest)


def deliver(published: Path, outputs: Iterable[str], out: Path) -> None:
    """Copy the outputs of the step ``publish`` to ``out``; equal files stay as they are."""
    wanted = set(outputs)
    for output in sorted(wanted):
        source, target = published / output, out / output
        if not target.is_file() or sha256_file(target) != sha256_file(source):
            write_bytes(target, source.read_bytes())
    for old in sorted((out / TICKET_FOLDER).rglob("*"), reverse=True):
        if old.is_file() and old.relative_to(out).as_posix() not in wanted:
            old.unlink()
        elif old.is_dir() and not any(old.iterdir()):
            old.rmdir()
