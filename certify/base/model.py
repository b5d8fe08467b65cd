"""The base models of everything that is read from a file or printed as a schema: closed, frozen, strict.

:class:`Model` is a set of fields; :class:`Document` is a whole file, which names its schema and version.
:func:`validate` and related functions parse file content into one of them, or refuse it in one line. Input is
treated as hostile: no conversion, no ignored unknown fields, no guessing about newer versions.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Final, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from certify.base.errors import CertifyError, InvalidInputError
from certify.base.jsonio import MAX_JSON_BYTES, parse_json, read_bytes

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

_LONGEST_PATH = 200  # characters; the name of an unknown field may be as long as its file

Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Convert the content of a file of one schema version to the next version."""


MAX_ROWS: Final = 1 << 24  # far above any vocabulary; keeps hostile sizes out of every later product


def _relative_path(value: str) -> str:
    parts = PurePosixPath(value).parts
    if (
        not value
        or "\\" in value
        or value.startswith("/")
        or ".." in parts
        or re.match(r"^[A-Za-z]:", value)
        or any(ord(char) < 32 or ord(char) == 127 for char in value)
    ):
        raise ValueError("a path inside a ticket must be relative and stay inside its folder")
    return value


def level(value: str) -> str:
    """Validate a level and return it unchanged, as decimal text rather than as a binary float.

    Raises:
        ValueError: it is not a decimal strictly between 0 and 1.
    """
    if not re.fullmatch(r"0?\.[0-9]{1,60}", value) or not 0 < Fraction(value) < 1:
        raise ValueError("a level must be a decimal strictly between 0 and 1, such as 0.05")
    return value


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(max_length=1024), AfterValidator(_relative_path)]
Level = Annotated[str, AfterValidator(level)]
SLUG: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Slug = Annotated[str, Field(pattern=SLUG)]
Text = Annotated[str, Field(max_length=4096)]
TokenId = Annotated[int, Field(ge=0, lt=MAX_ROWS)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Model(BaseModel):
    """Fields of a file: no unknown fields, no conversion of values, no NaN or infinity; frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def unless_given(*names: str) -> Any:
    """Serializer of a model that leaves out fields that were not given.

    A file that lacks a field which came later keeps the text and the digest that it had before the field was.
    """

    def serialise(self: Model, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {key: one for key, one in content.items() if key not in names or key in self.model_fields_set}

    return model_serializer(mode="wrap")(serialise)


class BoundFile(Model):
    """A file inside the ticket's folder, bound by its file digest."""

    path: RelativePath
    sha256: Sha256


class Document(Model):
    """A whole file, which names its schema and schema version.

    A subclass redeclares both fields as literals, with defaults for writers; readers require them.
    ``migrations`` maps an older version to the function that converts it to the next one.
    """

    model_config = ConfigDict(populate_by_name=True)

    migrations: ClassVar[Mapping[int, Migration]] = {}

    schema_: str = Field(alias="schema")
    schema_version: int

    @classmethod
    def schema_name(cls) -> str:
        """Required value of the field ``schema``."""
        return str(cls.model_fields["schema_"].default)

    @classmethod
    def newest(cls) -> int:
        """Schema version that writers use."""
        return int(cls.model_fields["schema_version"].default)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How one reader refuses: reason codes, and the error that carries them.

    Attributes:
        malformed: code for a field that violates the schema.
        schema: code for a file of another schema, or without a version; ``malformed`` by default.
        newer: code for a newer version; ``malformed`` by default.
        error: class of the error, which determines the exit code.
    """

    malformed: str
    schema: str = ""
    newer: str = ""
    error: type[CertifyError] = InvalidInputError

    def __call__(self, message: str, code: str = "") -> CertifyError:
        """Make the error to raise, with code ``malformed`` unless another is given."""
        return self.error(message, code=code or self.malformed)


_M = TypeVar("_M", bound=Model)


def validate(model: type[_M], value: Any, *, what: str, refusal: Refusal) -> _M:
    """Validate the parsed content of a file.

    Args:
        model: the expected model.
        value: parsed JSON or TOML.
        what: name of the file, for the error message.
        refusal: codes and class of the error.

    Raises:
        CertifyError: ``refusal.error``, for another schema or version of a document, or a field that
            violates the schema.
    """
    if issubclass(model, Document):
        value = _current(model, value, what, refusal)
    try:
        # Through JSON, in which strict validation accepts an array for a tuple. TOML dates fail here; NaN and
        # infinity fail at their field, which the message then names.
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=_refuse_dates)
        return model.model_validate_json(text.encode("utf-8"), strict=True)
    except ValidationError as error:
        raise refusal(f"{what}: {problem(error)}") from error
    except (ValueError, RecursionError) as error:  # also dotted keys, which nest without limit
        raise refusal(f"{what} is refused: {error}") from error


def read(
    model: type[_M], path: Path, *, what: str, refusal: Refusal, limit: int = MAX_JSON_BYTES
) -> tuple[_M, bytes]:
    """Read a JSON file of at most ``limit`` bytes and return it with its bytes; ``what`` names its kind.

    Raises:
        UsageError: the file cannot be read.
        InvalidInputError: it is too large, or not strict JSON (:func:`certify.base.jsonio.parse_json`).
        CertifyError: see :func:`validate`.
    """
    data = read_bytes(path, what=what, limit=limit)
    named = f"{what} {path}"
    return validate(model, parse_json(data, what=named), what=named, refusal=refusal), data


def parse_toml(data: bytes, *, what: str, refusal: Refusal) -> dict[str, Any]:
    """Parse untrusted TOML.

    Raises:
        CertifyError: ``refusal.error``, if it is not TOML.
    """
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, an overlong integer
        raise refusal(f"{what} is not TOML: {error}") from error


def validate_toml(model: type[_M], data: bytes, *, what: str, refusal: Refusal) -> _M:
    """Validate the bytes of a TOML file; see :func:`validate`.

    Raises:
        CertifyError: ``refusal.error``, if it is not TOML or is refused.
    """
    return validate(model, parse_toml(data, what=what, refusal=refusal), what=what, refusal=refusal)


def problem(error: ValidationError) -> str:
    """Describe the first problem in one line: path of the field, what was expected, and how many follow."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = _path(first["loc"])
    match first["type"]:
        case "missing":
            said = f"missing field {where}"
        case "extra_forbidden":
            said = f"unknown field {where}"
        case _:
            said = f"{where}: " if where else ""
            said += first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return said + (f" (and {more} more)" if more else "")


def json_schema(model: type[Model]) -> dict[str, Any]:
    """Make the JSON Schema (draft 2020-12) of files that a reader accepts."""
    schema = model.model_json_schema(by_alias=True)
    if issubclass(model, Document):
        # Both have defaults for writers, but readers require them.
        required = [name for name in schema.get("required", []) if name not in ("schema", "schema_version")]
        schema["required"] = ["schema", "schema_version", *required]
    return {"$schema": DRAFT, **schema}


def never_null(schema: dict[str, Any]) -> None:
    """Say that a field is absent or an X, as ``json_schema_extra`` of ``X | SkipJsonSchema[None] = None``."""
    schema.pop("default", None)


def _current(model: type[Document], value: Any, what: str, refusal: Refusal) -> dict[str, Any]:
    """Migrate the content of a document to the newest schema version."""
    name, newest = model.schema_name(), model.newest()
    if not isinstance(value, dict) or value.get("schema") != name:
        raise refusal(f'{what}: expected the field "schema" to be "{name}"', refusal.schema)
    version = value.get("schema_version")
    # A literal 1 would also accept true and 1.0, and a default would accept a file without a version.
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
    raise ValueError(f"{value} is a date or a time, which no field accepts")


def _path(location: tuple[int | str, ...]) -> str:
    """Format a path such as ``tickets[0].base.shape[1]``, cut if overlong."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    return path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
