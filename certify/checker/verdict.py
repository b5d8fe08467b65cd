"""Policies, verdicts on the tickets of a folder, and the command line."""

from __future__ import annotations

import json
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from .audit import LEFT, ROWS, Audit, Given, Opinion
from .claims import Policy
from .declared import COMPARED, Requirement, scored_under
from .shapes import SHIPPED, fits
from .tables import (
    SLUG,
    Folder,
    Json,
    Stop,
    answer,
    fetch,
    level,
    need,
    parse,
    resource,
    sha,
)

DEFAULT: Final = "release"
INTEGRITY: Final = (
    *("integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template", "integrity.rows"),
    *("released.rows", "certificate.present", "certificate.content", "certificate.claims"),
    *("evidence.integrity", "evidence.split"),
)
"""What claims rest on."""
NOT_READ: Final = "statements and status of assumptions, non-claims, signatures of claims"
LOOKS: Final = str.maketrans(
    "\u0430\u03b1\u0251\u0432\u03b2\u0441\u05013\u0435\u03b5\u0261\u043d\u04bb\u0458\u043a\u03ba1i|\u0456\u0457\u03b9"
    "\u0131\u0269\u043c\u03b70\u043e\u03bf\u0440\u03c1\u051b5\u0455\u0442\u03c4\u03c5\u03bd\u051d\u03c9\u0445\u03c7\u0443\u03b347",
    "aaabbcdeeeghhjkkllllllllmnoooppqssttuvwwxxyyat",
)
"""Digits, Cyrillic and Greek letters, and the Latin letter that each looks like; 1 and i look like l."""
GAINS: Final = ("at_least", "above")
RISES: Final = ("at_most", "below")
TESTS: Final = {"guarantee": ("finding",), "unrelated-loss": RISES, "unrelated-excess": RISES}
"""How claims are tested; those that are not here by :data:`GAINS`."""
USAGE: Final = f"usage: checker DIR [--policy {'|'.join(SHIPPED)}|FILE.toml] [--json] [--quiet]\n"
HELP: Final = f"""{USAGE}
DIR is the folder of tickets.json. Everything is derived again, tables included if they lie in the folder.
Prints ID POLICY STATUS CODE... The exit status is the gravest under the policy asked for, else under
{DEFAULT}: 0 certified, 1 refuted, 3 inconclusive or vacuous, 4 invalid; 2 usage, 5 no ticket.
"""
# Gravest first.
EXIT: Final = {"INVALID": 4, "REFUTED": 1, "USAGE": 2, "INCONCLUSIVE": 3, "VACUOUS": 3, "CERTIFIED": 0}


def extended(data: bytes) -> tuple[Json, bytes]:
    """A policy's fields: what it extends, its own items and claims added, other fields in their stead.

    With the bytes of all these files, its own first.
    """
    own = tomllib.loads(data.decode("utf-8"))
    need(fits(own, "policy"), "POLICY_MALFORMED")
    if own.get("extends") is None:
        return own, data
    other, files = extended(resource("policy", f"{own['extends']}.toml"))
    added = {key: [*other.get(key, []), *own.get(key, [])] for key in ("items", "claim")}
    return other | own | added, data + files


def variants(kind: str) -> list[str]:
    """What can follow the kind in the name of a claim that a policy asks: comparator and extraction rule."""
    comparators, rules = COMPARED.get(kind, ((), ()))
    return (
        [f"{name}:{rule}" for name in comparators for rule in (*rules, "declared")]
        if rules
        else [*comparators]
    )


def policy(data: bytes) -> Policy:
    """A policy from its file; what it asks and this program does not know is never shown."""
    (read, files), claims = extended(data), []
    need({*read.get("items", ())} - {"checker.agrees"}, "POLICY_EMPTY")
    known = {*LEFT, *ROWS, *INTEGRITY, "selection.content", "checker.agrees"}
    need({*read["items"]} <= known, "POLICY_MALFORMED")
    need(not read.get("claim") or ("delta" in read and {*INTEGRITY} <= {*read["items"]}), "POLICY_INCOMPLETE")
    for one in read.get("claim", []):
        (test,) = one.keys() - {"name", "texts"}
        kind, _, variant = one["name"].partition(":")
        need(test in TESTS.get(kind, GAINS) and variant in variants(kind), "POLICY_MALFORMED")
        need("texts" not in one or (one["texts"] and fits(one["texts"], "text*")), "POLICY_MALFORMED")
        sign = -1 if test in ("at_most", "below") else 1  # an upper limit is a lower one of the opposite
        need(fits(one[test], "=held|not refuted" if test == "finding" else "threshold"), "POLICY_MALFORMED")
        threshold = None if test == "finding" else sign * Fraction(one[test])
        finding = one.get("finding", "")
        strict = test in ("above", "below")
        claims.append(Requirement(one["name"], threshold, strict, finding, tuple(one.get("texts", ()))))
    lists = [
        read["items"],
        *(read.get(key, ()) for key in ("design", "accept")),
        [one.name for one in claims],
    ]
    need(all(len({*one}) == len(one) for one in lists), "POLICY_MALFORMED")
    taken = frozenset([*read.get("design", ()), *read.get("accept", ())])
    need(all(fits(one, "sha") for one in read.get("texts", {}).values()), "POLICY_MALFORMED")
    delta, texts = level(read["delta"]) if "delta" in read else Fraction(1), dict(read.get("texts", {}))
    return Policy(read["name"], tuple(read["items"]), tuple(claims), taken, delta, texts, sha(files))


def looks(name: str) -> str:
    """What a name looks like: without case, marks and separators, one letter for all that resemble it."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(char for char in folded if char.isalnum() or char == "|").translate(LOOKS)
    return plain.replace("rn", "m").replace("vv", "w")


def named(name: str) -> Policy:
    """A shipped policy by its name, or the policy of a ``.toml`` file."""
    if name in SHIPPED:
        return policy(resource("policy", f"{name}.toml"))
    need(name.endswith(".toml"), "POLICY_UNKNOWN", "USAGE")
    need(Path(name).is_file(), "FILE_UNREADABLE", "USAGE")
    rules = policy(fetch(Path(name)))
    need(looks(rules.name) not in map(looks, SHIPPED), "POLICY_NAME", "USAGE")
    need(SLUG.fullmatch(rules.name), "POLICY_MALFORMED")
    return rules


def verify(
    folder: Path,
    ticket_file: str = "tickets.json",
    policies: Sequence[str] = SHIPPED,
    *,
    ids: Sequence[str] = (),
    given: Mapping[str, Given] | None = None,
    certificate: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Opinion]]:
    """Verdicts on tickets of a folder, by ticket and policy.

    Args:
        folder: what the ticket's relative paths start from.
        ticket_file: name of the ticket file in it.
        policies: names of shipped policies, or paths of ``.toml`` files.
        ids: judge only these tickets; all of them if empty.
        given: by ticket what another program found out about whole tables; None: all is derived again.
        certificate: a certificate instead of the ones that tickets name.
        say: called with a line wherever something takes time.

    Raises:
        Stop: the ticket file or a policy is refused.
    """

    def read() -> list[Json]:
        need((files.root / ticket_file).is_file(), "FILE_UNREADABLE", "USAGE")
        content = parse(fetch(files.root / ticket_file))
        need(fits(content, "tickets"), "TICKET_SCHEMA")
        names = [ticket["id"] for ticket in content["tickets"] if scored_under(ticket)]
        need(len({*names}) == len(names) and all(map(SLUG.fullmatch, names)), "TICKET_MALFORMED")
        return [ticket for ticket in content["tickets"] if ticket["id"] in (ids or names)]

    files = Folder(folder, say)
    tickets, item = answer(read)
    need(tickets is not None, *reversed(item))
    asked: list[Policy] = []
    for name in policies:
        rules, item = answer(named, name)
        need(rules is not None, *reversed(item))
        say(f"policy {rules.name}, sha256 {rules.sha256}")
        asked.append(rules)
    found = dict[str, dict[str, Opinion]]()
    for ticket in tickets:
        known = given.get(ticket["id"]) if given else None
        audit, item = answer(Audit, files, ticket, known, certificate)
        broken = Opinion("INVALID", (item[1] or "MALFORMED",))
        found[ticket["id"]] = {
            rules.name: (audit and answer(audit.verdict, rules)[0]) or broken for rules in asked
        }
    return found


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    if {"--help", "-h"} & {*arguments}:
        sys.stdout.write(HELP)
        return 0
    words = [word for word in arguments if word not in ("--json", "--quiet")]
    policies = words[2:] if words[1:2] == ["--policy"] else []
    if len(words) != 1 + 2 * len(policies) or (
        policies and not (policies[0] in SHIPPED or policies[0].endswith(".toml"))
    ):
        sys.stderr.write(USAGE)
        return 2
    if not Path(words[0], "tickets.json").is_file():
        sys.stderr.write(f"checker: {words[0]!a}: expected the folder of tickets.json\n")
        return 2

    def say(line: str) -> None:
        if "--quiet" not in arguments:
            sys.stderr.write(f"checker: {line}\n")

    try:
        found = verify(Path(words[0]), policies=policies or SHIPPED, say=say)
    except Stop as stop:
        found = {"-": {name: Opinion(stop.args[0], stop.args[1:]) for name in policies or SHIPPED}}
    if "--json" in arguments:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    say(f"not read: {NOT_READ}")
    for name, verdicts in found.items() if "--json" not in arguments else ():
        for rules, (status, codes, _) in verdicts.items():
            sys.stdout.write(" ".join([name, rules, status, *codes]) + "\n")
    statuses = [(verdicts.get(DEFAULT) or next(iter(verdicts.values())))[0] for verdicts in found.values()]
    return next((EXIT[status] for status in EXIT if status in statuses), 5)
