"""Two items about the texts of evidence: none was used before, and each is the text that the policy pins."""

from __future__ import annotations

from collections.abc import Sequence

from certify.base.errors import CertifyError
from certify.base.verdict import Item, Outcome
from certify.claims.counts import split_claim
from certify.claims.every import check_splits, role_of
from certify.evidence.load import Evidence, Subject
from certify.policy.policy import TEXTS, Policy


def split(found: Sequence[Evidence], subject: Subject) -> Item:
    """The item ``evidence.split``: no evaluated sentence was used before (:mod:`certify.evidence.split`)."""
    name = "evidence.split"
    lacking: list[str] = []
    said: list[str] = []
    try:
        for evidence in found:
            claim = split_claim(evidence, subject)
            (lacking if claim.code == "USED_NOT_LISTED" else said).append(
                f"{evidence.manifest.text.name}: {claim.text}"
            )
        check_splits(found)
    except CertifyError as error:
        return Item(name, Outcome.INVALID, error.code, str(error))
    if subject.choice is not None:
        said.append(
            f"according to the author's record, chosen among {len(subject.choice.candidates)} tickets on"
            f" {len(subject.choice.sentences) // 2} sentence pairs"
        )
    if lacking:
        remedy = "evaluate with --used, which lists the sentences of scan, tuning and choice"
        return Item(name, Outcome.MISSING, "USED_NOT_LISTED", "; ".join(lacking), remedy)
    bound = {entry.table_sha256 for evidence in found for entry in evidence.manifest.used}
    if subject.ticket.reference.tensor_sha256 not in bound:
        said.append("the list of the run that made the embed-tuned table is not bound")
    return Item(name, Outcome.PASS, "DISJOINT", "; ".join(said))


def pinned_texts(policy: Policy, found: Sequence[Evidence], subject: Subject) -> list[Item]:
    """The item of a policy that pins texts.

    A pinned text is one that claims are asked on: not under another template. Beside it no other of its kind
    is accepted, or claims would be asked on what the author picked.
    """
    if not policy.texts:
        return []
    pinned = {one.manifest.kind for one in found if one.manifest.text.name in policy.texts}
    for one in found:
        if one.manifest.kind in pinned and one.manifest.text.name not in policy.texts:
            text = f"{one.manifest.text.name} is evaluated as well, which the policy does not pin"
            return [Item(TEXTS, Outcome.FAIL, "TEXT_DIFFERS", text)]
    asked = [one for one in found if role_of(one, subject.ticket) != "other-template"]
    for name, sha256 in policy.texts.items():
        ours = [one.manifest for one in asked if one.manifest.text.name == name]
        if any(one.text.sha256 != sha256 for one in ours):
            text = f"{name} is not the text that the policy pins: a sentence was dropped, added or changed"
            return [Item(TEXTS, Outcome.FAIL, "TEXT_DIFFERS", text)]
        if not any(one.design == "fixed" for one in ours):
            return [
                Item(
                    TEXTS,
                    Outcome.MISSING,
                    "NO_TEXT",
                    f"{name}, which the policy pins, was not evaluated as a whole text",
                )
            ]
    return [Item(TEXTS, Outcome.PASS, "DIGEST_MATCHES", f"evaluated as pinned: {', '.join(policy.texts)}")]
