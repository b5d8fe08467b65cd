"""What ``certify check`` says of the record of the theory's checks that a certificate names.

Two items, made where the certificate names a record or the policy asks for one of them:

``proofs.record``
    The file lies in the ticket's folder, is the one that the certificate means, adds up, and everything that
    the certificate restates follows from it. MISSING: NO_PROOFS (the certificate names none), FILE_MISSING.
    INVALID: PROOFS_DIGEST, PROOFS_DIFFER (other figures than the certificate restates), and what
    :func:`certify.certificate.proofs.read_record` raises.
``proofs.passed``
    Needs the former. The record is of all checks, and every one passed. FAIL, PROOFS_FAILED: one failed.
    INCONCLUSIVE: PROOFS_PARTIAL (only some were asked for), PROOFS_NOT_RUN (one did not run, or ran out of
    time).

The checks are not run again: a record is the word of whoever issued, and no policy of the package asks for
it. It adds nothing to a verdict; but a certificate that restates what its record does not say is not what it
must be, so that ``certificate.content`` does not pass where ``proofs.record`` does not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certify.base.errors import CertifyError, InvalidInputError
from certify.base.verdict import Item, Outcome
from certify.certificate.proofs import ProofRecord, ProofsRef, read_record, restate
from certify.ticket.schema import inside

RECORD: Final = "proofs.record"
PASSED: Final = "proofs.passed"
ITEMS: Final = (RECORD, PASSED)

_REMEDY = "run certify prove --out, put the record into the ticket's folder, and issue with --proofs"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Proofs:
    """What came of the record that a certificate names.

    Attributes:
        items: both items, or none where nobody asks.
        record: the record, if it is what the certificate says.
        problem: the item ``proofs.record`` where the certificate names a record and that item did not pass.
    """

    items: tuple[Item, ...] = ()
    record: ProofRecord | None = None
    problem: Item | None = None


def not_run(requires: Collection[str], why: str) -> tuple[Item, ...]:
    """The items that ``requires`` names, where there is no certificate to read."""
    return tuple(
        Item(name, Outcome.NOT_RUN, "NOT_RUN", f"not run: {why}") for name in ITEMS if name in requires
    )


def examine_proofs(stated: ProofsRef | None, folder: Path, requires: Collection[str]) -> Proofs:
    """Read the record again and compare.

    Args:
        stated: what the certificate says of it; None if it names none.
        folder: the ticket's folder.
        requires: names of the items that the policy requires.
    """
    if stated is None:
        text = "the certificate names no record of the theory's checks"
        missing = Item(RECORD, Outcome.MISSING, "NO_PROOFS", text, _REMEDY)
        after = Item(PASSED, Outcome.NOT_RUN, "NOT_RUN", f"not run: {text}")
        return Proofs((missing, after) if not set(ITEMS).isdisjoint(requires) else ())
    try:
        record = _read(stated, folder)
    except CertifyError as error:
        gone = error.code == "FILE_MISSING"
        item = Item(RECORD, Outcome.MISSING if gone else Outcome.INVALID, error.code, str(error))
        why = "the record of the theory's checks is missing or invalid"
        return Proofs((item, Item(PASSED, Outcome.NOT_RUN, "NOT_RUN", f"not run: {why}")), None, item)
    text = f"the theory's checks as run by whoever issued, not run again here; {stated}"
    return Proofs((Item(RECORD, Outcome.PASS, "PROOFS_READ", text), _passed(record)), record)


def _read(stated: ProofsRef, folder: Path) -> ProofRecord:
    path = inside(folder, stated.path)
    if not path.is_file():
        raise InvalidInputError(
            f"{stated.path} is named by the certificate, but is not there", code="FILE_MISSING"
        )
    record, sha256 = read_record(path)
    if sha256 != stated.sha256:
        raise InvalidInputError(
            f"{stated.path} is not the record that the certificate means", code="PROOFS_DIGEST"
        )
    again = restate(record, stated.path, sha256)
    wrong = [name for name in ProofsRef.model_fields if getattr(stated, name) != getattr(again, name)]
    if wrong:
        text = f"the certificate restates {', '.join(wrong)} otherwise than {stated.path} says"
        raise InvalidInputError(text, code="PROOFS_DIFFER")
    return record


def _passed(record: ProofRecord) -> Item:
    failed, timeout, idle = (record.named(outcome) for outcome in ("failed", "timeout", "not run"))
    if failed:
        text = f"FAILED, says the record: {_listed(failed)}"
        return Item(PASSED, Outcome.FAIL, "PROOFS_FAILED", text, "find out which: the program or the theory")
    if record.selected:
        text = "the record is of selected checks only: the others may do anything"
        return Item(PASSED, Outcome.INCONCLUSIVE, "PROOFS_PARTIAL", text, "run certify prove without --only")
    if timeout or idle:
        parts = [("did not run", idle), ("ran out of time", timeout)]
        text = "no pass: " + "; ".join(f"{word}: {_listed(names)}" for word, names in parts if names)
        remedy = "install the extras and give more time: certify prove --require all"
        return Item(PASSED, Outcome.INCONCLUSIVE, "PROOFS_NOT_RUN", text, remedy)
    text = f"all {len(record.checks)} checks passed, says the record"
    return Item(PASSED, Outcome.PASS, "PROOFS_PASSED", text)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
