"""``certify schema``: every printed schema is valid, takes what ships, and refuses what a reader refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import in_process
from proof_files import record

from certify.base.model import Document, json_schema
from certify.cli.registry import SCHEMAS, load

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ROOT / "reports" / "published"

Capture = pytest.CaptureFixture[str]


def _json(pattern: str) -> list[Any]:
    return [json.loads(path.read_bytes()) for path in sorted(PUBLISHED.glob(pattern))]


def _toml(folder: str, field: str) -> list[Any]:
    files = (ROOT / folder).glob("*.toml")
    read = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(files)]
    return [content for content in read if field in content]


SHIPPED: dict[str, Callable[[], list[Any]]] = {
    "ticket": lambda: _json("*/tickets/tickets.json"),
    "evidence": lambda: _json("*/tickets/evidence/*.json"),
    "certificate": lambda: _json("*/tickets/certificates/*.json"),
    "model": lambda: [
        {"schema": "certify.model-source", "schema_version": 1, "created_by": "x", "name": "m"}
        | {"licence": "MIT", "files": [{"name": "m.gguf", "sha256": "0" * 64}], "dtype": "F16"}
        | {"untied": True, "tensors": {"w": {"sha256": "1" * 64, "stored": "Q4_K"}}}
    ],
    "policy": lambda: _toml("certify/policy", "items"),
    "defaults": lambda: [{"policy": "release", "workers": 2}],
    "plan": lambda: _toml("lottery/plans", "pair"),
    "proofs": lambda: [record(), record("failed", "timeout")],
}
"""Files of every kind; reports are made, and have a test of their own (tests/reports/test_schema.py)."""


def printed(kind: str, capsys: Capture) -> dict[str, Any]:
    ran = in_process(["schema", kind], capsys)
    assert (ran.code, ran.err) == (0, "")
    schema: dict[str, Any] = json.loads(ran.out)
    return schema


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_schema_is_valid_and_closed(kind: str, capsys: Capture) -> None:
    schema = printed(kind, capsys)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    for one in (schema, *schema.get("$defs", {}).values()):
        if one.get("type") == "object":
            assert one["additionalProperties"] is False, one["title"]
    model = load(SCHEMAS[kind])
    assert schema == json.loads(json.dumps(json_schema(model)))
    if issubclass(model, Document):
        assert schema["required"][:2] == ["schema", "schema_version"]
        assert schema["properties"]["schema"]["const"] == model.schema_name()


def test_nothing_is_left_out() -> None:
    assert SCHEMAS.keys() == SHIPPED.keys() | {"report", "reports", "outputs", "diff"}


@pytest.mark.parametrize("kind", SHIPPED)
def test_what_ships_conforms_and_a_change_does_not(kind: str, capsys: Capture) -> None:
    validator = jsonschema.Draft202012Validator(printed(kind, capsys))
    files = SHIPPED[kind]()
    assert files
    for content in files:
        assert list(validator.iter_errors(content)) == []
        assert not validator.is_valid(content | {"verdict": "CERTIFIED"})
        for name in {"schema", "schema_version", "format"} & content.keys():
            assert not validator.is_valid(content | {name: "x"})
            assert not validator.is_valid({key: value for key, value in content.items() if key != name})


def test_the_older_spelling_and_the_default_stay(capsys: Capture) -> None:
    assert printed("tickets", capsys) == printed("ticket", capsys)
    assert json.loads(in_process(["schema"], capsys).out) == printed("ticket", capsys)


def test_an_unknown_kind_names_the_known_ones(capsys: Capture) -> None:
    ran = in_process(["schema", "verdict"], capsys)
    assert ran.code == 2
    line = ran.one_line()
    assert "SCHEMA_UNKNOWN" in line
    assert all(kind in line for kind in SCHEMAS)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_costs_no_torch(kind: str) -> None:
    script = (
        "import sys; from certify.cli.main import run; run(['schema', sys.argv[1], '--out', sys.argv[2]]);"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'datasets'}),"
        " 'lottery' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, kind, "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert ran.stdout.strip() == f"[] {kind in ('plan', 'outputs')}"
