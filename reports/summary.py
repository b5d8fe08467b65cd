"""What a report comes to in the fewest words; every renderer takes its wording from here.

Everything takes the data of :func:`reports.view.view`. Strings from files are not escaped yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from certify.base.verdict import SEVERITY
from certify.policy.codes import codes
from certify.ticket.make import AUTHOR_EXCLUSION
from certify.ticket.schema import ends

NOT_JUDGED: Final = "NOT JUDGED"
"""Stands for the verdict where a file could not be judged at all."""

_DENYING: Final = [outcome.value for outcome, _ in reversed(SEVERITY)]
_VERDICTS: Final = (NOT_JUDGED, *dict.fromkeys(status.value for _, status in SEVERITY), "CERTIFIED")
_ANSWERS: Final = {"CERTIFIED": "Yes.", "REFUTED": "No."}
_RECORDS: Final = (
    "The records are the word of whoever evaluated: --replay repeats on the model what they say of drawn"
    " translations, not of the loss, and a policy can pin the texts."
)


@dataclass(frozen=True, slots=True)
class Summary:
    """A verdict with the first thing that stands in its way.

    Attributes:
        verdict: verdict on the ticket, or :data:`NOT_JUDGED`.
        id: the ticket; empty for a file that could not be judged.
        code: reason code of the gravest item; the verdict's own where nothing stands in the way.
        reason: what that item found.
        remedy: what to do about it; None if nothing.
        file: the ticket file.
        item: name of the item; empty if there is none.
    """

    verdict: str
    id: str
    code: str
    reason: str
    remedy: str | None
    file: str
    item: str = ""


def summarise(report: Mapping[str, Any], ticket: Mapping[str, Any]) -> Summary:
    """Sum up one ticket of a report."""
    verdict, where = ticket["verdict"], (ticket["id"], report["file"])
    for item in denying(ticket):
        return Summary(verdict, where[0], item["code"], item["text"], remedy_of(item), where[1], item["name"])
    return Summary(verdict, where[0], verdict, codes()[verdict].meaning, None, where[1])


def worst_first(run: Mapping[str, Any]) -> list[Summary]:
    """Sum up every ticket and every file of a run, in the order in which to worry about them."""
    found = [
        Summary(NOT_JUDGED, "", error["code"], error["text"], remedy_of(error), error["file"])
        for error in run["errors"]
    ]
    found += [summarise(report, ticket) for report in run["reports"] for ticket in report["tickets"]]
    return sorted(found, key=lambda one: _VERDICTS.index(one.verdict))


def tally(found: Iterable[Summary]) -> str:
    """How many of each verdict, in their order: "1 INVALID, 4 CERTIFIED"."""
    numbers = Counter(one.verdict for one in found)
    return ", ".join(f"{number} {verdict}" for verdict, number in numbers.items())


def denying(ticket: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items that stand in the way of CERTIFIED, gravest first; those that did not run follow their cause."""
    found = [
        item
        for item in ticket["items"]
        # A checker that differs closes the gate, required or not.
        if gravity(item["outcome"]) and (item["required"] or item["outcome"] == "error")
    ]
    return sorted(found, key=lambda item: (item["outcome"] == "not run", -gravity(item["outcome"])))


def gravity(outcome: str) -> int:
    """How gravely an outcome denies; 0 if it does not."""
    return 1 + _DENYING.index(outcome) if outcome in _DENYING else 0


def remedy_of(finding: Mapping[str, Any]) -> str | None:
    """What to do about an item or an error: its own remedy, or that of its code."""
    code = codes().get(finding["code"])
    own: str | None = finding.get("remedy")
    return own or (code.remedy if code else None)


def answer(ticket: Mapping[str, Any]) -> str:
    """Answer the question of the policy."""
    return _ANSWERS.get(ticket["verdict"], "Not shown.")


def policy(report: Mapping[str, Any]) -> str:
    """Name the policy: nobody is to take a policy of one's own for one of the package."""
    set_by = f", set by {report['policy_set_by']}" if report["policy_set_by"] else ""
    if report["policy_file"] is None:
        return f"policy {report['policy']}{set_by}"
    digest = report["policy_sha256"][:16]
    own = f"{report['policy']}, a policy of your own ({report['policy_file']}, sha256 {digest}…){set_by}"
    return own + "".join(f"; {less}" for less in report["policy_loosens"])


def left_out(ticket: Mapping[str, Any]) -> int:
    """How many rows the author left out of the selection."""
    groups = [one["ids"] for one in ticket["selection"]["excluded"] if one["reason"] == AUTHOR_EXCLUSION]
    return sum(last + 1 - first for ids in groups for first, last in map(ends, ids))


def caveats(ticket: Mapping[str, Any]) -> list[str]:
    """What to know about a ticket before its reasons: whose word is taken, and whether two programs agree."""
    said = []
    if count := left_out(ticket):
        said.append(f"Rows that the author left out of the selection: {count}.")
    if ticket["table"]["source"] is not None:
        said.append(f"The base, as its maker states: {ticket['table']['source']}.")
    if ticket["chosen_among"]:
        said.append(
            f"A record says that the ticket was chosen among {ticket['chosen_among']} on other text, so that"
            " its limits do not pay for that choice: its author's word."
        )
    for engine in dict.fromkeys(made["engine"] for made in ticket["engines"]):
        texts = ", ".join(made["text"] for made in ticket["engines"] if made["engine"] == engine)
        said.append(
            f"The outputs on {texts} were made by {engine}: that it served these tables is their author's"
            " word (A-ENGINE)."
        )
    said.append(_second_opinion(ticket))
    return said + ([_RECORDS] if ticket["claims"] else [])


def _second_opinion(ticket: Mapping[str, Any]) -> str:
    """Verdict of the independent checker, and whether it took some results from this program."""
    (item,) = (one for one in ticket["items"] if one["name"] == "checker.agrees")
    if item["outcome"] != "pass":
        return f"Independent checker: {item['text']}."
    rows = " and what needs the ticket's rows" if "released.rows" in item["text"] else ""
    taken = f"; it took what needs whole tables{rows} from this program" if "took" in item["text"] else ""
    return f"The independent checker agrees{taken}."
