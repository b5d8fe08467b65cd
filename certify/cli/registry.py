"""Commands and renderers by name, so that the command line imports nothing that stands above it."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

COMMANDS: Final = {
    "scan": "certify.cli.make.scan:scan",
    "find": "certify.cli.make.find:find",
    "issue": "certify.cli.gate.issue:issue",
    "check": "certify.cli.gate.check:check",
    "power": "certify.cli.gate.power:power",
    "explain": "certify.cli.gate.explain:explain",
    "transfer": "certify.cli.use.transfer:transfer",
    "apply": "certify.cli.use.apply:apply",
    "verify": "certify.cli.use.verify:verify",
    "export": "certify.cli.use.export:export",
    "import": "certify.cli.use.export:import_adapter",
    "tune": "lottery.cli.tune:tune",
    "evaluate": "lottery.cli.evaluate:evaluate",
    "experiment": "lottery.cli.experiment:experiment",
    "pretrain": "lottery.cli.pretrain:pretrain",
    "prove": "proofs_checks.run.command:prove",
    "opportunity": "lottery.cli.opportunity:opportunity",
    "count": "lottery.cli.count:count",
    "schema": "certify.cli.gate.schema:schema",
}
"""Every command, in the order of the help, and the function that runs it."""

RENDERERS: Final = {
    "check": "reports.terminal:render",
    "check.view": "reports.view:view",
    "find": "reports.ticket:render",
    "scan": "reports.scan:render",
    "replay": "lottery.cli.replay",
}
"""What a command shows its result with, or hands it on to."""


def load(name: str) -> Any:
    """The object that ``package.module:attribute`` names, or the module ``package.module``."""
    module, _, attribute = name.partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
