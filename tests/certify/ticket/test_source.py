"""Where a model came from: the record beside it, in the ticket and in reports; no verdict rests on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import in_process
from safetensors.numpy import load_file, save_file
from ticket_folders import file_sha256, tied_sources

import certify
import lottery
from certify.base.errors import CertifyError
from certify.models.importing import import_model
from certify.ticket.schema import read_ticket_file
from reports.view import view


def untied(folder: Path) -> tuple[Path, Path]:
    """The untied copy of a tied checkpoint, and a tuned table."""
    checkpoint, tuned = tied_sources(folder / "tied")
    import_model([checkpoint], folder / "copy", untie=True)
    return folder / "copy", tuned


@pytest.mark.parametrize("bundle", [True, False])
def test_a_ticket_on_a_copy_says_so(bundle: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, tuned = untied(tmp_path)
    out = tmp_path / "t" / "tickets.json"
    lottery.find(copy, tuned, out=out, ticket_id="x", bundle=bundle, engine="numpy")
    (ticket,) = read_ticket_file(out).tickets
    assert ticket.base.source is not None
    assert ticket.base.source.sha256 == file_sha256(copy / "source.json")
    assert ticket.base.source.line.endswith(", output head untied")
    inputs = {} if bundle else {"base": copy, "reference": tuned, "tokenizer": copy}
    report = certify.check(out, policy="selection", engine="numpy", **inputs)
    assert int(report.exit_code) == 0
    merged = ["apply", "--ticket", out, "--base", copy, "--out", tmp_path / "merged", "--policy", "selection"]
    assert in_process([*merged, "--tuned", tuned], capsys).code == 0
    assert not (tmp_path / "merged" / "source.json").exists()
    assert view(report)["tickets"][0]["table"]["source"] == ticket.base.source.line
    words = [word for name, path in inputs.items() for word in (f"--{name}", path)]
    ran = in_process(["check", out, "--policy", "selection", "--verbose", *words], capsys)
    assert f"base, as stated: {ticket.base.source.line}" in " ".join(ran.out.split())
    content = json.loads(out.read_text())
    del content["tickets"][0]["base"]["source"]
    out.write_text(json.dumps(content))
    (without,) = read_ticket_file(out).tickets
    assert without.digest() != ticket.digest()
    assert int(certify.check(out, policy="selection", engine="numpy", **inputs).exit_code) == 0


def test_a_record_of_another_table_makes_no_ticket(tmp_path: Path) -> None:
    copy, tuned = untied(tmp_path)
    weights = load_file(copy / "model.safetensors")
    weights["model.embed_tokens.weight"] = np.ascontiguousarray(weights["model.embed_tokens.weight"][::-1])
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(CertifyError) as caught:
        lottery.find(copy, tuned, out=tmp_path / "tickets.json", ticket_id="x", engine="numpy")
    assert caught.value.code == "SOURCE_DIFFERS"
    with pytest.raises(CertifyError) as caught:
        import_model([copy], tmp_path / "again")
    assert caught.value.code == "SOURCE_DIFFERS"
