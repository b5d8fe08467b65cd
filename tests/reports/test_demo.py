"""``make demo``: every step ends as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import environment


@pytest.mark.slow
def test_every_step_ends_as_expected() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "reports.demo"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
        env=environment(),
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr
