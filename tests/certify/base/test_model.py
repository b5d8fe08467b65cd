"""The one base of what is read: what is refused, in which words, and what older files become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, model_validator

from certify.base.errors import CertifyError, ExitCode, InvalidInputError, UsageError
from certify.base.model import (
    DRAFT,
    Document,
    Migration,
    Model,
    Refusal,
    json_schema,
    parse_toml,
    read,
    validate,
    validate_toml,
)

REFUSAL = Refusal("BAD", schema="OTHER", newer="NEWER")


class Row(Model):
    """A row."""

    id: Annotated[int, Field(ge=0)]
    weight: float = 1.0
    marks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _small(self) -> Row:
        if self.id > 9:
            raise ValueError("ids are digits")
        return self


def _renamed(value: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in value.items() if name != "lines"} | {"rows": value["lines"]}


class Table(Document):
    """A file of rows; version 1 called them lines, version 2 had no migration."""

    migrations: ClassVar[Mapping[int, Migration]] = {2: _renamed}

    schema_: Literal["test.table"] = Field(alias="schema", default="test.table")
    schema_version: Literal[3] = 3
    rows: tuple[Row, ...]


def content(**fields: Any) -> dict[str, Any]:
    return {"schema": "test.table", "schema_version": 3, "rows": [{"id": 1}]} | fields


def refused(value: Any, model: type[Model] = Table) -> tuple[str, str]:
    """Code and text of the refusal."""
    with pytest.raises(InvalidInputError) as caught:
        validate(model, value, what="table t", refusal=REFUSAL)
    return caught.value.code, str(caught.value)


def test_a_document_is_read_and_written_alike() -> None:
    table = validate(Table, content(rows=[{"id": 1, "weight": 2, "marks": ["a"]}]), what="t", refusal=REFUSAL)
    assert table.rows == (Row(id=1, weight=2.0, marks=("a",)),)
    assert list(table.model_dump(mode="json", by_alias=True)) == ["schema", "schema_version", "rows"]
    assert Table(rows=()).model_dump(mode="json", by_alias=True) == content(rows=[])
    with pytest.raises(ValueError, match="frozen"):
        table.rows = ()  # type: ignore[misc]


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, content(schema="test.other"), content(schema=None)])
def test_another_schema_is_refused_by_name(value: Any) -> None:
    assert refused(value) == ("OTHER", 'table t: expected the field "schema" to be "test.table"')


@pytest.mark.parametrize("version", [True, 1.0, 3.0, "3", None, [3]])
def test_a_version_is_an_integer(version: Any) -> None:
    assert refused(content(schema_version=version))[0] == "OTHER"


@pytest.mark.parametrize("version", [4, 10**30, 1 << 40_000], ids=["next", "large", "absurd"])
def test_a_newer_version_is_refused_before_its_fields_are_looked_at(version: int) -> None:
    code, text = refused(content(schema_version=version, rows="unknown", columns=[]))
    assert code == "NEWER"
    assert "was written by a newer version" in text


def test_an_older_version_is_migrated_if_someone_knows_how() -> None:
    older = content(schema_version=2, lines=[{"id": 1}])
    del older["rows"]
    assert validate(Table, older, what="t", refusal=REFUSAL) == Table(rows=(Row(id=1),))
    assert refused(older | {"lines": "x"}) == ("BAD", "table t: rows: Input should be a valid array")


@pytest.mark.parametrize("version", [1, 0, -1])
def test_an_older_version_is_refused_if_nobody_does(version: int) -> None:
    expected = f"table t has schema version {version}, which this program does not read"
    assert refused(content(schema_version=version)) == ("BAD", expected)


PROBLEMS: dict[str, tuple[Any, str]] = {
    "missing": ([{}], "missing field rows[0].id"),
    "unknown": ([{"id": 1, "Id": 1}], "unknown field rows[0].Id"),
    "an absurd name": ([{"id": 1, "x" * 500: 1}], f"unknown field rows[0].{'x' * 192}..."),
    "range": ([{"id": -1}], "rows[0].id: Input should be greater than or equal to 0"),
    "no conversion": ([{"id": "1"}], "rows[0].id: Input should be a valid integer"),
    "no truth for a number": ([{"id": True}], "rows[0].id: Input should be a valid integer"),
    "own rule": ([{"id": 10}], "rows[0]: ids are digits"),
    "nested": ([{"id": 1, "marks": ["a", 1]}], "rows[0].marks[1]: Input should be a valid string"),
    "several": ([{"id": -1}, {}, 1], "rows[0].id: Input should be greater than or equal to 0 (and 2 more)"),
}


@pytest.mark.parametrize(("rows", "expected"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_problem_is_one_line_with_the_path(rows: Any, expected: str) -> None:
    assert refused(content(rows=rows)) == ("BAD", f"table t: {expected}")


def test_the_top_level_has_no_path() -> None:
    assert refused([], Row) == ("BAD", "table t: Input should be an object")


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_no_nan_and_no_infinity(weight: float) -> None:
    assert refused({"id": 1, "weight": weight}, Row)[0] == "BAD"
    with pytest.raises(ValueError, match="finite"):
        Row(id=1, weight=weight)


def test_each_reader_has_its_error() -> None:
    plan = Refusal("PLAN_INVALID", error=UsageError)
    for data in (
        b"id = -1",
        b"id = 2020-01-01",
        b"id =",
        b"\xff",
        b"id = " + b"9" * 5000,
        b"a=" + b"[" * 9999,
    ):
        with pytest.raises(UsageError) as caught:
            validate_toml(Row, data, what="plan p", refusal=plan)
        assert (caught.value.code, caught.value.exit_code) == ("PLAN_INVALID", ExitCode.USAGE)
        assert str(caught.value).startswith("plan p")
    assert validate_toml(Row, b"id = 1\nmarks = ['a']", what="p", refusal=plan) == Row(id=1, marks=("a",))
    assert parse_toml(b"id = 1", what="p", refusal=plan) == {"id": 1}


def test_a_file_is_read_with_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_bytes(b'{"id": 1}')
    assert read(Row, path, what="row", refusal=REFUSAL) == (Row(id=1), b'{"id": 1}')
    for data, code in (
        (b'{"id":1,"id":1}', "JSON_MALFORMED"),
        (b'{"id":-1}', "BAD"),
        (b" " * 99, "FILE_TOO_LARGE"),
    ):
        path.write_bytes(data)
        with pytest.raises(CertifyError) as caught:
            read(Row, path, what="row", refusal=REFUSAL, limit=50)
        assert caught.value.code == code
        assert str(path) in str(caught.value)


def test_the_schema_asks_for_what_a_reader_asks_for() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema(Table)
    assert schema["$schema"] == DRAFT
    assert schema["required"] == ["schema", "schema_version", "rows"]
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(content())
    for wrong in (content(schema="x"), content(schema_version=2), content(x=1), content(rows=[{"id": -1}])):
        assert not validator.is_valid(wrong)
    assert json_schema(Row)["required"] == ["id"]
