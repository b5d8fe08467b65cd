"""A small real model before and after embed tuning, as tests are given it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class RealTables(NamedTuple):
    """A small real model before and after embed tuning."""

    base: Path
    reference: Path
