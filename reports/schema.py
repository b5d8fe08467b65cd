"""The schemas of ``certify check --format json``: ``certify.report`` and ``certify.reports`` version 1.

``certify schema report`` is derived from these models. Programs that read a report can rely on them; this
project itself reads none.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from certify.base.errors import ExitCode
from certify.base.model import BoundFile, Document, Level, Model, Sha256, Slug, TokenId, never_null
from certify.base.records import Dtype
from certify.base.verdict import Outcome, Status
from certify.certificate.schema import EvidenceRef
from certify.claims.claim import Finding
from certify.claims.kind import Role
from certify.ticket.schema import SelectionRef, Token
from reports.view import SCHEMA_NAME, SCHEMA_VERSION

Rational = Annotated[str, Field(pattern=r"^-?[0-9]+/[1-9][0-9]*$")]
Count = Annotated[int, Field(ge=0)]
RunDigest = Annotated[
    Sha256 | SkipJsonSchema[None],
    Field(description="reports.view.digest of the whole run; once in a file", json_schema_extra=never_null),
]


class ReportedItem(Model):
    """One check: what was found, and whether the policy requires it to pass."""

    name: str
    required: bool
    outcome: Outcome
    code: str = Field(description="stable reason code; certify explain CODE says what it means")
    text: str
    remedy: str | None
    ids: tuple[TokenId, ...] = Field(description="token ids that bear witness")


class ReportedTable(Model):
    """The input tables of base and reference: rows and width, element type as served, output head tied."""

    shape: tuple[Count, Count]
    dtype: Dtype
    tied: bool | None
    source: str | None = Field(description="where the base came from, as the ticket states it")


class ReportedToken(Token):
    """A row of the ticket, with its distance."""

    distance: Annotated[float, Field(ge=0, le=1)] = Field(alias="D")


class Figure(Model):
    """A rational number, exactly and as the nearest double."""

    exact: Rational
    decimal: float


class ReportedClaim(Model):
    """A claim computed from the evidence of one text, and what the policy makes of it.

    ``stated``: the certificate states it. ``asked``: what the policy, or the ticket in what it declares, asks
    of it; None if nothing. ``items``: those that answer. ``outcome``: the gravest answer; None if nothing is
    asked.
    """

    name: str
    text: str
    role: Role
    finding: Finding
    said: str
    estimate: Figure | None
    lower: Figure | None
    upper: Figure | None
    delta: Rational
    n: Count
    unit: str
    procedure: str
    asymptotic: bool
    assumptions: tuple[str, ...]
    signature: str
    detail: dict[str, JsonValue]
    stated: bool
    items: tuple[str, ...]
    asked: str | None
    outcome: Outcome | None
    code: str


class ReportedCertificate(Model):
    """The certificate that was checked; its claims are among those of the ticket."""

    sha256: Sha256
    created_by: str
    delta: Level
    signature: str
    evidence: tuple[EvidenceRef, ...]


class ReportedPremise(Model):
    """The published premise: no row outside the ticket has D above tau."""

    holds: bool
    h_max: Count
    id_max: TokenId | None
    ids: tuple[TokenId, ...]


class Bin(Model):
    """Rows with a count h from ``h_first`` to ``h_last``."""

    h_first: Count
    h_last: Count
    rows: Count
    in_ticket: Count


class Histogram(Model):
    """Counts of the distance over the rows that moved; ``equal`` rows did not."""

    equal: Count
    ties: Count
    h_tau: Count
    bins: tuple[Bin, ...]


class ReportedAssumption(Model):
    """An assumption and what is known about it."""

    id: str
    statement: str
    status: str


class ReportedEngine(Model):
    """A text of which another engine made the outputs, and its name and version."""

    text: str
    engine: str


class ReportedTicket(Model):
    """Everything found out about one ticket; what could not be computed is null."""

    id: Slug
    line: Annotated[int, Field(ge=1, description="line of the ticket in its file; 1 if unknown")]
    verdict: Status
    digest: Sha256
    items: tuple[ReportedItem, ...]
    selection: SelectionRef
    table: ReportedTable
    released: Literal["transfer", "tuned"]
    rows: BoundFile | None = Field(description="the file of released rows")
    tokens: tuple[ReportedToken, ...]
    engines: tuple[ReportedEngine, ...]
    chosen_among: Count | None = Field(
        description="candidates of a record that the ticket was chosen on other text, so that its limits do"
        " not pay for that choice; null if it binds none"
    )
    certificate: ReportedCertificate | None
    claims: tuple[ReportedClaim, ...]
    premise: ReportedPremise | None
    histogram: Histogram | None
    assumptions: tuple[ReportedAssumption, ...]
    taken: tuple[ReportedAssumption, ...] = Field(
        description="assumptions of claims that are asked, which the policy takes as given"
    )
    non_claims: tuple[str, ...]
    signature: str


class ReportedDecision(Model):
    """The most probable token under the reference and under the arm; probabilities in units of 1e-9."""

    reference: TokenId
    arm: TokenId
    p_a: Count
    p_b: Count


class ReportedReplay(Model):
    """One decision that was run again on the model; ``found`` is None if it could not be run."""

    record: str
    step: Count
    result: Literal["REPRODUCED", "WITHIN_ROUNDING", "NOT_REPRODUCED", "NOT_RUN", "SAME", "OTHER"]
    text: str
    recorded: ReportedDecision | None
    found: ReportedDecision | None


class ReportedRerun(Model):
    """The decisions of one manifest that were run again."""

    ticket: Slug
    evidence: str
    results: tuple[ReportedReplay, ...]


class Report(Document):
    """Verdicts on the tickets of one file under one policy; ``replay`` only where ``--replay`` was given."""

    schema_: Literal["certify.report"] = Field(alias="schema", default=SCHEMA_NAME)
    schema_version: Literal[1] = SCHEMA_VERSION
    file: str
    policy: str
    policy_file: str | None = Field(
        description="where a policy of one's own lies; null for one of the package"
    )
    policy_set_by: str | None = Field(
        description="file of defaults that chose the policy, as it decides the verdict; null if none did"
    )
    policy_sha256: Sha256
    policy_loosens: tuple[str, ...] = Field(
        description="in what a policy of one's own asks for less than the one that it extends"
    )
    question: str
    exit_code: ExitCode
    tickets: tuple[ReportedTicket, ...]
    replay: tuple[ReportedRerun, ...] | SkipJsonSchema[None] = Field(
        default=None, json_schema_extra=never_null
    )
    digest: RunDigest = None


class ReportedError(Model):
    """A file that could not be judged; ``code`` is a stable reason code."""

    file: str
    code: str
    text: str


class Reports(Document):
    """Verdicts on the tickets of several files, in the order in which the files were named."""

    schema_: Literal["certify.reports"] = Field(alias="schema", default="certify.reports")
    schema_version: Literal[1] = 1
    exit_code: ExitCode
    reports: tuple[Report, ...]
    errors: tuple[ReportedError, ...]
    digest: RunDigest = None
