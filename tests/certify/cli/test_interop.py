"""transfer, apply, verify, export and import as commands: words in, files, text and exit codes out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from certify.base.errors import CertifyError, ExitCode, UsageError
from certify.cli.make.find import find
from certify.cli.use.apply import apply
from certify.cli.use.export import export, import_adapter
from certify.cli.use.transfer import transfer
from certify.cli.use.verify import verify

ROWS, WIDTH, IDS = 24, 32, (2, 9, 23)


def command_line() -> typer.Typer:
    """The commands as `certify` registers them, and nothing else."""
    app = typer.Typer(pretty_exceptions_enable=False)
    for name, function in [
        ("find", find),
        ("transfer", transfer),
        ("apply", apply),
        ("verify", verify),
        ("export", export),
        ("import", import_adapter),
    ]:
        app.command(name)(function)
    return app


def run(*words: object) -> int:
    """Exit code of a command; errors on purpose pass through."""
    result = command_line()(args=[str(word) for word in words], standalone_mode=False)
    return result if isinstance(result, int) else 0


def write_table(path: Path, table: np.ndarray) -> None:
    """A LLaMA-like checkpoint file that holds the table and a head."""
    entries, data = {}, b""
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        content = table.astype("<f2").tobytes()
        entries[name] = {
            "dtype": "F16",
            "shape": list(table.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


class Workshop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base, self.tuned = folder / "base", folder / "tuned"
        table = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
        for path in (self.base, self.tuned):
            path.mkdir()
            config = {"model_type": "llama", "tie_word_embeddings": False}
            (path / "config.json").write_text(json.dumps(config))
            write_table(path / "model.safetensors", table)
            table = table.copy()
            table[list(IDS)] += 1
        self.tickets = folder / "release" / "tickets.json"
        rule = "ids:" + ",".join(map(str, IDS))
        words = [
            "--base",
            self.base,
            "--tuned",
            self.tuned,
            "--rule",
            rule,
            "--id",
            "t",
            "--out",
            self.tickets,
        ]
        run("find", *words)
        self.ticket = ("--ticket", f"{self.tickets}#t", "--base", self.base)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workshop:
    made = Workshop(tmp_path)
    capsys.readouterr()
    return made


def test_transfer_tells_what_was_proved(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    out = shop.folder / "table.safetensors"
    assert run("transfer", *shop.ticket, "--tuned", shop.tuned, "--out", out) == 0
    text = capsys.readouterr().out
    assert "rows transferred: 3 (equal to the reference's)" in text
    assert f"rows untouched:   {ROWS - 3}" in text
    assert out.exists()


def test_apply_then_verify(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    out = shop.folder / "merged"
    assert run("apply", *shop.ticket, "--out", out, "--uncertified", "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rewritten"] == "model.safetensors"
    assert report["transfer"]["transferred"] == list(IDS)
    assert run("verify", *shop.ticket, "--served", out) == ExitCode.CERTIFIED
    assert capsys.readouterr().out.startswith("VERIFIED")
    assert run("verify", *shop.ticket, "--served", out, "--format", "json") == ExitCode.CERTIFIED
    assert json.loads(capsys.readouterr().out)["status"] == "verified"


@pytest.mark.parametrize("report_format", ["terminal", "json"])
def test_verify_refutes_with_the_same_code_in_every_format(
    shop: Workshop, report_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shop.folder / "merged"
    run("apply", *shop.ticket, "--out", out, "--uncertified")
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-1 - WIDTH * 2] ^= 1  # the last entry of row 22, outside the ticket
    (out / "model.safetensors").write_bytes(data)
    capsys.readouterr()
    assert run("verify", *shop.ticket, "--served", out, "--format", report_format) == ExitCode.REFUTED
    text = capsys.readouterr().out
    if report_format == "json":
        report = json.loads(text)
        assert report["status"] == "refuted"
        assert [(finding["code"], finding["ids"]) for finding in report["findings"]] == [("FOREIGN", [22])]
    else:
        assert text.startswith("REFUTED")
        assert "FOREIGN: 1 rows outside the ticket are not the base's: 22" in text


def test_verify_of_the_base_says_that_nothing_acts(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", *shop.ticket, "--served", shop.base) == ExitCode.REFUTED
    assert "NOT_SERVED: 3 of 3 ticket rows still hold the base's values: 2, 9, 23" in capsys.readouterr().out


def test_export_and_import(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, made = shop.folder / "adapter", shop.folder / "imported"
    words = ("--format", "peft", *shop.ticket, "--base-name", "some/base", "--uncertified")
    assert run("export", *words, "--out", adapter) == 0
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base"
    assert run("import", adapter, "--base", shop.base, "--out", made, "--id", "again") == 0
    assert "3 rows in F16" in capsys.readouterr().out
    merged = shop.folder / "merged"
    words = ("--ticket", made / "tickets.json", "--base", shop.base)
    assert run("apply", *words, "--out", merged, "--uncertified") == 0
    # Two tickets, one of them by way of an adapter, agree about what is served.
    assert run("verify", *shop.ticket, "--served", merged) == ExitCode.CERTIFIED


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("FILE_UNREADABLE", ["transfer", "--ticket", "nowhere.json", "--out", "x.safetensors"]),
        ("BASE_NEEDED", ["transfer", "--ticket", "{tickets}", "--out", "{folder}/x.safetensors"]),
        (
            "WRONG_BASE",
            ["transfer", "--ticket", "{tickets}", "--base", "{tuned}", "--out", "{folder}/x.safetensors"],
        ),
        ("WRONG_BASE", ["verify", "--ticket", "{tickets}", "--base", "{tuned}", "--served", "{base}"]),
        (
            "OUT_IS_BASE",
            ["apply", "--ticket", "{tickets}", "--base", "{base}", "--out", "{base}/x", "--uncertified"],
        ),
        (
            "OUT_EXISTS",
            ["export", "--ticket", "{tickets}", "--base", "{base}", "--out", "{tuned}", "--uncertified"],
        ),
        ("FILE_UNREADABLE", ["import", "{base}", "--base", "{base}", "--out", "{folder}/y"]),
        (
            "DTYPE_UNKNOWN",
            ["import", "{base}", "--base", "{base}", "--out", "{folder}/y", "--served-dtype", "int8"],
        ),
    ],
)
def test_errors_have_one_line_and_a_code(shop: Workshop, code: str, words: list[str]) -> None:
    names = {"tickets": shop.tickets, "folder": shop.folder, "base": shop.base, "tuned": shop.tuned}
    before = sorted(path.name for path in shop.folder.rglob("*"))
    with pytest.raises(CertifyError) as error:
        run(*(word.format(**names) for word in words))
    assert error.value.code == code
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in shop.folder.rglob("*")) == before


def test_hostile_names_do_not_drive_the_terminal(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    out = shop.folder / "merged"
    hostile = shop.base / "a\x1b[2J\u202e.txt"
    hostile.write_text("x")
    assert run("apply", *shop.ticket, "--out", out, "--uncertified") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J\\u202e.txt" in text


def test_no_torch_is_needed(shop: Workshop) -> None:
    program = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"torch", "transformers", "peft", "datasets"}}:
            raise AssertionError(name)
sys.meta_path.insert(0, Forbid())
from certify.cli.main import run
folder, words = {str(shop.folder)!r}, ["--ticket", {str(shop.tickets)!r}, "--base", {str(shop.base)!r}]
selection = ["--policy", "selection", "--tuned", {str(shop.tuned)!r}, "--out"]
done = run(["apply", *words, *selection, folder + "/m"]), run(["export", *words, *selection, folder + "/a"])
sys.exit(sum(done) + run(["verify", *words, "--served", folder + "/m"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_option_is_a_usage_error() -> None:
    with pytest.raises(Exception, match="served") as error:
        run("verify", "--ticket", "x")
    assert not isinstance(error.value, UsageError)
