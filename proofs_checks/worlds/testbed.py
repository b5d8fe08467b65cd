"""A small ticket with its tables in a folder, and two ways to its verdict: in memory, and through the gate.

In memory, records drawn from populations go through the functions with which the gate makes claims and
answers; in files, through everything: parsers, ``certify issue``, ``certify check`` and the independent
checker. Whoever judges many draws uses the first and shows on some that the second agrees, to the last word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

import lottery
from certify import checker
from certify.base import verdict
from certify.base.jsonio import sha256_file
from certify.base.verdict import Item, Outcome, Status
from certify.certificate import build
from certify.claims.subject import make_labels, make_subject
from certify.evidence.load import Evidence, Subject
from certify.gate import check as gate
from certify.gate import issue
from certify.gate.recheck import Inputs, recheck
from certify.gate.session import Session
from certify.policy import outcomes
from certify.policy import policy as policy_module
from certify.policy.policy import EVIDENCE_ITEMS, parse_policy
from certify.tables.rowfile import transferred_rows
from certify.ticket.schema import read_ticket_file, write_ticket_file
from certify.ticket.transfer import table_digest
from proofs_checks.worlds import synthetic
from proofs_checks.worlds.populations import Population, follow

Json = Any

DELTA: Final = "0.05"
"""Error probability of the certificates, as the shipped policies have it."""

_ROWS, _WIDTH, _PIECES = 64, 32, 60
_BOS, _NEWLINE = 2, 3
_MOVED, _FURTHEST = (5, 9, 17, 33, 40), 48
_NUDGED = (_BOS, _NEWLINE, *range(21, 29), *range(41, 58))
"""Rows that moved a little, so that the tables of null tickets differ; no record feeds them."""

_CLAIMS = ("claim.", "guarantee.", "declared.")

_MARGIN: Final = "0.5"
"""The margin that the ticket declares, at a level of .1; steps of populations are clearly above or below."""


def _documented(name: str) -> bytes:
    """A shipped policy that takes documents for independent draws, which those of populations are."""
    text = (Path(policy_module.__file__).parent / f"{name}.toml").read_text(encoding="utf-8")
    text = text.replace("design = [", 'design = ["A-DOCUMENTS", ')
    return text.replace(f'name = "{name}"', f'name = "documents-{name}"', 1).encode()


DOCUMENTED: Final = {name: parse_policy(_documented(name)) for name in ("paper", "release", "strict")}
"""The policies of verdicts on populations, whose units hold several sentences each."""


@dataclass(frozen=True)
class SampledText:
    """A sample of a population: what was drawn, and the name that tells its units from other samples'."""

    population: Population
    places: Sequence[int]
    tag: str

    @property
    def path(self) -> str:
        """Of the manifest, from the ticket's folder."""
        return f"evidence/{self.population.name}.json"

    @property
    def evidence(self) -> Evidence:
        """The evidence in memory."""
        return self.population.evidence(self.places, self.tag)


@dataclass(frozen=True)
class Ruling:
    """A verdict, the items about claims behind it, and what the independent checker says if it was asked."""

    status: Status
    items: tuple[Item, ...]
    second: str = ""


@dataclass(frozen=True)
class Stage:
    """A ticket ``t``, which declares a calibrated margin, in a file of its own.

    ``items`` are what the gate finds of the ticket itself, under every policy; ``arms`` the base, the
    reference, the ticket and every null ticket, as manifests list them, and ``fields`` what manifests must
    say of models, tokenizer and template.
    """

    path: Path
    subject: Subject
    items: tuple[Item, ...]
    arms: tuple[Json, ...]
    fields: Mapping[str, Json]

    def bound(self, population: Population, arms: int | None = None) -> Population:
        """The population as evidence about this ticket, under the first so many arms."""
        loss = "nats" in population.kinds[0].records[0]
        fields = dict(self.fields) | ({"template": None} if loss else {})
        bound = replace(population, arms=self.arms[:arms], fields=fields)
        return bound if loss else follow(bound, _MARGIN)

    def rule(self, texts: Sequence[SampledText], policies: Sequence[str]) -> dict[str, Ruling]:
        """Verdicts in memory: claims, certificate, answers and decision by the functions of the gate.

        The items about certificate and evidence as files are taken as passed; :meth:`check` has them looked
        at.
        """
        claims = build.claims_of([(text.path, text.evidence) for text in texts], self.subject, DELTA)
        certificate = build.build(claims, self.subject, delta=DELTA)
        files = [Item(one, Outcome.PASS, "IN_MEMORY", "not in a file") for one in EVIDENCE_ITEMS]
        found = {}
        for name in policies:
            policy = DOCUMENTED[name]
            answered = outcomes.answer_all(policy, certificate, self.subject, claims)
            items = tuple(outcomes.items(self.subject.ticket, policy, claims, answered))
            required = outcomes.required(self.subject.ticket, policy)
            found[name] = Ruling(verdict.decide(required, [*self.items, *files, *items]), items)
        return found

    def check(self, texts: Sequence[SampledText], policies: Sequence[str]) -> dict[str, Ruling]:
        """The same through files, which replace those that were there, and the independent checker's word."""
        folder = self.path.parent / "evidence"
        folder.mkdir(exist_ok=True)
        paths = [text.population.write(folder, text.places, text.tag) for text in texts]
        out = self.path.parent / "certificate.json"
        out.unlink(missing_ok=True)  # every sample is the first look at its text
        content = read_ticket_file(self.path)
        tickets = tuple(one.model_copy(update={"certificate": None}) for one in content.tickets)
        write_ticket_file(self.path, content.model_copy(update={"tickets": tickets}))
        issue.issue(self.path, paths, out=out, delta=DELTA, attach=True, engine="numpy", workers=1)
        found = {}
        for name in policies:
            file = self.path.parent / f"{name}.toml"
            file.write_bytes(_documented(name))
            second = checker.verify(self.path.parent, self.path.name, [str(file)])["t"]
            (report,) = gate.check(self.path, policy=str(file), engine="numpy", workers=1).tickets
            items = tuple(item for item in report.items if item.name.startswith(_CLAIMS))
            found[name] = Ruling(report.status, items, second[DOCUMENTED[name].name][0])
        return found


def make_stage(folder: Path) -> Stage:
    """Write two small tables, a tokenizer and the ticket between them into an existing empty folder."""
    path = _ticket(folder)
    ticket: Any = read_ticket_file(path).tickets[0]
    checked: Any = recheck(ticket, Inputs(path.parent, session=Session("numpy", 1)))
    base, reference, rows, result = checked.base, checked.reference, checked.rows, checked.result
    labels = make_labels(result, checked.vocabulary)
    subject = make_subject(ticket, base, reference, rows, result, labels)
    assert ticket.ids == _MOVED
    arms = [
        synthetic.arm("base", "base", table_sha256=base.digest()),
        synthetic.arm("reference", "reference", table_sha256=reference.digest()),
        synthetic.arm("t", "transfer", _MOVED, table_sha256=subject.table_sha256),
    ]
    shifts = {i: labels.norms.get(i, 0.0) for i in sorted(labels.pool)}
    for number, control in enumerate(synthetic.CONTROLS):
        seed = synthetic.CONTROLS[:number].count(control)
        ids = _null(control, seed, shifts)
        table = table_digest(base, transferred_rows(ids, reference))
        drawn = control in ("random", "frequency-matched")
        more = {"control": control, "of": "t", "seed": seed if drawn else None}
        arms.append(synthetic.arm(f"null-{number}", "transfer", ids, table_sha256=table, **more))
    fields = {
        "base": {"tensor_sha256": base.digest(), "model_sha256": synthetic.digest("model")},
        "reference": {"tensor_sha256": reference.digest()},
        "tokenizer_sha256": ticket.tokenizer.sha256,
        "template": {"name": ticket.template.name, "sha256": ticket.template.sha256},
    }
    return Stage(path, subject, checked.items, tuple(arms), fields)


def _null(control: str, seed: int, shifts: Mapping[int, float]) -> tuple[int, ...]:
    """Rows that the label stands for (:mod:`certify.evidence.null_labels`), from the shifts of the pool."""
    if control.startswith("one-row"):
        return (_BOS if control == "one-row:bos" else _NEWLINE,)
    if control == "top-norm":
        ids = sorted(shifts, key=lambda i: -shifts[i])[: len(_MOVED)]
    elif control == "random":
        outside = [i for i in shifts if i not in _MOVED]
        ids = sorted(outside, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())[: len(_MOVED)]
    else:  # rows like those of the ticket, or frequent ones: nothing says which
        first = 41 + 5 * ("matched" not in control) + seed
        ids = [first, 10, 11, 12, 13]
    return tuple(sorted(ids))


def _ticket(folder: Path) -> Path:
    """A ticket of the KS rule that every shipped policy can certify; returns ``tickets.json``."""
    base = np.random.default_rng(7).normal(0.0, 0.02, (_ROWS, _WIDTH)).astype(np.float16)
    tuned = base.copy()
    tuned[list(_MOVED)] += np.float16(0.06)
    tuned[list(_NUDGED)] += np.float16(0.001)
    # Its largest entries grew: the longest shift of all, which the KS test hardly sees.
    tuned[_FURTHEST, np.argsort(base[_FURTHEST])[-6:]] += np.float16(0.3)
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    config = {"model_type": "llama", "vocab_size": _ROWS, "hidden_size": _WIDTH, "tie_word_embeddings": False}
    _json(checkpoint / "config.json", config)
    head = np.zeros((_ROWS, 2), np.float16)
    save_file({"model.embed_tokens.weight": base, "lm_head.weight": head}, checkpoint / "model.safetensors")
    save_file({"model.embed_tokens.weight": tuned}, folder / "tuned.safetensors")
    vocab = {{_BOS: "<s>", _NEWLINE: "<0x0A>"}.get(i, f"▁w{i}"): i for i in range(_PIECES)}
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": _BOS, "content": "<s>", **flags}]
    _json(checkpoint / "tokenizer.json", {"version": "1.0", "added_tokens": added, "model": model})
    _json(checkpoint / "tokenizer_config.json", {"bos_token": "<s>"})
    out = folder / "ticket" / "tickets.json"
    lottery.find(
        checkpoint,
        folder / "tuned.safetensors",
        out=out,
        ticket_id="t",
        template="explicit",
        bundle=True,
        engine="numpy",
        workers=1,
    )
    chosen = {"t": _MARGIN, "alpha": "0.1", "text_sha256": synthetic.digest("choice text")}
    record, on = out.parent / "calibration.json", [synthetic.digest("chosen on this")[:16]]
    _json(record, {"schema": "certify.calibration", "schema_version": 1, **chosen, "sentences": on})
    bound = {"path": record.name, "sha256": sha256_file(record)}
    claim = {"kind": "guarantee", "comparator": "calibrated", "calibration": chosen | {"record": bound}}
    content = json.loads(out.read_text(encoding="utf-8"))
    content["tickets"][0]["declared"] = [claim]
    _json(out, content)
    return out


def _json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
