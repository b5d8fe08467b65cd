"""Fixtures shared by all tests: Hypothesis profiles, real tables, a small self-contained ticket folder."""

from __future__ import annotations

import os

# One thread per process: the models here are tiny, several processes test at a time, and threads that wait
# for each other on a busy machine make such runs many times slower. Processes that tests start inherit it.
# Libraries read this when they are loaded, so it comes before what imports them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

os.environ.pop("GITHUB_ACTIONS", None)  # there, a check prints annotations by itself

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from real_tables import RealTables
from ticket_folders import make_ticket

# "ci" draws the same examples on every run, so that a red build can be repeated; "long" searches.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=60)
settings.register_profile(
    "long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def real_tables() -> RealTables:
    """Tables of the small real model under ``CERTIFY_DATA``; the test is skipped where there are none."""
    root = os.environ.get("CERTIFY_DATA")
    if not root:
        pytest.skip("CERTIFY_DATA is not set: no real tables")
    folder = Path(root) / "models" / "en-ca-small"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: no real tables")
    return RealTables(folder / "base", folder / "embed-tuned")


@pytest.fixture(scope="session")
def _pristine_ticket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ticket(tmp_path_factory.mktemp("ticket"), template="alpaca")


@pytest.fixture
def ticket_path(_pristine_ticket: Path, tmp_path: Path) -> Path:
    """``tickets.json`` of a private copy of a self-contained ticket that certifies (policy selection)."""
    folder = tmp_path / "bundle"
    shutil.copytree(_pristine_ticket.parent, folder)
    return folder / _pristine_ticket.name
