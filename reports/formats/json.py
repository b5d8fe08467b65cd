"""The data themselves: ``certify schema report`` describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from certify.base.jsonio import pretty_json


def render(run: Mapping[str, Any]) -> str:
    """Write the report of the one file that was judged, or the whole run of several."""
    alone = len(run["reports"]) == 1 and not run["errors"]
    return pretty_json({**(run["reports"][0] if alone else run), "digest": run["digest"]}, flat=True)
