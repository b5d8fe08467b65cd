"""Commands, renderers and schemas by name: the command line imports nothing from the packages above it."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

COMMANDS: Final = {
    "scan": "certify.cli.make.scan:scan",
    "find": "certify.cli.make.find:find",
    "calibrate": "certify.cli.make.calibrate:calibrate",
    "issue": "certify.cli.gate.issue:issue",
    "check": "certify.cli.gate.check:check",
    "report": "certify.cli.gate.report:report",
    "card": "certify.cli.use.card:card",
    "checker": "certify.cli.gate.checker:checker",
    "power": "certify.cli.gate.power:power",
    "explain": "certify.cli.gate.explain:explain",
    "transfer": "certify.cli.use.transfer:transfer",
    "apply": "certify.cli.use.apply:apply",
    "verify": "certify.cli.use.verify:verify",
    "diff": "certify.cli.use.diff:diff",
    "inspect": "certify.cli.use.inspect:inspect",
    "export": "certify.cli.use.export:export",
    "import": "certify.cli.use.export:import_adapter",
    "model import": "certify.cli.use.model:import_model",
    "model untie": "certify.cli.use.model:untie",
    "model fetch": "certify.cli.use.model:fetch",
    "table diff": "certify.cli.use.table:diff",
    "table apply": "certify.cli.use.table:apply",
    "tune": "lottery.cli.tune:tune",
    "evaluate": "lottery.cli.evaluate:evaluate",
    "experiment": "lottery.cli.experiment:experiment",
    "pretrain": "lottery.cli.pretrain:pretrain",
    "prove": "proofs_checks.run.command:prove",
    "opportunity": "lottery.cli.opportunity:opportunity",
    "mechanism": "lottery.cli.mechanism:mechanism",
    "count": "lottery.cli.count:count",
    "schema": "certify.cli.gate.schema:schema",
}
"""Every command and the function that runs it, in the order of the help; "model import" is one of a group."""

GROUPS: Final = {
    "model": "Get a language model: import a GGUF file, untie a head, or fetch one by name.",
    "table": "Embedding tables as the rows that moved from their base, and back.",
}
"""What the help says about a group of commands."""

RENDERERS: Final = {
    "check.view": "reports.view:view",
    "report": "reports.html.page:page",
    "check.summary": "reports.summary:worst_first",
    "check.run": "reports.view:together",
    "card": "reports.card",
    "find": "reports.ticket:render",
    "scan": "reports.scan:render",
    "replay": "lottery.cli.replay",
}
"""What renders the result of a command, or processes it further."""

FORMATS: Final = {
    "terminal": "reports.terminal:render",
    "json": "reports.formats.json:render",
    "markdown": "reports.formats.markdown:render",
    "junit": "reports.formats.junit:render",
    "sarif": "reports.formats.sarif:render",
    "github": "reports.formats.github:render",
    "gitlab": "reports.formats.gitlab:render",
    "intoto": "reports.formats.intoto:render",
    "svr": "reports.formats.intoto:svr",
}
"""Formats of ``certify check``; each but terminal renders :class:`reports.schema.Reports` to text."""

APPENDED: Final = {"github": "reports.formats.github:FILES"}
"""What a format also appends to files that the environment names: by variable, what makes the text."""

DEFAULTS: Final = dict.fromkeys(("check", "report", "apply", "export"), "certify.cli.defaults:read_defaults")
"""Commands that take defaults from a file of the project, and what reads it."""

PROBE: Final = "lottery.model.tokenizer:serving_probe"
"""What a tokenizer makes of the probe texts, for commands of certify."""

UNTIED: Final = "lottery.model.untied:check_untied"
"""Compares an untied model with the tied one, for commands of certify."""

FED: Final = "lottery.model.tokenizer:serving_fed"
"""How often a template feeds each id, for commands of certify."""

SCHEMAS: Final = {
    "model": "certify.models.record:ModelSource",
    "ticket": "certify.ticket.schema:TicketFile",
    "evidence": "certify.evidence.manifest:Manifest",
    "outputs": "lottery.text.outputs:OutputsHeader",
    "certificate": "certify.certificate.schema:Certificate",
    "policy": "certify.policy.policy:PolicyFile",
    "defaults": "certify.cli.defaults:CheckDefaults",
    "plan": "lottery.experiment.plan.plan:ExperimentPlan",
    "diff": "certify.policy.difference:Difference",
    "report": "reports.schema:Report",
    "reports": "reports.schema:Reports",
    "proofs": "proofs_checks.run.record:ProofRecord",
}
"""Every kind of file that ``certify schema`` describes, and the model that its JSON Schema comes from."""

READ: Final = {
    "run": "lottery.tuning.journal:RunRecord",
    "pretraining": "lottery.pretrain.plan:PretrainPlan",
    "choice": "certify.evidence.choice_record:ChoiceRecord",
    "calibration": "certify.evidence.choice_record:CalibrationRecord",
    "experiment": "lottery.experiment.steps.published:ExperimentManifest",
    "summary": "lottery.experiment.steps.published:ExperimentSummary",
}
"""Further kinds of files that are read, of which parts are only informative."""


def load(name: str) -> Any:
    """Import the object named ``package.module:attribute``, or the module named ``package.module``."""
    module, _, attribute = name.partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
