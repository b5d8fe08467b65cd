"""``certify card``: the certificate is the ticket's, the file is written as a whole, and exit codes tell."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from command import in_process
from evidence_folders import Bundle, make_bundle

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundle(shared: Bundle, tmp_path: Path) -> Bundle:
    return shared.copy(tmp_path / "bundle")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def test_a_card_is_written_checked_and_found_changed(bundle: Bundle, tmp_path: Path, capsys: Capture) -> None:
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n# Mine\n", encoding="utf-8")
    assert in_process(["card", "--check", card, bundle.path], capsys).code == 1
    assert in_process(["card", bundle.path, "--out", card], capsys).code == 0
    text = card.read_text(encoding="utf-8")
    assert hashlib.sha256(bundle.certificate.read_bytes()).hexdigest() in text
    assert text.startswith("---\nlicense: mit\n")
    for named in (bundle.path, f"{bundle.path}#tiny", bundle.certificate, f"{bundle.certificate}#tiny"):
        assert in_process(["card", "--check", card, named], capsys).code == 0
        assert in_process(["card", named], capsys).out.splitlines()[-20:-1] == text.splitlines()[-20:-1]
    card.write_text(text.replace("| 66 ×", "| 660 ×", 1), encoding="utf-8")
    ran = in_process(["card", "--check", card, bundle.path], capsys)
    assert (ran.code, ran.err) == (1, "")
    assert "660 ×" in ran.out
    card.write_text(text.replace("<!-- certify card: end -->", ""), encoding="utf-8")
    ran = in_process(["card", "--check", card, bundle.path], capsys)
    assert (ran.code, ran.one_line()[-16:]) == (4, "[CARD_MALFORMED]")


def _changed(bundle: Bundle) -> None:
    bundle.certificate.write_bytes(bundle.certificate.read_bytes().replace(b'"66"', b'"67"') + b"\n")


def _of_another_ticket(bundle: Bundle) -> None:
    bundle.adopt("0" * 64)


def _older(bundle: Bundle) -> None:
    def change(value: dict) -> None:
        value |= {"schema_version": 2, "signature": value["signature"].replace("schema:3", "schema:2")}
        del value["earlier"]

    bundle.edit_certificate(change)


def _none(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket.update(certificate=None))


def _lost(bundle: Bundle) -> None:
    bundle.certificate.unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "exit_code"),
    [
        (_changed, "CERTIFICATE_NOT_CANONICAL", 4),
        (_of_another_ticket, "CERTIFICATE_OTHER_TICKET", 4),
        (_older, "CERTIFICATE_OLDER", 4),
        (_none, "NO_CERTIFICATE", 5),
        (_lost, "FILE_MISSING", 5),
    ],
)
def test_no_card_of_another_certificate(
    bundle: Bundle, tmp_path: Path, capsys: Capture, spoil: object, code: str, exit_code: int
) -> None:
    spoil(bundle)  # type: ignore[operator]
    ran = in_process(["card", bundle.path, "--out", tmp_path / "README.md"], capsys)
    assert (ran.code, ran.out) == (exit_code, "")
    assert ran.one_line().endswith(f"[{code}]")
    assert not (tmp_path / "README.md").exists()


def test_inputs_are_not_written_over(bundle: Bundle, tmp_path: Path, capsys: Capture) -> None:
    for out in (bundle.path, bundle.certificate):
        before = out.read_bytes()
        ran = in_process(["card", bundle.path, "--out", out], capsys)
        assert (ran.code, out.read_bytes()) == (2, before)
    other = tmp_path / "other.json"
    shutil.copy(bundle.certificate, other)
    ran = in_process(["card", f"{other}#another"], capsys)
    assert ran.one_line().endswith("[CERTIFICATE_OTHER_TICKET]")
    ran = in_process(["card", other, "--out", "x", "--check", "x"], capsys)
    assert ran.one_line().endswith("[USAGE]")
