"""Ticket folders as stores and checkouts keep them: links into blobs, changed line endings, what leaks."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import in_process
from evidence_folders import make_bundle
from ticket_folders import edit

import certify
import certify.checker
from certify.base.errors import InvalidInputError
from certify.base.files import inside

SECRET = '{"password_of_the_owner": 1, "password_of_the_owner": 2}\n'
LEAK = "password_of_the_owner"


@pytest.fixture(scope="module")
def _honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle")).path.parent


@pytest.fixture
def honest(_honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_honest, tmp_path / "honest"))


def as_cache(folder: Path, cache: Path) -> Path:
    """The folder as a cache of the hub lays it out: every file a link to a blob named by its digest."""
    snapshot = cache / "snapshots" / "0123abcd"
    (cache / "blobs").mkdir(parents=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            shutil.copyfile(path, cache / "blobs" / digest)
            target = snapshot / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            up = "../" * (len(target.relative_to(cache).parts) - 1)
            target.symlink_to(f"{up}blobs/{digest}")
    return snapshot


def verdicts(folder: Path, policy: str) -> tuple[int, str, str]:
    report = certify.check(folder / "tickets.json", policy=policy, engine="numpy", workers=1)
    (ticket,) = report.tickets
    opinion = certify.checker.verify(folder, policies=(policy,))[ticket.ticket.id][policy]
    return int(report.exit_code), ticket.status.value, opinion.status


@pytest.mark.parametrize("policy", ["selection", "paper", "release", "strict"])
def test_a_cache_of_links_is_judged_like_the_folder(honest: Path, tmp_path: Path, policy: str) -> None:
    expected = verdicts(honest, policy)
    assert expected == (0, "CERTIFIED", "CERTIFIED")
    assert verdicts(as_cache(honest, tmp_path / "cache"), policy) == expected


def test_a_blob_that_was_changed_is_refused(honest: Path, tmp_path: Path) -> None:
    snapshot = as_cache(honest, tmp_path / "cache")
    for path in sorted(snapshot.rglob("*")):
        if not path.is_symlink() or path.name == "tickets.json":
            continue
        blob, before = path.resolve(), path.read_bytes()
        blob.write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if before else b"x")
        code, status, opinion = verdicts(snapshot, "strict")
        assert (code, status, opinion) == (4, "INVALID", "INVALID"), path
        blob.write_bytes(before)


def everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    said = ""
    for policy in ("selection", "release"):
        for words in (
            ["check", folder / "tickets.json", "--policy", policy],
            ["check", folder / "tickets.json", "--policy", policy, "--format", "json"],
            ["checker", folder, "--policy", policy],
        ):
            ran = in_process(words, capsys)
            assert ran.code in {0, 1, 3, 4}, words
            said += ran.out + ran.err
    return said


def test_no_link_shows_what_lies_elsewhere(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    names = sorted(path.relative_to(honest) for path in honest.rglob("*") if path.is_file())
    for number, name in enumerate(names):
        if name.name == "tickets.json":
            continue
        folder = Path(shutil.copytree(honest, tmp_path / str(number)))
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        assert LEAK not in everything(folder, capsys), name


def test_what_no_digest_states_may_not_lead_out(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = next(path for path in honest.rglob("certificate*.json"))
    outside = tmp_path / "certificate.json"
    shutil.move(certificate, outside)
    certificate.symlink_to(outside)
    assert verdicts(honest, "release")[0] == 0
    edit(honest / "tickets.json", lambda t: t["certificate"].update(sha256=None))
    assert verdicts(honest, "release") == (4, "INVALID", "INVALID")
    outside.write_text(SECRET)
    assert LEAK not in everything(honest, capsys)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors.index.json"])
def test_what_lies_unbound_beside_a_table_may_not_lead_out(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    for folder in ("base", "reference"):
        (honest / folder / name).unlink(missing_ok=True)
        (honest / folder / name).symlink_to(secret)
    assert LEAK not in everything(honest, capsys) if name != "model.safetensors.index.json" else True


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/hostname", ".."])
def test_a_path_is_contained_as_it_is_written(tmp_path: Path, relative: str) -> None:
    (tmp_path / "x").write_text("x")
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    stated = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(InvalidInputError) as error:
        inside(folder, relative, stated, like=lambda _: True)
    assert error.value.code == "PATH_ESCAPES"


# --- line endings ------------------------------------------------------------------------------------------


def to_crlf(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def test_a_checkout_that_changed_line_endings_is_named(honest: Path) -> None:
    texts = [p for p in sorted(honest.rglob("*")) if p.suffix in {".json", ".jsonl", ".txt", ".toml"}]
    converted = [path for path in texts if b"\n" in path.read_bytes()]
    assert len(converted) > 5
    for path in converted:
        before = path.read_bytes()
        to_crlf(path)
        report = certify.check(honest / "tickets.json", policy="strict", engine="numpy", workers=1)
        (ticket,) = report.tickets
        codes = {item.code for item in ticket.items}
        if path.name == "tickets.json" or path.suffix == ".toml":  # their content counts, not their bytes
            assert int(report.exit_code) == 0, path
        else:
            assert int(report.exit_code) == 4, path
            assert "LINE_ENDINGS" in codes, path
            said = next(item.text for item in ticket.items if item.code == "LINE_ENDINGS")
            assert ".gitattributes" in said
        path.write_bytes(before)


@pytest.mark.parametrize(
    "change", [lambda data: data + b"x", lambda data: data.replace(b"\r\n", b"\r\n\r\n", 1), lambda _: b""]
)
def test_another_change_is_not_called_line_endings(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    text = json.dumps({"a": 1}, indent=2).encode()
    (tmp_path / "x.json").write_bytes(change(text.replace(b"\n", b"\r\n")))
    assert inside(tmp_path, "x.json", hashlib.sha256(text).hexdigest()) == tmp_path / "x.json"
