"""What differs between two tickets: nothing of equals, each change by name, and which claim is stronger."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, Ran, in_process
from evidence_folders import Bundle, make_bundle

from certify.base.model import Refusal, validate
from certify.certificate.schema import Certificate, parse_certificate, read_certificate
from certify.policy.difference import Difference, compare
from certify.ticket.schema import Ticket, parse_ticket_file, read_ticket_file

Capture = pytest.CaptureFixture[str]
Json = dict[str, Any]
PUBLISHED = ROOT / "reports" / "published" / "en-ca-experiment" / "tickets"


def _ticket(change: Callable[[Json], object]) -> Ticket:
    content = json.loads((PUBLISHED / "tickets.json").read_bytes())
    content["tickets"] = content["tickets"][:1]
    change(content["tickets"][0])
    return parse_ticket_file(content).tickets[0]


SAME = _ticket(lambda _: None)


def _turns(found: Difference) -> dict[str, str]:
    return {one.name: one.change for one in found.changes}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda one: one["base"].update(tensor_sha256="0" * 64), {"base.tensor_sha256": "changed"}),
        (lambda one: one.update(template=None), {"template.name": "removed", "template.sha256": "removed"}),
        (lambda one: one["tokenizer"].update(sha256="0" * 64), {"tokenizer.sha256": "changed"}),
        (lambda one: one["selection"].update(alpha="0.06"), {"selection.alpha": "changed"}),
        (lambda one: one.update(extraction="cut"), {"extraction": "changed"}),
        (lambda one: one.update(extraction="whole"), {}),  # what is meant where nothing is said
        (lambda one: one.update(id="other"), {}),
        (lambda one: one.update(evidence=[]), {}),
    ],
)
def test_every_bound_field_that_changed_is_named(
    change: Callable[[Json], object], names: Mapping[str, str]
) -> None:
    found = compare(SAME, _ticket(change))
    assert (_turns(found), found.empty) == (names, not names)
    assert (found.ids_added, found.ids_removed, found.ids_changed) == ((), (), ())


def test_rows_in_out_and_restated() -> None:
    def change(one: Json) -> None:
        del one["tokens"][1]
        one["tokens"][2]["h"] -= 1
        one["tokens"][-1]["id"] += 1

    ids = SAME.ids
    found = compare(SAME, _ticket(change))
    assert found.ids_removed == (ids[1], ids[-1])
    assert (found.ids_added, found.ids_changed, found.changes) == ((ids[-1] + 1,), (ids[3],), ())


def _declaring(**claim: Any) -> Ticket:
    return _ticket(lambda one: one.update(declared=[claim] if claim else []))


@pytest.mark.parametrize(
    ("before", "after", "turn"),
    [
        # At most a loss of 2 is promised, then of 1: what is promised is more.
        ({"kind": "non-inferiority", "margin": "2"}, {"margin": "1"}, "stronger"),
        ({"kind": "gain", "margin": "2"}, {"margin": "1"}, "weaker"),
        ({"kind": "gain", "comparator": "base"}, {"margin": "0"}, "weaker"),  # above 0, then at least 0
        ({"kind": "unrelated-excess", "margin": "2"}, {"margin": "1"}, "stronger"),
        ({"kind": "gain", "margin": "2"}, {"delta": "0.01"}, "stronger"),
        ({"kind": "guarantee", "comparator": "measured-max", "delta": "0.01"}, {"delta": "0.05"}, "weaker"),
    ],
)
def test_a_declared_claim_is_weaker_if_less_meets_it(before: Json, after: Json, turn: str) -> None:
    first, second = _declaring(**before), _declaring(**before | after)
    turned = {"stronger": "weaker", "weaker": "stronger"}[turn]
    for one, other, expected in ((first, second, turn), (second, first, turned)):
        turns = _turns(compare(one, other))
        assert turns
        assert set(turns.values()) == {expected}
    assert set(_turns(compare(_declaring(), first)).values()) == {"added"}
    assert set(_turns(compare(first, _declaring())).values()) == {"removed"}


def _certificate(change: Callable[[Json], object]) -> Certificate:
    content = json.loads((PUBLISHED / "certificates" / "a05.json").read_bytes())
    change(content)
    return parse_certificate(content)


def _limit(kind: str, side: str, by: int) -> Callable[[Json], None]:
    """Move one limit of the first claim of a kind by a whole number."""

    def change(content: Json) -> None:
        one = next(claim for claim in content["claims"] if claim["kind"] == kind)[side]
        p, q = map(int, one["exact"].split("/"))
        scaled = -((-(p + by * q) * 10**6) // q) if side == "upper" else (p + by * q) * 10**6 // q
        sign = "-" if scaled < 0 else ""
        decimal = f"{sign}{abs(scaled) // 10**6}.{abs(scaled) % 10**6:06d}"
        one.update(exact=f"{p + by * q}/{q}", decimal=decimal)

    return change


def _finding(name: str) -> Callable[[Json], None]:
    def change(content: Json) -> None:
        next(one for one in content["claims"] if one["kind"] == "guarantee")["finding"] = name

    return change


@pytest.mark.parametrize(
    ("change", "turn"),
    [
        (_limit("gain", "lower", 1), "stronger"),
        (_limit("gain", "lower", -1), "weaker"),
        (_limit("unrelated-excess", "upper", 1), "weaker"),
        (_limit("unrelated-excess", "upper", -1), "stronger"),
        (_finding("held"), "stronger"),
        (_finding("inconclusive"), "stronger"),
        (_finding("premise failed"), "changed"),
        (_finding("vacuous"), "changed"),
        (lambda content: content["claims"][0].update(delta="1/1000"), "stronger"),
        (lambda content: content["claims"][0].update(n=7), "changed"),
        (lambda content: content["claims"].pop(), "removed"),
    ],
)
def test_the_one_claim_that_a_certificate_states_otherwise(
    change: Callable[[Json], object], turn: str
) -> None:
    stated, other = _certificate(lambda _: None), _certificate(change)
    assert compare(SAME, SAME, (stated, stated)).empty
    assert [(one.what, one.change) for one in compare(SAME, SAME, (stated, other)).changes] == [
        ("claim", turn)
    ]
    (back,) = compare(SAME, SAME, (other, stated)).changes
    turned = {"stronger": "weaker", "weaker": "stronger", "removed": "added"}
    assert back.change == turned.get(turn, turn)
    assert [one.change for one in compare(SAME, SAME, (None, other)).changes] == ["added"]


def test_a_text_that_is_gone_takes_its_claims_along() -> None:
    def change(content: Json) -> None:
        gone = content["evidence"].pop(0)
        content["claims"] = [one for one in content["claims"] if one["evidence"] != gone["sha256"]]

    whole, less = _certificate(lambda _: None), _certificate(change)
    assert [(one.what, one.change) for one in compare(SAME, SAME, (whole, less)).changes] == [
        ("text", "removed")
    ]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def test_the_command_exits_as_diff_does(bundle: Bundle, tmp_path: Path, capsys: Capture) -> None:
    def ran(*words: object) -> Ran:
        return in_process(["diff", bundle.path, *words], capsys)

    same = ran(bundle.path)
    assert (same.code, same.err) == (0, "")
    assert "\nnothing differs\n" in same.out
    other = bundle.copy(tmp_path / "copy")
    other.edit_ticket(lambda one: one["tokens"].pop())
    refused = ran(other.path)
    assert refused.code == 4, "its certificate is about the ticket as it was"
    assert "CERTIFICATE_OTHER_TICKET" in refused.one_line()
    other.edit_ticket(lambda one: one.update(certificate=None))
    told, data = ran(other.path), ran(other.path, "--format", "json")
    assert told.code == data.code == 1
    gone = read_ticket_file(bundle.path).tickets[0].ids[-1]
    assert f"\n1 row removed: {gone}\ncertificate removed: certificate: " in told.out
    found = validate(Difference, json.loads(data.out), what="diff", refusal=Refusal("X"))
    certificate = read_certificate(bundle.certificate)[0]
    tickets = [read_ticket_file(one.path).tickets[0] for one in (bundle, other)]
    assert found == compare(*tickets, (certificate, None))
