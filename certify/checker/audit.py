"""The audit of one ticket: tables, rows, certificate, evidence, verdict."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

from .arms import choices, labelled, named_once, own_table
from .claims import NULLS, Policy, Text, claim_name, ratio, repeated, shown
from .declared import Requirement, asked_of, asserted, calibrated_on
from .scan import compare, critical, moved, p_exact, select
from .shapes import digests, fits
from .tables import (
    PASS,
    UNKNOWN,
    Folder,
    Item,
    Json,
    Moved,
    Stop,
    answer,
    canonical,
    fetch,
    level,
    naturals,
    need,
    numbers,
    parse,
    sha,
)
from .units import Evidence
from .vocabulary import vocabulary

DIFFERS: Final = ("CLAIM_DIFFERS", "REFUTED")
FIGURES: Final = ("TOKEN_FIGURES", "REFUTED")
TOLERANCE: Final = 1e-9
ROLES: Final = {"unrelated": "loss", "template": "other-template"}  # of claims, by the name's beginning
ORDER: Final = ("INVALID", "REFUTED", "INCONCLUSIVE", "VACUOUS", "")
LEFT: Final = (
    *("integrity.base", "integrity.reference", "selection.parameters", "selection.ids"),
    *("blind-spots.order", "blind-spots.direction", "premise.published"),
)
"""Items that need whole tables."""
ROWS: Final = ("integrity.tokenizer", "selection.figures", "released.rows")
"""Items that need some rows of the tables, and the pieces."""


class Given(NamedTuple):
    """What another program found out about one ticket, so that whole tables are not read twice.

    Attributes:
        items: status and reason code of its items; those of :data:`LEFT` are taken from here.
        h: counts of the rows of the ticket's table that differ from E*, by id.
        table: digest of the ticket's table.
        elsewhere: a table or the tokenizer does not lie in the folder: items about rows are taken, too.
    """

    items: Mapping[str, Item]
    h: Mapping[int, int]
    table: str
    elsewhere: bool = False


class Opinion(NamedTuple):
    """A verdict: its status, the reason codes, and the items that were left to the other program."""

    status: str
    codes: tuple[str, ...]
    left: tuple[str, ...] = ()


class Audit:
    """What is found out about one ticket, item by item."""

    def __init__(self, folder: Folder, ticket: Json, given: Given | None, certificate: Path | None) -> None:
        self.folder, self.ticket, self.given, self.path = folder, ticket, given, certificate
        self.items, self.left, self.h = dict[str, Item](), list[str](), dict[int, int]()
        self.texts, self.stated, self.delta = list[Text](), set[tuple[str, str]](), Fraction(1)
        self.ids, self.dtype = naturals([row["id"] for row in ticket["tokens"]]), ticket["base"]["dtype"]
        self.ask("integrity.template", folder.template, ticket["template"])
        self.rows = self.ask("integrity.rows", folder.rows, ticket)
        self.ask("selection.content", need, self.ids, "EMPTY_TICKET", "VACUOUS")
        if given is None:
            self.scan()
        else:
            self.leave(given)

    def ask(self, name: str, question: Callable[..., Any], *about: Any) -> Any:
        """The answer to a question, which makes the item of that name."""
        value, self.items[name] = answer(question, *about)
        return value

    def scan(self) -> None:
        """Everything about the tables, computed from all their rows."""
        folder, ticket = self.folder, self.ticket
        self.base: Any = self.ask("integrity.base", folder.table, ticket["base"])
        self.reference: Any = self.ask(
            "integrity.reference", folder.table, ticket["reference"], ticket["base"]
        )
        self.vocabulary: Any = self.ask("integrity.tokenizer", vocabulary, folder, ticket["tokenizer"])
        if not (self.base and self.reference and self.vocabulary):
            return
        key = f"moved {canonical([ticket['base'], ticket['reference']])!r}"
        self.moved: Moved = folder.once(key, moved, self.base, self.reference)
        chosen = self.ask("selection.parameters", self.select)
        if self.items["selection.parameters"][0] not in ("", "REFUTED"):
            return
        self.ask("selection.ids", need, chosen == self.ids, "SELECTION_IDS", "REFUTED")
        self.outside()
        self.row_items()
        self.h = {i: h for i, (h, _, _) in self.moved.items() if i not in self.ids}
        if self.rows is not None:
            pairs = [(i, row, self.reference[i]) for i, row in zip(self.ids, self.rows, strict=True)]
            self.h |= {i: compare(row, wanted, self.dtype)[0] for i, row, wanted in pairs if row != wanted}
            self.table = self.served(dict(zip(self.ids, self.rows, strict=True)))

    def leave(self, given: Given) -> None:
        """What needs whole tables is taken from the other program; the ticket's own rows are not."""
        self.h, self.table = dict(given.h), given.table
        self.take(LEFT)
        if any(self.items.get(name) != PASS for name in LEFT[:2]):
            self.take(ROWS)
            return
        try:
            need(not given.elsewhere, *UNKNOWN)
            self.base = self.folder.peek(self.ticket["base"])
            self.reference = self.folder.peek(self.ticket["reference"], self.ticket["base"])
        except Stop as stop:
            need(stop.args[1] == UNKNOWN[0], *reversed(stop.args))
            self.take(ROWS)
            return
        self.vocabulary = self.ask("integrity.tokenizer", vocabulary, self.folder, self.ticket["tokenizer"])
        if given.items.get("selection.figures", UNKNOWN)[1] == "NOT_RUN":
            self.take(ROWS[1:])
            return
        if self.vocabulary:
            rows = [(i, self.base[i], self.reference[i]) for i in self.ids]
            self.moved = {i: compare(a, b, self.dtype) for i, a, b in rows if a != b}
            self.row_items()

    def take(self, names: Sequence[str]) -> None:
        """Items as the other program found them."""
        assert self.given is not None
        self.left += [name for name in names if name in self.given.items]
        found = {name: self.given.items[name] for name in self.left}
        self.items |= {name: item if item[0] else PASS for name, item in found.items()}

    def select(self) -> list[int]:
        """The ids that the ticket's rule selects."""
        ref = self.ticket["selection"]["counts"]
        return select(self.ticket, self.moved, self.vocabulary, self.folder.counts(ref) if ref else None)

    def figures(self, row: Json) -> bool:
        """Whether a ticket states of a row what was computed; at the edge another program is right."""
        refuted = self.given and self.given.items.get("selection.figures", PASS)[0] == "REFUTED"
        near = TOLERANCE * (1 if self.given is None else 0.1 if refuted else 10)
        n, (h, norm, _) = self.ticket["base"]["shape"][1], self.moved.get(row["id"], (0, 0.0, 1.0))
        if self.ticket["selection"]["method"] == "exact":
            p = p_exact(h, n)
            log = math.log10(p.numerator) - math.log10(p.denominator)
            close = Fraction(math.nextafter(row["p"], 0)) < p <= Fraction(row["p"])  # p rounded up
        else:
            log = min(0, (math.log(2) - h * h / n) / math.log(10))
            close = math.isclose(row["p"], min(1, 2 * math.exp(-h * h / n)), rel_tol=near, abs_tol=1e-300)
        close = close and math.isclose(row["log10_p"], log, rel_tol=near, abs_tol=near)
        close = close and math.isclose(row["shift_norm"], norm, rel_tol=near, abs_tol=1e-300)
        return close and (row["h"], row["piece"]) == (h, self.vocabulary[0].get(row["id"]))

    def outside(self) -> None:
        """Blind spots and premise, over all rows outside the ticket."""
        moved, outside = self.moved, self.moved.keys() - {*self.ids}
        n, alpha = self.ticket["base"]["shape"][1], level(self.ticket["selection"]["alpha"])
        tau = critical(n, alpha, "asymptotic")
        still = {i for i in outside if moved[i][0] <= max(1, n // 64)}
        permuted = {i for i in still if moved[i][1] >= 0.5 * math.hypot(*numbers(self.base[i], self.dtype))}
        permuted |= {i for i in still if moved[i][0] == 0 < moved[i][1]}
        rotated = {i for i in outside if moved[i][2] < 0.2 and moved[i][:2] != (0, 0)}
        above = [i for i in outside if moved[i][0] >= tau]
        self.ask("blind-spots.order", need, not permuted, "PERMUTED_ROW", "REFUTED")
        self.ask("blind-spots.direction", need, not rotated, "ROTATED_ROW", "REFUTED")
        self.ask("premise.published", need, not above, "PREMISE_FAILED", "REFUTED")

    def row_items(self) -> None:
        """Figures of the ticket's tokens, and what its released rows are."""
        self.ask("selection.figures", lambda: need(all(map(self.figures, self.ticket["tokens"])), *FIGURES))
        if self.rows is not None and self.ticket["released"]["object"] == "transfer":
            same = self.rows == [self.reference[i] for i in self.ids]
            self.ask("released.rows", need, same, "ROWS_NOT_REFERENCE", "REFUTED")
        elif self.rows is not None:
            trained = not self.ids or self.rows != [self.base[i] for i in self.ids]
            self.ask("released.rows", need, trained, "ROWS_UNMOVED", "REFUTED")

    def served(self, rows: Mapping[int, bytes]) -> str:
        """Digest of the base with these rows put in."""
        shape = self.ticket["base"]["shape"]
        total = hashlib.sha256(canonical({"dtype": self.dtype, "shape": shape}) + b"\n")
        for i, row in enumerate(self.base):
            total.update(rows.get(i, row))
        return total.hexdigest()

    def certificate(self) -> Json:
        """The certificate, if it is about this ticket."""
        located: Any = self.ticket.get("certificate")
        need(located or self.path, "NO_CERTIFICATE", "INCONCLUSIVE")
        path = self.path or self.folder.path(located["path"], located.get("sha256"))
        data = fetch(path)
        need(self.path or located.get("sha256") in (None, sha(data)), "CERTIFICATE_DIGEST")
        content: Json = parse(data)
        about = {"id": self.ticket["id"], "sha256": sha(canonical(asserted(self.ticket)))}
        need(
            content["schema"] == "certify.certificate" and str(content["schema_version"]) in ("1", "2", "3"),
            "CERTIFICATE_SCHEMA",
        )
        need(content["ticket"] == about, "CERTIFICATE_OTHER_TICKET")
        need(content["schema_version"] > 2, "CERTIFICATE_OLDER", "INCONCLUSIVE")
        need(fits(content, "certificate") and shown(content["claims"]), "CERTIFICATE_MALFORMED")
        need(len(content["earlier"]) <= 64, "CERTIFICATE_MALFORMED")
        need(data == canonical(content) + b"\n", "CERTIFICATE_NOT_CANONICAL")
        return content

    def transferred(self, ids: Sequence[int]) -> str:
        """Digest of the base with these rows of the reference put in."""
        return self.served({i: self.reference[i] for i in ids})

    def load(self, located: Json) -> Text:
        """One evidence, if it is about this ticket."""
        path, t = self.folder.path(located["path"], located["sha256"]), self.ticket
        e: Evidence = self.folder.once(f"evidence {path}", Evidence, path)
        need(e.sha256 == located["sha256"], "EVIDENCE_DIGEST")
        m, role = e.m, "loss" if e.m["kind"] == "loss" else "evaluation"
        for part in ("base", "reference"):
            same = m[part] is None or m[part]["tensor_sha256"] == t[part]["tensor_sha256"]
            need(same, f"EVIDENCE_{part.upper()}")
        need(not t["tokenizer"] or m["tokenizer_sha256"] == t["tokenizer"]["sha256"], "EVIDENCE_TOKENIZER")
        probes = {(t["tokenizer"] or {}).get("probe_sha256"), m.get("tokenizer_probe_sha256")}
        hexadecimal = all(len(one) == 64 and {*one} <= {*"0123456789abcdef"} for one in probes - {None})
        need(hexadecimal, "EVIDENCE_MALFORMED")
        need(len(probes - {None}) < 2, "TOKENISATION_DIFFERS")
        if m["template"] and t["template"] and m["template"]["sha256"] != t["template"]["sha256"]:
            need(role != "loss", "EVIDENCE_TEMPLATE")
            role = "other-template"
        named_once(m["arms"], t)
        ours = (self.table, t["released"]["object"], None)
        for one in m["arms"]:
            need(max(one.get("ids") or [0]) < t["base"]["shape"][0], "EVIDENCE_IDS")
            if self.given is None:
                labelled(one, m["arms"], t, len(self.base), self.vocabulary, self.moved)
            if one.get("of") == t["id"] and one.get("control") in NULLS and one["kind"] == "tuned":
                need(one.get("gate") or own_table(one, m["arms"]), "NULL_TABLE")
            if self.given is None and one["kind"] == "transfer":
                ids = one["ids"]
                again = self.folder.once(f"arm {t['base']['tensor_sha256']} {ids}", self.transferred, ids)
                need(one["table_sha256"] == again, "ARM_TABLE")
        fit = [one for one in m["arms"] if (one["table_sha256"], one["kind"], one.get("gate")) == ours]
        best = [one["name"] for one in fit if not one.get("control")] or [one["name"] for one in fit]
        need(len(best) <= 1, "EVIDENCE_ARMS")
        return Text(e, role, best[0] if best else None, t)

    def gather(self, c: Json) -> list[Text]:
        """Everything that certificate and ticket name as evidence."""
        named = {ref["path"]: ref["sha256"] for ref in c["evidence"]}
        need(named, "NO_EVIDENCE", "INCONCLUSIVE")
        need(self.ticket["tokenizer"] and self.ticket["template"], "NOT_BOUND", "INCONCLUSIVE")
        found = [answer(self.load, ref) for ref in c["evidence"]]
        items = [item for _, item in found]
        for one in self.ticket.get("evidence", []):
            if one["path"] not in named:
                items.append(("INCONCLUSIVE", "EVIDENCE_LEFT_OUT"))
            elif one.get("sha256") not in (None, named[one["path"]]):
                items.append(("INVALID", "EVIDENCE_DIGEST"))
        status, code = max(items)  # of the two, INVALID is the graver and the later in the alphabet
        need(not status, code, status)
        texts = [text for text, _ in found]
        need(len({text.e.m["base"]["model_sha256"] for text in texts}) == 1, "EVIDENCE_MODEL")
        need(len({text.e.m["records"]["sha256"] for text in texts}) == len(texts), "EVIDENCE_TWICE")
        shown = {(text.role, text.name, (text.e.m["template"] or {}).get("sha256")) for text in texts}
        need(len(shown) == len(texts), "EVIDENCE_TEXT_TWICE")
        return texts

    def chosen(self) -> tuple[set[str], list[list[int]]]:
        """Sentences on which the rows were chosen and among which ones, from the record of the ticket."""
        on, bound = calibrated_on(self.folder, self.ticket), self.ticket.get("choice")
        if bound is None:
            return on, []
        record = parse(self.folder.read(bound["path"], str(bound["sha256"])))
        need(fits(record, "choice") and digests(record["sentences"]), "CHOICE_MALFORMED")
        rows = [one["ids"] for one in record["candidates"] if one["arm"] == record["chosen"]]
        need(rows == [self.ids], "CHOICE_MALFORMED")
        return on | {*record["sentences"]}, [naturals(one["ids"], 1 << 24) for one in record["candidates"]]

    def examine(self) -> None:
        """Certificate, evidence and claims."""
        c = self.ask("certificate.present", self.certificate)
        if c is None or self.items.get("released.rows") != PASS:
            return
        texts = self.ask("evidence.integrity", self.gather, c)
        lists, (chosen, item) = [text.e for text in texts or ()], answer(self.chosen)
        on, listed = chosen or (set(), [])
        splits = [answer(text.e.disjoint, lists, frozenset(on))[1] for text in texts or ()]
        self.items["evidence.split"] = max([item, *splits])
        if texts is None or chosen is None or self.items["evidence.split"][0] == "INVALID":
            return
        shares, self.delta = Counter(text.role for text in texts), level(c["parameters"]["delta"])
        hints = {(one["evidence"], claim_name(one)): one.get("witness") or () for one in c["claims"]}
        for text in texts:
            ours = {name: found for (sha256, name), found in hints.items() if sha256 == text.e.sha256}
            self.folder.say(f"{self.ticket['id']}: claims on {text.name}")
            among = choices(self.ticket, listed, text.e.m["arms"])
            paid = shares[text.role] * among * (1 + len(c["earlier"]))
            text.compute(self.delta / paid, self.h, ours)
        self.texts = texts
        self.ask("certificate.content", self.subjects, c)
        self.ask("certificate.claims", self.compared, c)

    def subjects(self, c: Json) -> None:
        """What the certificate says that its claims are about."""
        t, model = self.ticket, self.texts[0].e.m["base"]["model_sha256"]
        again = {"base": t["base"]["tensor_sha256"], "reference": t["reference"]["tensor_sha256"]}
        again |= {"table": self.table, "rows": t["released"]["rows"]["served_sha256"]}
        again |= {part: t[part]["sha256"] for part in ("tokenizer", "template") if t[part]} | {"model": model}
        same = [(one["name"], one["sha256"]) for one in c["subjects"]] == [*again.items()]
        need(same and repeated(c, t), "CERTIFICATE_CONTENT")

    def compared(self, c: Json) -> None:
        """The certificate states what was computed, or less."""
        known = {
            (text.e.sha256, name): (text, one) for text in self.texts for name, one in text.claims.items()
        }
        texts = [[ref[key] for key in ("sha256", "text", "role", "delta")] for ref in c["evidence"]]
        again = [[text.e.sha256, text.name, text.role, ratio(text.share)] for text in self.texts]
        need(texts == again, *DIFFERS)
        for one in c["claims"]:
            name = claim_name(one)
            need((one["evidence"], name) in known, *DIFFERS)
            text, claim = known[one["evidence"], name]
            numbers = [one[key] and one[key]["exact"] for key in ("estimate", "lower", "upper")]
            need(numbers == [ratio(claim.estimate), ratio(claim.lower), ratio(claim.upper)], *DIFFERS)
            facts = [one[key] for key in ("finding", "n", "procedure", "assumptions", "unit", "delta")]
            stated = [claim.finding, claim.n, claim.procedure, claim.assumptions, text.unit]
            need(facts == [*stated, ratio(text.share)], *DIFFERS)
            need(
                canonical([one["witness"], one["critical"]]) == canonical([claim.witness, claim.critical]),
                *DIFFERS,
            )
            self.stated.add((one["evidence"], name))

    def judge(self, asked: Requirement, rules: Policy) -> Item:
        """What the gravest text makes of a claim that a policy requires."""
        role = ROLES.get(asked.name.partition("-")[0], "evaluation")
        texts = [
            text for text in self.texts if text.role == role and text.name in (asked.texts or (text.name,))
        ]
        found: list[Item] = []
        for text in texts:
            paid = self.delta <= min(rules.delta, asked.delta or 1)
            stated = paid and (text.e.sha256, asked.name) in self.stated
            item = text.judge(asked, rules.taken) if stated else ("INCONCLUSIVE", "CLAIM_NOT_STATED")
            found.append(item)
        if not texts or {*asked.texts} - {text.name for text in texts}:
            found.append(("INCONCLUSIVE", "NO_TEXT"))
        return min(found, key=lambda item: ORDER.index(item[0]))

    def pinned(self, name: str, digest: str) -> Item:
        """Whether a text was evaluated, all of it, and is the one of that digest."""
        ours = [text.e for text in self.texts if text.name == name and text.role != "other-template"]
        if any(e.m["text"]["sha256"] != digest for e in ours):
            return "REFUTED", "TEXT_DIFFERS"
        return PASS if any(e.fixed for e in ours) else ("INCONCLUSIVE", "NO_TEXT")

    def verdict(self, rules: Policy) -> Opinion:
        """The gravest status of what a policy requires, and every reason."""
        evidence = any(name.startswith(("certificate.", "evidence.")) for name in rules.items)
        reads = rules.claims or rules.texts or evidence
        if reads and "certificate.present" not in self.items:
            self.examine()
        asked = [name for name in rules.items if name != "checker.agrees"]
        found = [self.items.get(item, ("INCONCLUSIVE", "NOT_RUN")) for item in asked]
        found += [self.pinned(*one) for one in rules.texts.items()]
        kinds = {text.e.m["kind"] for text in self.texts if text.name in rules.texts}
        if any(text.e.m["kind"] in kinds and text.name not in rules.texts for text in self.texts):
            found.append(("REFUTED", "TEXT_DIFFERS"))
        own = asked_of(self.ticket, rules.claims) if reads else []
        found += [self.judge(claim, rules) for claim in own if claim]
        found += [("INCONCLUSIVE", "DECLARED_UNTESTABLE")] * own.count(None)
        worst = min((status for status, _ in found), key=ORDER.index, default="")
        codes = tuple(dict.fromkeys(code for status, code in found if status))
        return Opinion(worst or "CERTIFIED", codes, tuple(name for name in asked if name in self.left))
