"""The report as data: complete, JSON-able, and the same numbers as a plain count."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ticket_folders import MOVED, edit

import certify
from certify.base.records import KSResult
from certify.policy.policy import POLICIES
from certify.ticket.schema import Ticket, read_ticket_file
from reports.view import digest, histogram, signature, view


def view_of(path: Path, policy: str = "selection") -> dict[str, Any]:
    return view(certify.check(path, policy=policy, engine="numpy", workers=1))


@pytest.mark.parametrize("policy", ["selection", "release"])
def test_the_view_is_json_and_says_what_the_check_said(ticket_path: Path, policy: str) -> None:
    report = certify.check(ticket_path, policy=policy, engine="numpy")
    data = view(report)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["schema"], data["schema_version"], data["policy"]) == ("certify.report", 1, policy)
    assert data["exit_code"] == int(report.exit_code)
    (one,), (ticket,) = data["tickets"], report.tickets
    assert (one["id"], one["verdict"], one["digest"]) == ("tiny", ticket.status.value, ticket.ticket.digest())
    assert [item["name"] for item in one["items"]] == [item.name for item in ticket.items]
    assert {item["name"] for item in one["items"] if item["required"]} == set(POLICIES[policy].requires)
    assert one["non_claims"] == list(POLICIES[policy].non_claims)
    assert [token["id"] for token in one["tokens"]] == list(MOVED)
    assert all(token["D"] == token["h"] / 32 for token in one["tokens"])
    assert one["premise"]["holds"] is True
    assert {entry["id"] for entry in one["assumptions"]} == {
        *("A-LAW", "A-SCALAR", "A-POINT", "A-ORDER(V)", "A-ONE", "A-NULL")
    }


def test_an_invalid_ticket_has_a_view_without_a_scan(ticket_path: Path) -> None:
    edit(ticket_path, lambda t: t["base"].update(tensor_sha256="0" * 64))
    (one,) = view_of(ticket_path)["tickets"]
    assert (one["verdict"], one["histogram"], one["premise"]) == ("INVALID", None, None)
    json.dumps(one, allow_nan=False)


def test_the_digest_is_of_what_was_found_not_of_where(ticket_path: Path, tmp_path: Path) -> None:
    def digest_of(path: Path, *, code: int = 0, error: str | None = None) -> str:
        errors = [] if error is None else [{"file": "x", "code": error, "text": str(path)}]
        return digest({"exit_code": code, "reports": [view_of(path)], "errors": errors})

    first = digest_of(ticket_path)
    moved = tmp_path / os.fsdecode(b"else\xffwhere") / ticket_path.name  # a path that is no text
    shutil.copytree(ticket_path.parent, moved.parent)
    moved.write_text(json.dumps(json.loads(ticket_path.read_text())))
    assert [view_of(path)["tickets"][0]["line"] == 1 for path in (ticket_path, moved)] == [False, True]
    assert digest_of(moved) == first
    others = {
        first,
        digest_of(ticket_path, code=4, error="FILE_UNREADABLE"),
        digest_of(ticket_path, code=4, error="JSON_MALFORMED"),
    }
    edit(ticket_path, lambda t: t["tokens"][0].update(h=1))
    assert len(others | {digest_of(ticket_path)}) == 4
    one = view_of(ticket_path)
    corpus = {"name": "corpus-bleu:base:cut", "asymptotic": True}
    found = set()
    for claim in (corpus | {"lower": 1}, corpus | {"lower": 2}, corpus | {"asymptotic": False}):
        one["tickets"][0]["claims"] = [claim]
        found.add(digest({"exit_code": 0, "reports": [one], "errors": []}))
    assert len(found) == 2


def test_the_line_of_a_ticket_is_that_of_its_id(ticket_path: Path) -> None:
    content = json.loads(ticket_path.read_text())
    tickets = [content["tickets"][0] | {"id": f"t.{i}-x_"} for i in range(3)]
    ticket_path.write_text(
        json.dumps(content | {"created_by": '"id": "t.2-x_"', "tickets": tickets}, indent=1)
    )
    lines = ticket_path.read_text().splitlines()
    for one in view_of(ticket_path)["tickets"]:
        assert lines[one["line"] - 1].strip() == f'"id": "{one["id"]}",'


def test_the_signature_names_every_setting_once(ticket_path: Path) -> None:
    (ticket,) = read_ticket_file(ticket_path).tickets
    line = signature(ticket, "selection")
    fields = dict(field.split(":", 1) for field in line.split("|"))
    assert fields | {"tool": ""} == {
        "ks": "exact",
        "n": "32",
        "dtype": "F16",
        "rule": "ks",
        "alpha": "0.05",
        "correction": "none",
        "policy": "selection",
        "schema": "2",
        "tool": "",
    }
    seeded = ticket.model_copy(update={"selection": ticket.selection.model_copy(update={"seed": 0})})
    assert "seed:0" in signature(seeded, "selection").split("|")
    for change in ({"alpha": "0.01"}, {"correction": "holm"}, {"method": "asymptotic"}, {"rule": "norm:3"}):
        other = ticket.model_copy(update={"selection": ticket.selection.model_copy(update=change)})
        assert signature(other, "selection") != line


def _result(h: list[int], equal: list[bool], ties: list[bool]) -> KSResult:
    v = len(h)
    zero, flag = np.zeros(v), np.zeros(v, bool)
    counts = np.array(h, np.int32)
    counts[np.array(equal, bool)] = 0
    return KSResult(
        n=32,
        h=counts,
        p=np.ones(v),
        log10_p=zero,
        method="exact",
        dtype="F16",
        equal=np.array(equal, bool),
        permuted=flag,
        ties=np.array(ties, bool),
        shift_norm=zero,
        cosine=zero,
        max_abs=zero,
        engine="numpy",
    )


@pytest.fixture(scope="module")
def template(_pristine_ticket: Path) -> Ticket:
    return read_ticket_file(_pristine_ticket).tickets[0]


class TestHistogram:
    """Bins partition the moved rows; the oracle counts them one by one."""

    @given(
        rows=st.lists(st.tuples(st.integers(0, 32), st.booleans(), st.booleans()), min_size=41, max_size=60)
    )
    def test_every_moved_row_is_in_one_bin(
        self, template: Ticket, rows: list[tuple[int, bool, bool]]
    ) -> None:
        h, equal, ties = map(list, zip(*rows, strict=True))
        data = histogram(_result(h, equal, ties), template)
        moved = [i for i in range(len(h)) if not equal[i]]
        assert data["equal"] == sum(equal)
        assert data["ties"] == sum(ties[i] for i in moved)
        assert data["h_tau"] == 11, "sqrt(ln(40)/32) = .3395 lies between 10/32 and 11/32"
        bins = data["bins"]
        assert sum(entry["rows"] for entry in bins) == len(moved)
        assert len(bins) <= 14
        for entry in bins:
            first, last = entry["h_first"], entry["h_last"]
            assert 0 <= first <= last <= 32
            assert not first < 11 <= last, "no bin mixes both sides of tau"
            inside = [i for i in moved if first <= h[i] <= last]
            assert entry["rows"] == len(inside)
            assert entry["in_ticket"] == len([i for i in inside if i in MOVED])
        assert [e["h_first"] for e in bins[1:]] == [e["h_last"] + 1 for e in bins[:-1]]

    def test_equal_tables_have_no_bins(self, template: Ticket) -> None:
        data = histogram(_result([0] * 50, [True] * 50, [True] * 50), template)
        assert (data["equal"], data["ties"], data["bins"]) == (50, 0, [])
