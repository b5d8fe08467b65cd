"""The independent checker as one file to carry to a bare machine: a zip archive that Python runs."""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from pathlib import Path
from typing import Final

from certify.base.files import check_output
from certify.base.jsonio import sha256_bytes, write_bytes

_HEAD: Final = b"#!/usr/bin/env python3\n"
_START: Final = b"from checker import main\nimport sys\nraise SystemExit(main(sys.argv[1:]))\n"
_PARTS: Final = (("checker", ".py"), ("policy", ".toml"), ("ticket/prompts", ".toml"))
"""Folders of the package, and the endings of the files, that the checker reads."""


def write(path: Path) -> str:
    """Write the archive atomically; returns its SHA-256. Equal programs give equal bytes.

    Raises:
        UsageError: the file cannot be written, or holds something else (``OUT_EXISTS``).
    """
    check_output(path, like=lambda data: data.startswith(_HEAD + b"PK"))
    buffer = io.BytesIO(_HEAD)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py"), _START)
        for folder, ending in _PARTS:
            found = resources.files("certify").joinpath(folder).iterdir()
            for file in sorted(found, key=lambda one: one.name):
                if file.name.endswith(ending) and file.name != "__main__.py":
                    archive.writestr(_entry(f"{folder}/{file.name}"), file.read_bytes())
    data = buffer.getvalue()
    write_bytes(path, data)
    return sha256_bytes(data)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    return info
