"""The ticket file: what is read, what is refused, and under which reason code."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples
from ticket_strategies import (
    damages,
    escaping_paths,
    lookup,
    places,
    relative_paths,
    ticket_files,
)

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.base.files import inside
from certify.base.model import json_schema
from certify.ticket.schema import (
    TicketFile,
    choose,
    parse_ticket_file,
    read_ticket_file,
    write_ticket_file,
)

SHA = "0123456789abcdef" * 4
Change = Callable[[dict[str, Any]], Any]


def valid() -> dict[str, Any]:
    """A file with one ticket that fills every field."""
    table = {
        "path": "base",
        "files": [{"path": "base/model.safetensors", "sha256": SHA}],
        "tensor": "model.embed_tokens.weight",
        "dtype": "F16",
        "shape": [64, 32],
        "tensor_sha256": SHA,
        "tied": False,
    }
    token = {"piece": "▁the", "h": 31, "p": 1e-9, "log10_p": -9.0, "shift_norm": 0.5}
    ticket = {
        "id": "en-ca",
        "base": table,
        "reference": copy.deepcopy(table),
        "tokenizer": {
            "path": "base/tokenizer.json",
            "files": [{"path": "base/tokenizer.json", "sha256": SHA}],
            "sha256": SHA,
            "size": 60,
        },
        "template": {"name": "alpaca", "sha256": SHA, "path": "template.json"},
        "selection": {
            "rule": "ks",
            "alpha": "0.05",
            "correction": "none",
            "method": "exact",
            "n": 32,
            "tests": 57,
            "h_alpha": 11,
            "tau": 0.34,
            "seed": None,
            "counts": {"path": "counts.npy", "sha256": SHA},
            "excluded": [{"reason": "special: bos <s>", "ids": [1]}],
        },
        "released": {
            "object": "transfer",
            "rows": {"path": "rows/x.safetensors", "sha256": SHA, "fp32_sha256": SHA, "served_sha256": SHA},
        },
        "tokens": [{"id": 5} | token, {"id": 9} | token],
        "declared": [
            {
                "kind": "quality",
                "comparator": "base",
                "margin": "0.5",
                "delta": "0.05",
                "extraction": "first-line",
            }
        ],
        "evidence": [{"path": "evidence.json", "sha256": SHA}],
        "certificate": {"path": "certificate.json", "sha256": None},
    }
    return {
        "schema": "certify.tickets",
        "schema_version": 2,
        "created_by": "a test",
        "tickets": [ticket],
    }


def changed(*path: Any, to: Any) -> dict[str, Any]:
    value = valid()
    lookup(value, path[:-1])[path[-1]] = to
    return value


def code_of(value: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        parse_ticket_file(value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    return caught.value.code


# --- what is read ----------------------------------------------------------------------------------------


@settings(max_examples=examples(15))
@given(ticket_files())
def test_a_valid_file_survives_the_round_trip(value: Any) -> None:
    content = parse_ticket_file(value)
    text = content.to_json()
    assert json.loads(text) == value
    assert parse_ticket_file(json.loads(text)) == content
    assert "\x1b" not in text


@settings(max_examples=examples(15))
@given(ticket_files())
def test_reading_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("t") / "tickets.json"
    content = parse_ticket_file(value)
    write_ticket_file(path, content)
    assert read_ticket_file(path) == content


def test_the_full_example_is_valid() -> None:
    (ticket,) = parse_ticket_file(valid()).tickets
    assert ticket.ids == (5, 9)
    assert json.loads(parse_ticket_file(valid()).to_json()) == valid()


def test_claims_evidence_and_certificate_may_be_left_out() -> None:
    value = valid()
    for name in ("declared", "evidence", "certificate"):
        del value["tickets"][0][name]
    (ticket,) = parse_ticket_file(value).tickets
    assert (ticket.declared, ticket.evidence, ticket.certificate) == ((), (), None)


def test_the_digest_binds_what_is_asserted_and_nothing_else() -> None:
    def digest(value: dict[str, Any]) -> str:
        return parse_ticket_file(value).tickets[0].digest()

    asserted = {k: v for k, v in valid()["tickets"][0].items() if k not in {"evidence", "certificate"}}
    text = json.dumps(asserted, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest(valid()) == hashlib.sha256(text.encode()).hexdigest()
    assert digest(changed("tickets", 0, "evidence", to=[])) == digest(valid())
    assert digest(changed("tickets", 0, "certificate", to=None)) == digest(valid())
    assert digest(changed("tickets", 0, "declared", 0, "margin", to="0.6")) != digest(valid())
    assert digest(changed("tickets", 0, "tokens", 0, "h", to=30)) != digest(valid())


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, {"schema": "certify.report"}, {"schema": None}])
def test_another_document_is_not_a_ticket_file(value: Any) -> None:
    assert code_of(value) == "TICKET_SCHEMA"


@pytest.mark.parametrize("version", [3, 4, 10**30])
def test_newer_versions_are_refused_by_name(version: int) -> None:
    assert code_of(changed("schema_version", to=version)) == "TICKET_NEWER"


@pytest.mark.parametrize("version", [0, -1, 1.0, 2.0, "1", True, None, [1]])
def test_a_version_that_is_none_is_refused(version: Any) -> None:
    assert code_of(changed("schema_version", to=version)) in {"TICKET_SCHEMA", "TICKET_MALFORMED"}


def test_a_file_must_say_its_version() -> None:
    value = valid()
    del value["schema_version"]
    assert code_of(value) in {"TICKET_SCHEMA", "TICKET_MALFORMED"}


OBJECTS = [path for path in places(valid()) if isinstance(lookup(valid(), path), dict)]


@pytest.mark.parametrize("name", ["unknown", "schema_", "__class__", ""])
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: ".".join(map(str, path)) or "top")
def test_unknown_fields_are_refused_at_every_level(path: tuple[Any, ...], name: str) -> None:
    value = valid()
    lookup(value, path)[name] = 1
    assert code_of(value) == "TICKET_MALFORMED"


REQUIRED = [
    path
    for path in places(valid())
    if path
    and isinstance(path[-1], str)
    and path[-1] not in {"declared", "evidence", "certificate"}
    and "declared" not in path
    and "evidence" not in path
    and "certificate" not in path
    and path[-2:] != ("template", "path")
]


@pytest.mark.parametrize("path", REQUIRED, ids=lambda path: ".".join(map(str, path)))
def test_no_field_may_be_missing(path: tuple[Any, ...]) -> None:
    value = valid()
    del lookup(value, path[:-1])[path[-1]]
    assert code_of(value) in {"TICKET_MALFORMED", "TICKET_SCHEMA"}


WRONG_KIND: tuple[Any, ...] = (True, "1", 1.5, [], {}, [1], None)


@pytest.mark.parametrize(
    "path",
    [
        ("base", "shape", 0),
        ("tokenizer", "size"),
        ("selection", "n"),
        ("selection", "tests"),
        ("selection", "h_alpha"),
        ("selection", "excluded", 0, "ids", 0),
        ("tokens", 0, "id"),
        ("tokens", 0, "h"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
@pytest.mark.parametrize("wrong", [*WRONG_KIND, 1.0, -1, 2**40, 10**400])
def test_an_integer_is_an_integer(path: tuple[Any, ...], wrong: Any) -> None:
    assert code_of(changed("tickets", 0, *path, to=wrong)) == "TICKET_MALFORMED"


@pytest.mark.parametrize("name", ["p", "log10_p", "shift_norm"])
@pytest.mark.parametrize("wrong", [True, "1", [], {}, None, 10**400, -(10**400)])
def test_a_number_is_a_number(name: str, wrong: Any) -> None:
    assert code_of(changed("tickets", 0, "tokens", 0, name, to=wrong)) == "TICKET_MALFORMED"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("p", 0.0), ("p", -0.5), ("p", 1.5), ("log10_p", 0.5), ("shift_norm", -0.5)],
)
def test_figures_stay_in_their_ranges(name: str, wrong: float) -> None:
    assert code_of(changed("tickets", 0, "tokens", 0, name, to=wrong)) == "TICKET_MALFORMED"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["p", "log10_p", "shift_norm"])
def test_figures_are_finite(tmp_path: Path, name: str, text: str) -> None:
    value = changed("tickets", 0, "tokens", 0, name, to="@")
    path = tmp_path / "tickets.json"
    path.write_text(json.dumps(value).replace('"@"', text), encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        read_ticket_file(path)
    assert caught.value.code == "JSON_MALFORMED"


@pytest.mark.parametrize(
    "path",
    [
        ("id",),
        ("base", "path"),
        ("base", "tensor"),
        ("base", "tensor_sha256"),
        ("selection", "rule"),
        ("selection", "alpha"),
        ("tokens", 0, "piece"),
        ("released", "object"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
@pytest.mark.parametrize("wrong", [True, 1, 1.5, [], {}, ["a"], "\ud800"])
def test_text_is_text(path: tuple[Any, ...], wrong: Any) -> None:
    assert code_of(changed("tickets", 0, *path, to=wrong)) == "TICKET_MALFORMED"


def _tokens(*ids: int) -> dict[str, Any]:
    value = valid()
    token = value["tickets"][0]["tokens"][0]
    value["tickets"][0]["tokens"] = [{**token, "id": i} for i in ids]
    return value


@pytest.mark.parametrize(
    "value",
    [
        _tokens(5, 5),
        _tokens(9, 5),
        _tokens(-1),
        _tokens(64),
        changed("tickets", 0, "selection", "excluded", 0, "ids", to=[]),
        changed("tickets", 0, "selection", "excluded", 0, "ids", to=[1, 1]),
        changed("tickets", 0, "selection", "excluded", 0, "ids", to=[2, 1]),
        changed("tickets", 0, "selection", "excluded", 0, "ids", to=[-1]),
        changed("tickets", 0, "base", "shape", to=[63, 32]),
        changed("tickets", 0, "base", "shape", to=[64, 32, 1]),
        changed("tickets", 0, "base", "shape", to=[0, 32]),
        changed("tickets", 0, "reference", "dtype", to="BF16"),
        changed("tickets", 0, "base", "dtype", to="I8"),
        changed("tickets", 0, "base", "dtype", to="f16"),
        changed("tickets", 0, "selection", "n", to=31),
        changed("tickets", 0, "tokens", 0, "h", to=33),
        changed("tickets", 0, "base", "path", to=None),
        changed("tickets", 0, "base", "files", to=[]),
        changed("tickets", 0, "tokenizer", "files", to=[]),
        changed("tickets", 0, "base", "tied", to=0),
        changed("tickets", 0, "base", "files", to=[{"path": "x", "sha256": SHA}] * 2000),
        changed("tickets", 0, "selection", "correction", to="NONE"),
        changed("tickets", 0, "selection", "method", to="auto"),
        changed("tickets", 0, "released", "object", to="merged"),
        changed("tickets", 0, "selection", "tau", to=0),
        changed("tickets", 0, "declared", 0, "margin", to="1e5"),
        changed("tickets", 0, "declared", 0, "margin", to=0.5),
        changed("tickets", 0, "declared", 0, "delta", to="2"),
        changed("tickets", to=[valid()["tickets"][0]] * 2),
        changed("tickets", to={}),
        changed("tickets", to=None),
    ],
    ids=range(31),
)
def test_contradictions_are_refused(value: dict[str, Any]) -> None:
    assert code_of(value) == "TICKET_MALFORMED"


@pytest.mark.parametrize(
    "alpha",
    [
        "0",
        "1",
        "0.0",
        "1.0",
        "5e-2",
        "1e-2",
        "0.05 ",
        " 0.05",
        "0.05\n",
        "-0.05",
        "0,05",
        "nan",
        "٠.05",
        "0." + "0" * 100 + "1",
    ],
)
def test_a_level_is_a_plain_decimal_between_0_and_1(alpha: str) -> None:
    assert code_of(changed("tickets", 0, "selection", "alpha", to=alpha)) == "TICKET_MALFORMED"


@pytest.mark.parametrize(
    "sha", ["", SHA[:-1], SHA + "0", SHA.upper(), SHA[:-1] + "g", SHA + "\n", "sha256:" + SHA]
)
@pytest.mark.parametrize(
    "path",
    [
        path
        for path in places(valid()["tickets"][0])
        if path and str(path[-1]).endswith("sha256") and "certificate" not in path
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_digest_is_64_lower_case_hexadecimal_digits(path: tuple[Any, ...], sha: str) -> None:
    assert code_of(changed("tickets", 0, *path, to=sha)) == "TICKET_MALFORMED"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-a", "a" * 65, "é", "a\n", "a\x1b"])
def test_a_ticket_has_a_plain_name(name: str) -> None:
    assert code_of(changed("tickets", 0, "id", to=name)) == "TICKET_MALFORMED"


PATHS = [path for path in places(valid()["tickets"][0]) if path and path[-1] == "path"]


@given(st.sampled_from(PATHS), escaping_paths())
def test_no_path_may_leave_the_folder(path: tuple[Any, ...], escaping: str) -> None:
    assert code_of(changed("tickets", 0, *path, to=escaping)) == "TICKET_MALFORMED"


@given(st.sampled_from(PATHS), relative_paths())
def test_ordinary_paths_are_accepted(path: tuple[Any, ...], relative: str) -> None:
    parse_ticket_file(changed("tickets", 0, *path, to=relative))


@given(st.data())
def test_damaged_files_parse_or_are_refused_in_one_line(data: st.DataObject) -> None:
    damage = data.draw(damages(valid()))
    message = ""
    try:
        parse_ticket_file(damage.apply(valid()))
    except InvalidInputError as error:
        message = str(error)
    assert message.isprintable(), damage.text


def test_many_special_ids_and_a_long_list_of_ids_fit() -> None:
    # Llama 3 has 256 special ids; a rule may name every row of a large ticket.
    groups = [{"reason": f"special: {i}", "ids": [i]} for i in range(1000)]
    parse_ticket_file(changed("tickets", 0, "selection", "excluded", to=groups))
    rule = "ids:" + ",".join(str(i) for i in range(100_000, 110_000))
    parse_ticket_file(changed("tickets", 0, "selection", "rule", to=rule))


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_ticket_file(tmp_path / "tickets.json")


# --- choosing, resolving ---------------------------------------------------------------------------------


def test_choosing_keeps_the_order_of_the_file() -> None:
    value = valid()
    for name in ("b", "a"):
        value["tickets"].append({**value["tickets"][0], "id": name})
    content = parse_ticket_file(value)
    assert [t.id for t in choose(content, [])] == ["en-ca", "b", "a"]
    assert [t.id for t in choose(content, ["a", "en-ca", "a"])] == ["en-ca", "a"]
    with pytest.raises(CertifyError, match=r"no ticket 'zz' .* a, b, en-ca"):
        choose(content, ["a", "zz"])


def test_a_link_leads_out_of_the_folder_only_to_what_is_stated(tmp_path: Path) -> None:
    folder, outside = tmp_path / "ticket", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("secret")
    stated, other = (hashlib.sha256(text).hexdigest() for text in (b"secret", b"x"))
    (folder / "real").write_text("x")
    (folder / "good").symlink_to("real")
    (folder / "blob").symlink_to(outside)
    (folder / "up").symlink_to("..")
    (folder / "elsewhere").symlink_to(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    for sha256 in (None, stated, other):
        assert inside(folder, "good", sha256) == folder.resolve() / "good"
    assert inside(folder, "blob", stated) == folder.resolve() / "blob"
    assert inside(folder, "blob", like=lambda path: path.read_text() == "secret")
    for relative, sha256 in (
        *(("blob", None), ("blob", other), ("up", None), ("up", stated), ("up/folder", None)),
        *(("up/outside", None), ("up/outside", other), ("elsewhere", None), ("elsewhere/x", stated)),
    ):
        with pytest.raises(InvalidInputError) as caught:
            inside(folder, relative, sha256)
        assert caught.value.code == "PATH_ESCAPES"


@pytest.mark.parametrize("relative", ["loop", "x" * 300, "a/" * 500 + "b"])
def test_paths_that_no_file_system_takes_are_refused(tmp_path: Path, relative: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    try:
        found = inside(tmp_path, relative)
    except InvalidInputError:
        return
    assert not found.exists()


# --- the printed schema ----------------------------------------------------------------------------------


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether ``value`` conforms to the part of JSON Schema that is used here; loud about the rest."""
    known = {"$schema", "$defs", "$ref", "title", "description", "default", "type", "properties", "required"}
    known |= {
        "additionalProperties",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "anyOf",
        "enum",
        "const",
    }
    known |= {
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
    }
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema and not any(conforms(value, one, root) for one in schema["anyOf"]):
        return False
    if "const" in schema and (type(value), value) != (type(schema["const"]), schema["const"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    kind = schema.get("type")
    if kind == "null":
        return value is None
    if kind is not None and not (
        isinstance(value, kinds[kind]) and (kind == "boolean") == isinstance(value, bool)
    ):
        return False
    if isinstance(value, dict):
        if set(schema.get("required", ())) - set(value):
            return False
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is False and set(value) - set(properties):
            return False
        return all(conforms(value[key], properties[key], root) for key in value if key in properties)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return False
        kinds_of = schema.get("prefixItems", [schema.get("items", {})] * len(value))
        return all(conforms(entry, one, root) for entry, one in zip(value, kinds_of, strict=False))
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return False
        return "pattern" not in schema or re.search(schema["pattern"], value) is not None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
            and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        )
    return True


def test_the_printed_schema_is_json_and_closed() -> None:
    schema = json.loads(json.dumps(json_schema(TicketFile)))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for one in (schema, *schema["$defs"].values()):
        if one.get("type") == "object":
            assert one["additionalProperties"] is False, one["title"]
    assert {"schema", "schema_version", "created_by", "tickets"} <= set(schema["required"])


@settings(max_examples=examples(15))
@given(ticket_files())
def test_the_printed_schema_accepts_valid_files(value: Any) -> None:
    assert conforms(value, json_schema(TicketFile), json_schema(TicketFile))


@pytest.mark.parametrize(
    "value",
    [
        changed("schema", to="x"),
        changed("schema_version", to=3),
        changed("tickets", 0, "tokens", 0, "id", to=-1),
        changed("tickets", 0, "tokens", 0, "id", to="5"),
        changed("tickets", 0, "base", "tensor_sha256", to=SHA.upper()),
        changed("tickets", 0, "base", "shape", to=[64]),
        changed("tickets", 0, "selection", "correction", to="x"),
        changed("tickets", 0, "verdict", to="CERTIFIED"),
        changed("tickets", 0, "id", to="../x"),
        changed("tickets", 0, "tokens", 0, "p", to=0),
    ],
    ids=range(10),
)
def test_the_printed_schema_refuses_broken_files(value: Any) -> None:
    assert not conforms(value, json_schema(TicketFile), json_schema(TicketFile))


def test_the_printed_schema_with_a_validator_of_json_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema(TicketFile))
    jsonschema.validate(valid(), json_schema(TicketFile))
