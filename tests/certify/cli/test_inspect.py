"""``certify inspect``: what ships is known by its schema, what is malformed or unknown is refused."""

from __future__ import annotations

import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from command import ROOT, following, in_process
from evidence_folders import make_bundle
from proof_files import record
from ticket_folders import edit, file_sha256, tied_sources, write_json

from certify.certificate import schema
from certify.certificate.schema import parse_certificate as parse
from certify.cli.main import run
from certify.cli.registry import READ, SCHEMAS
from certify.cli.use.inspect import SUMMARIES
from certify.models.importing import import_model

Capture = pytest.CaptureFixture[str]


KINDS = {
    "ticket": "ticket tiny: 5 of 64 rows, F16, rule ks at 0.05, transfer, declares guarantee, digest",
    "certificate": "texts: synthetic (evaluation), unrelated (loss), synthetic (other-template)",
    "evidence": "made: translation",
    "policy": "name: release",
    "plan": "pairs: en-ca",
    "pretraining": "name: base-small",
    "model": "tensors: 2",
    "outputs": "engine: another",
    "diff": "ids_added: 0",
    "report": "tickets: tiny CERTIFIED",
    "reports": "reports: 2",
    "proofs": "checks: ",
    "run": "status: complete",
    "choice": "chosen: a",
    "calibration": "t: 0.9",
    "experiment": "plan: smollm2-es-en, sha256 42d18d0db15f",
    "summary": "texts: es-en/flores, es-en/tatoeba",
    "token counts": "with a token: ",
    "rows of a ticket": "rows: 5",
    "moved rows of a table": "rows: 9",
    "tensors": "model.embed_tokens.weight: F16 [64, 32]",
    "scan": "rows: 64",
}
"""Every kind of file, and what is said of the one that is made here."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind, written by the command that writes it, or as its format says."""
    root = tmp_path_factory.mktemp("files")
    bundle = make_bundle(root)
    base, tuned = root / "sources" / "checkpoint", root / "sources" / "tuned.safetensors"
    pair = ["--base", base, "--tuned", tuned]

    def made(name: str, *words: object) -> Path:
        with (root / name).open("w") as out, redirect_stdout(out):
            assert run([str(word) for word in words]) == 0
        return root / name

    def written(name: str, **fields: object) -> Path:
        return write_json(root / name, fields | {"schema_version": 1})

    import_model([tied_sources(root / "tied")[0]], root / "copy", untie=True)
    made("said.txt", "scan", *pair, "--out", root / "scan.csv")
    made("said.txt", "table", "diff", base, tuned, "--out", root / "moved.safetensors")
    check = ("--policy", "selection", "--format", "json")
    run_of = {name: {} for name in ("identity", "details", "versions", "outcome")}
    decoding = {"beams": 1, "max_new_tokens": 8, "dtype": "F16"}
    return {
        "ticket": bundle.path,
        "certificate": bundle.certificate,
        "evidence": bundle.translated,
        "policy": ROOT / "certify/policy/release.toml",
        "plan": ROOT / "lottery/plans/smoke.toml",
        "pretraining": ROOT / "lottery/plans/base-small.toml",
        "model": root / "copy" / "source.json",
        "outputs": written(
            "o.jsonl", schema="certify.outputs", engine="another", version="1", decoding=decoding
        ),
        "diff": made("diff.json", "diff", bundle.path, bundle.path, "--format", "json"),
        "report": made("report.json", "check", bundle.path, *check),
        "reports": made("reports.json", "check", bundle.path, bundle.copy(root / "b").path, *check),
        "proofs": write_json(root / "proofs.json", record()),
        "run": written("run.json", schema="lottery.tune", created_by="x", status="complete", **run_of),
        "choice": written(
            "choice.json",
            schema="certify.choice",
            sentences=["0" * 16],
            candidates=[{"arm": "a", "ids": [1]}],
            chosen="a",
        ),
        "calibration": bundle.folder / "calibrations" / "tiny.json",
        "experiment": ROOT / "reports/published/smollm2-es-en/manifest.json",
        "summary": ROOT / "reports/published/smollm2-es-en/summary.json",
        "token counts": ROOT / "reports/published/smollm2-es-en/tickets/counts/template.npy",
        "rows of a ticket": next((bundle.folder / "rows").glob("*.safetensors")),
        "moved rows of a table": root / "moved.safetensors",
        "tensors": base / "model.safetensors",
        "scan": root / "scan.csv",
    }


def test_every_kind_is_here() -> None:
    assert SUMMARIES.keys() == (SCHEMAS.keys() | READ.keys()) - {"defaults"}
    assert SUMMARIES.keys() < KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_every_kind_is_known_and_what_comes_next_can_be_run(
    kind: str, files: dict[str, Path], capsys: Capture
) -> None:
    path = files[kind]
    ran = in_process(["inspect", path], capsys)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"{path}: {kind}")
    assert lines[1] == f"sha256 {file_sha256(path)}"
    assert [line for line in lines[2:] if line.startswith(KINDS[kind])], ran.out
    data = json.loads(in_process(["inspect", path, "--format", "json"], capsys).out)
    assert [f"{name}: {value}" for name, value in data["facts"].items()] == lines[2 : 2 + len(data["facts"])]
    takes = kind.startswith("moved") or bool(SUMMARIES.get(kind, ((), ()))[1])
    assert takes == lines[-1].startswith("next: ")
    assert not takes or str(path) in following(ran.out)


def test_a_certificate_is_read_once_and_must_be_canonical(
    files: dict[str, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    monkeypatch.setattr(schema, "parse_certificate", lambda *a, **k: parsed.append(a) or parse(*a, **k))
    assert in_process(["inspect", files["certificate"]], capsys).code == len(parsed) - 1 == 0
    loose = write_json(tmp_path / "c.json", json.loads(files["certificate"].read_bytes()))
    assert in_process(["inspect", loose], capsys).one_line().endswith("[CERTIFICATE_NOT_CANONICAL]")


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.json", b"[1]", "INSPECT_UNKNOWN"),
        ("a.json", b'{"schema": "other"}', "INSPECT_UNKNOWN"),
        ("a.json", b'{"schema": ["certify.tickets"]}', "INSPECT_UNKNOWN"),
        ("a.json", b'{"schema": "certify.tickets", "schema": "x"}', "JSON_MALFORMED"),
        ("a.json", b'{"schema": "certify.tickets", "schema_version": 99}', "INSPECT_MALFORMED"),
        ("a.bin", b"\x80\x04\x95\x00\x00", "PICKLE_REFUSED"),
        ("a.csv", b"a,b\n1,2\n", "INSPECT_UNKNOWN"),
        ("a.toml", b"x = ", "INSPECT_MALFORMED"),
        ("a.jsonl", b'{"id": "x"}\n', "INSPECT_UNKNOWN"),
        ("a.safetensors", b"\xff" * 40, "SAFETENSORS_TRUNCATED"),
    ],
)
def test_a_file_that_is_not_of_ours_has_one_line(
    name: str, data: bytes, code: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    ran = in_process(["inspect", path], capsys)
    assert ran.code == 4
    assert code in ran.one_line()


def test_a_ticket_of_several_is_named_as_everywhere(capsys: Capture) -> None:
    spec = f"{ROOT}/reports/published/smollm2-es-en/tickets/tickets.json#template"
    ran = in_process(["inspect", spec], capsys)
    assert (ran.code, ran.err) == (0, "")
    assert re.findall("^ticket [^:]*", ran.out, re.MULTILINE) == ["ticket template"]
    assert following(ran.out) == ["check", spec]
    refused = in_process(["inspect", f"{spec}s"], capsys)
    assert refused.code == 2
    assert "no ticket 'templates' in " in refused.one_line()
    assert (
        "TICKET_UNKNOWN"
        in in_process(["inspect", spec.replace("tickets.json", "evidence/flores.json")], capsys).err
    )


@pytest.mark.parametrize("path", sorted(ROOT.glob("reports/published/*/[ms][au]*.json")), ids=str)
def test_published_experiments_are_read(path: Path, capsys: Capture) -> None:
    assert in_process(["inspect", path], capsys).code == 0


def test_an_unknown_field_is_a_problem_in_one_line(ticket_path: Path, capsys: Capture) -> None:
    edit(ticket_path, lambda content: content.update(verdict="CERTIFIED"))
    ran = in_process(["inspect", ticket_path], capsys)
    assert ran.code == 4
    assert "unknown field tickets[0].verdict" in ran.one_line()
