"""Defaults of ``check``, ``report``, ``apply`` and ``export`` for a project: ``certify.toml``, or
``[tool.certify]`` of a ``pyproject.toml``.

Read from the folder in which the command runs, and from no other: a file further up could be anybody's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import Field

from certify.base.errors import UsageError
from certify.base.jsonio import read_bytes
from certify.base.model import Model, Refusal, Text, parse_toml, validate
from certify.base.records import Engine

_REFUSAL: Final = Refusal("DEFAULTS_MALFORMED", error=UsageError)
_LARGEST: Final = 1 << 20


class CheckDefaults(Model):
    """What these commands take where the command line says nothing; paths are relative to the file."""

    files: tuple[Text, ...] | None = Field(default=None, description="tickets to check, each FILE or FILE#ID")
    policy: Text | None = None
    formats: tuple[Text, ...] | None = Field(
        default=None, alias="format", description="each NAME or NAME=FILE"
    )
    base: Text | None = None
    reference: Text | None = None
    tokenizer: Text | None = None
    engine: Engine | None = None
    workers: int | None = Field(default=None, ge=1)
    verbose: bool = False
    quiet: bool = False


def read_defaults(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The defaults that a folder sets, by parameter of the command, and the name of the file that sets them.

    Raises:
        UsageError: a file is not TOML, or has unknown or wrong fields (``DEFAULTS_MALFORMED``); both files
            set defaults (``DEFAULTS_TWICE``).
    """
    found: dict[str, dict[str, Any]] = {}
    for name in ("certify.toml", "pyproject.toml"):
        path = folder / name
        if not path.exists():
            continue
        content: Any = parse_toml(read_bytes(path, what="file", limit=_LARGEST), what=name, refusal=_REFUSAL)
        if name == "pyproject.toml":
            tools = content.get("tool")
            content = tools.get("certify") if isinstance(tools, dict) else None
        if content is not None:
            read = validate(CheckDefaults, content, what=name, refusal=_REFUSAL)
            found[name] = {key: getattr(read, key) for key in read.model_fields_set}
    if len(found) > 1:
        raise UsageError(f"{' and '.join(found)} both set defaults: keep one", code="DEFAULTS_TWICE")
    return next(((values, name) for name, values in found.items()), ({}, None))
