"""The one base of everything that is read from a file or printed as a schema: closed, frozen, strict.

:class:`Model` is a table of fields; :class:`Document` a whole file that names its schema and the version of
it. :func:`validate` and its relatives turn what was read into either, or refuse it in one line. What is read
is hostile: nothing is converted, nothing unknown is ignored, nothing that a newer version wrote is guessed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certify.base.errors import CertifyError, InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

_LONGEST_PATH = 200  # characters: the name of an unknown field may be as long as its file

Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the content of a file of one schema version into that of the next one."""


class Model(BaseModel):
    """Fields of a file: no unknown one, no value converted, no NaN or infinity, frozen once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Document(Model):
    """A whole file, which names its schema and the version of it.

    A subclass declares both fields again, as literals with the default that a writer takes; a reader insists
    on them. ``migrations`` holds, by the version that it starts from, what makes an older file a newer one.
    """

    model_config = ConfigDict(populate_by_name=True)

    migrations: ClassVar[Mapping[int, Migration]] = {}

    schema_: str = Field(alias="schema")
    schema_version: int

    @classmethod
    def schema_name(cls) -> str:
        """What the field ``schema`` must be."""
        return str(cls.model_fields["schema_"].default)

    @classmethod
    def newest(cls) -> int:
        """The schema version that is written."""
        return int(cls.model_fields["schema_version"].default)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How one reader refuses: reason codes, and the error that carries them.

    Attributes:
        malformed: code for a field that breaks a rule.
        schema: code for a file of another schema, or without a version; ``malformed`` by default.
        newer: code for a newer version; ``malformed`` by default.
        error: class of the error, which decides the exit code.
    """

    malformed: str
    schema: str = ""
    newer: str = ""
    error: type[CertifyError] = InvalidInputError

    def __call__(self, message: str, code: str = "") -> CertifyError:
        """The error to raise; ``malformed`` is its code unless another one is given."""
        return self.error(message, code=code or self.malformed)


_M = TypeVar("_M", bound=Model)


def validate(model: type[_M], value: Any, *, what: str, refusal: Refusal) -> _M:
    """Validate the parsed content of a file.

    Args:
        model: what it must be.
        value: parsed JSON or TOML.
        what: name of the file, for the error message.
        refusal: codes and class of the error.

    Raises:
        CertifyError: ``refusal.error``: another schema or version, of a document; a field that breaks a rule.
    """
    if issubclass(model, Document):
        value = _current(model, value, what, refusal)
    try:
        # Through JSON, where strict validation still takes an array for a tuple. TOML's dates stop here; its
        # NaN and infinities stop at their field, which the message then names.
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=_refuse_dates)
        return model.model_validate_json(text.encode("utf-8"), strict=True)
    except ValidationError as error:
        raise refusal(f"{what}: {problem(error)}") from error
    except ValueError as error:
        raise refusal(f"{what} is refused: {error}") from error


def read(
    model: type[_M], path: Path, *, what: str, refusal: Refusal, limit: int = MAX_JSON_BYTES
) -> tuple[_M, bytes]:
    """Read a JSON file of at most ``limit`` bytes; returns it with its bytes. ``what`` is its kind, in words.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is too large, or no strict JSON (:func:`certify.base.jsonio.parse_json`).
        CertifyError: see :func:`validate`.
    """
    data = read_bytes(path, what=what, limit=limit)
    named = f"{what} {path}"
    return validate(model, parse_json(data, what=named), what=named, refusal=refusal), data


def parse_toml(data: bytes, *, what: str, refusal: Refusal) -> dict[str, Any]:
    """Parse untrusted TOML.

    Raises:
        CertifyError: ``refusal.error``: it is not TOML.
    """
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, an integer of absurd length
        raise refusal(f"{what} is not TOML: {error}") from error


def validate_toml(model: type[_M], data: bytes, *, what: str, refusal: Refusal) -> _M:
    """:func:`validate` for the bytes of a TOML file.

    Raises:
        CertifyError: ``refusal.error``: it is not TOML, or refused.
    """
    return validate(model, parse_toml(data, what=what, refusal=refusal), what=what, refusal=refusal)


def problem(error: ValidationError) -> str:
    """The first problem in one line: the field's path and what was expected; how many more there are."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = _path(first["loc"])
    match first["type"]:
        case "missing":
            said = f"missing field {where}"
        case "extra_forbidden":
            said = f"unknown field {where}"
        case _:
            said = f"{where or 'top level'}: {first['msg'].removeprefix('Value error, ')}"
    more = error.error_count() - 1
    return said + (f" (and {more} more)" if more else "")


def json_schema(model: type[Model]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what a reader takes."""
    schema = model.model_json_schema(by_alias=True)
    if issubclass(model, Document):
        # Both have a default for whoever makes a file; whoever reads one insists on them.
        required = [name for name in schema.get("required", []) if name not in ("schema", "schema_version")]
        schema["required"] = ["schema", "schema_version", *required]
    return {"$schema": DRAFT, **schema}


def never_null(schema: dict[str, Any]) -> None:
    """As ``json_schema_extra`` of a field ``X | SkipJsonSchema[None] = None``: absent, or an X."""
    schema.pop("default", None)


def _current(model: type[Document], value: Any, what: str, refusal: Refusal) -> dict[str, Any]:
    """The content of a document in the newest schema version."""
    name, newest = model.schema_name(), model.newest()
    if not isinstance(value, dict) or value.get("schema") != name:
        raise refusal(f'{what}: expected the field "schema" to be "{name}"', refusal.schema)
    version = value.get("schema_version")
    # A literal 1 would also take true and 1.0, and a default would take a file that names no version.
    if type(version) is not int:
        raise refusal(f'{what}: "schema_version" must be an integer', refusal.schema)
    if version > newest:
        raise refusal(
            f"{what} was written by a newer version of the program; this one reads schema version {newest}:"
            " upgrade it",
            refusal.newer,
        )
    while version < newest:
        if version not in model.migrations:
            raise refusal(f"{what} has schema version {version}, which this program does not read")
        value = {**model.migrations[version](value), "schema_version": version + 1}
        version += 1
    return dict(value)


def _refuse_dates(value: Any) -> NoReturn:
    raise ValueError(f"{value} is a date or a time, which no field takes")


def _path(location: tuple[int | str, ...]) -> str:
    """``tickets[0].base.shape[1]``, cut if absurdly long."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    return path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
