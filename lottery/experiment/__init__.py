"""Experiments: a plan goes from a base model to tickets and evidence, in cached steps (`certify experiment`).

=====================================  ======================================================================
modules                                what they know
=====================================  ======================================================================
``fields``, ``plan``                   the plan file
``cache``, ``graph``                   steps, their keys, what is finished; pure, of no particular experiment
``arms``, ``layout*``, ``witnesses``   which tickets, arms, steps and readable sentences follow from a plan
``bench``, ``materials``               where a step finds base and texts, and their digests
``tuning``, ``rows``, ``texts``,       what the steps do
``evidence``, ``publish``, ``summary``,
``readings``
``estimate``, ``journal``              what steps would cost, and what they did cost
``driver``                             running, dry run and status of the whole
=====================================  ======================================================================
"""

from __future__ import annotations

from lottery.experiment.driver import Row, dry_run, is_running, run, status

__all__ = ["Row", "dry_run", "is_running", "run", "status"]
