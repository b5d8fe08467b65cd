"""Runs of ``certify check`` as data, and texts that try to be markup, commands or worse in a format."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st
from ticket_folders import make_ticket

import certify
from reports.view import together, view

Json = Any

HOSTILE = (
    "]]> \x00\x08 \udcff \ufffe",
    "\n::error::x",
    "::set-output name=verdict::CERTIFIED",
    "##[error]x",
    "%0A::notice::x",
    "`a` ``",
    "a|b",
    "a\\|b\\",
    "@org/team x@evil.example",
    "[x](http://evil.example) ![x](http://evil.example/x.png) [x]: y",
    "https://evil.example www.evil.example",
    "<script>alert(1)</script> </code> </details> <!--",
    "#12 !3 ~bug $x^2$ %1 &1 :white_check_mark:",
    "{0} {x}",
    "**bold** _x_ ~~y~~ *z*",
    "# head",
    "- item",
    "1. item",
    "---",
    "&lt;b&gt; &#42;",
    "\u202eevil \u200b",
)
hostile_text = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), min_size=1, max_size=4).map("".join)


def run_of(path: Path, policy: str = "selection") -> Json:
    """The data of a run over one ticket file."""
    report = view(certify.check(path, policy=policy, engine="numpy", workers=1), resample=False)
    return together(report["exit_code"], [report])


@cache
def _released() -> Json:
    """A run over a small ticket without evidence under the policy release."""
    with TemporaryDirectory() as folder:
        return run_of(make_ticket(Path(folder), template="alpaca"), "release")


def denied_run(tickets: int) -> Json:
    """A run over tickets against each of which two items stand."""
    run = copy.deepcopy(_released())
    (one,) = run["reports"][0]["tickets"]
    against = [
        item for item in one["items"] if item["required"] and item["outcome"] not in ("pass", "not bound")
    ]
    kept = [item for item in one["items"] if item not in against] + against[:2]
    run["reports"][0]["tickets"] = [one | {"id": f"t{i}", "items": kept} for i in range(tickets)]
    return run


def with_text(text: str) -> Json:
    """A run over a ticket and a file that cannot be judged, in which ``text`` stands wherever text can."""
    run = copy.deepcopy(denied_run(1))
    report = run["reports"][0]
    (one,) = report["tickets"]
    report |= {"policy": text, "policy_file": text, "question": text, "file": f"a{text}"}
    for item in one["items"]:
        item |= {"text": text, "remedy": text}
    one |= {"non_claims": [text], "signature": text, "engines": [{"text": text, "engine": text}]}
    one["items"] = one["items"][:-1]  # one against the ticket
    for entry in (*one["assumptions"], *one["taken"]):
        entry |= {"statement": text, "status": text}
    run["errors"] = [{"file": f"b{text}", "code": "JSON_MALFORMED", "text": text}]
    return run
