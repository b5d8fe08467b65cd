"""A small ticket folder with evidence that supports everything, and an adversary's tools for changing it.

Tables are those of :mod:`ticket_folders`; evidence is synthetic
(:mod:`proofs_checks.worlds.synthetic`), with the digests of tables that really are the base with
those rows put in. Records, manifests and certificates are changed as plain JSON and digests are made with
``hashlib``, so that a fault of the package cannot hide itself.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ticket_folders import PIECES, SPECIAL, base_table, make_ticket, tensor_sha256, tuned_table

from certify.gate.issue import issue
from proofs_checks.worlds import synthetic

Json = Any
Half = NDArray[np.float16]

UNITS = 66
"""As many units as unchanged loss needs to be shown to rise by less than 0.1."""

TICKET_ARM = "tiny.transfer"

FURTHEST = 48
"""The row whose shift is largest."""

# Controls by the names of their arms.
NULLS: dict[str, str] = {
    **{f"random-{seed}": "random" for seed in range(3)},
    **{f"matched-{seed}": "frequency-matched" for seed in range(3)},
    "top-frequency": "top-frequency",
    "top-norm": "top-norm",
    "bos": "one-row:bos",
    "newline": "one-row:newline",
}


@dataclass(repr=False)  # a failing example shows what was drawn, not the bundle
class Bundle:
    """A ticket folder, and what its evidence says before it is written.

    Attributes:
        path: the ticket file.
        base: table of the base.
        tuned: table of the reference.
        ids: the ticket's ids.
        records: records of the translated text.
        losses: records of the unrelated text.
        arms: the arms of both.
        used: sentence digests by role, for the translated text.
        loss_used: the same for the unrelated text.
        fields: further entries of its manifest.
        loss_fields: of the manifest of the unrelated text.
        other_fields: of the manifest under the other template.
        margin: the t that the ticket declared when it was evaluated; None if margins are not recorded.
    """

    path: Path
    base: Half
    tuned: Half
    ids: tuple[int, ...]
    records: list[Json] = field(default_factory=list)
    losses: list[Json] = field(default_factory=list)
    arms: list[Json] = field(default_factory=list)
    used: Mapping[str, Iterable[str]] | None = None
    loss_used: Mapping[str, Iterable[str]] | None = None
    fields: dict[str, Json] = field(default_factory=dict)
    loss_fields: dict[str, Json] = field(default_factory=dict)
    other_fields: dict[str, Json] = field(default_factory=dict)
    margin: str | None = None

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.json"

    @property
    def translated(self) -> Path:
        return self.folder / "evidence" / "translated.json"

    @property
    def unrelated(self) -> Path:
        return self.folder / "evidence" / "unrelated.json"

    @property
    def paraphrased(self) -> Path:
        return self.folder / "evidence" / "paraphrased.json"

    @property
    def names(self) -> list[str]:
        return [str(arm["name"]) for arm in self.arms]

    def arm(self, name: str) -> Json:
        (found,) = (arm for arm in self.arms if arm["name"] == name)
        return found

    def table_of(self, ids: Sequence[int]) -> str:
        """Digest of the base's table with these rows of the reference put in."""
        table = self.base.copy()
        table[list(ids)] = self.tuned[list(ids)]
        return tensor_sha256(table)

    def null_ids(self, name: str) -> tuple[int, ...]:
        """The rows of a null ticket, drawn by the definitions in words of :mod:`certify.selection.nulls`."""
        pool = [i for i in range(PIECES) if i not in SPECIAL]
        shift = {i: float(np.linalg.norm((self.tuned[i] - self.base[i]).astype(np.float64))) for i in pool}
        control, _, seed = name.partition("-")
        ranked = pool
        if control == "random":
            order = {i: hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in pool}
            ranked = sorted(pool, key=lambda i: (i in self.ids, order[i]))
        elif control == "matched":
            # One row or two that moved, and others, so that the tables of three draws differ.
            outside = [i for i in pool if i not in self.ids]
            first, second = [i for i in outside if shift[i]][:2]
            moved = [(first,), (second,), (first, second)][int(seed)]
            ranked = [*moved, *(i for i in outside if not shift[i])]
        elif name == "top-norm":
            ranked = sorted(pool, key=lambda i: -shift[i])
        elif name in ("bos", "newline"):
            return {"bos": (1,), "newline": (3,)}[name]
        return tuple(sorted(ranked[: len(self.ids)]))

    def ticket(self) -> Json:
        return json.loads(self.path.read_text(encoding="utf-8"))["tickets"][0]

    def copy(self, folder: Path) -> Bundle:
        """The same in another folder, free to be changed."""
        shutil.copytree(self.folder, folder)
        other = copy.deepcopy(self)
        other.path = folder / self.path.name
        return other

    # --- writing ------------------------------------------------------------------------------------------

    def write_evidence(self) -> list[Path]:
        """Write all manifests with their files; returns their paths.

        Under the other template, arms that are no controls do what they do in :func:`sentences`, on the same
        pairs.
        """
        self.translated.parent.mkdir(exist_ok=True)
        common = {
            "base": {"tensor_sha256": tensor_sha256(self.base), "model_sha256": synthetic.digest("model")},
            "reference": {"tensor_sha256": tensor_sha256(self.tuned)},
            "tokenizer_sha256": self.ticket()["tokenizer"]["sha256"],
        }
        records, margins = self.records, {}
        served = (one["name"] for one in self.arms if not one.get("gate") and not one.get("control"))
        if self.margin is not None and TICKET_ARM in served:
            margins = {"margins": {TICKET_ARM: self.margin}}
            records = [followed(record) for record in records]
        template = self.ticket()["template"]
        translated = common | {"template": {key: template[key] for key in ("name", "sha256")}}
        translated |= margins | self.fields
        text = synthetic.manifest(self.losses, self.arms)["text"] | {"name": "unrelated"}
        unrelated = common | {"text": text} | self.loss_fields
        folder = self.translated.parent
        synthetic.write(folder, records, self.arms, used=self.used, name="translated", **translated)
        synthetic.write(folder, self.losses, self.arms, used=self.loss_used, name="unrelated", **unrelated)
        plain = [one for one in self.arms if not one.get("control")]
        again = sentences((one["name"] for one in plain), len(self.records))
        for one, record in zip(again, self.records, strict=True):
            one |= {side: record[side] for side in ("source", "target") if side in record}
        other = common | {"template": {"name": "reworded", "sha256": synthetic.digest("another template")}}
        other |= self.other_fields
        synthetic.write(folder, again, plain, used=self.used, name="paraphrased", **other)
        return [self.translated, self.unrelated, self.paraphrased]

    def issue(self, evidence: Sequence[Path] | None = None, **options: Any) -> None:
        """Write the evidence unless it is given, issue the certificate, note both in the ticket file."""
        paths = self.write_evidence() if evidence is None else evidence
        # As if the text was looked at for the first time: what was issued before is out of sight.
        before = self.certificate.read_bytes() if self.certificate.exists() else b""
        tickets = self.path.read_bytes()
        self.certificate.unlink(missing_ok=True)
        self.edit_ticket(lambda ticket: ticket.update(certificate=None))
        try:
            issue(self.path, paths, out=self.certificate, attach=True, engine="numpy", workers=1, **options)
        finally:
            if before and not self.certificate.exists():
                self.certificate.write_bytes(before)
                self.path.write_bytes(tickets)

    def calibrate(self, t: str = "0.9", alpha: str = "0.1", **record: Json) -> None:
        """Let the ticket declare a margin, with the record of its choice; ``record`` replaces entries."""
        text = synthetic.digest("choice text")
        chosen = {"t": t, "alpha": alpha, "text_sha256": text}
        value = {"schema": "certify.calibration", "schema_version": 1, **chosen}
        value |= {"sentences": [synthetic.digest("chosen on this")[:16]]} | record
        path = self.folder / "calibrations" / "tiny.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
        bound = {"path": "calibrations/tiny.json", "sha256": _sha256(path)}
        claim = {"kind": "guarantee", "comparator": "calibrated", "calibration": chosen | {"record": bound}}

        def declare(ticket: Json) -> None:
            others = [one for one in ticket["declared"] if one.get("comparator") != "calibrated"]
            ticket["declared"] = [*others, claim]

        self.edit_ticket(declare)
        self.margin = t

    # --- the adversary ------------------------------------------------------------------------------------

    def forge(self) -> None:
        """Write the evidence and make every digest true again; claims stay what they were."""
        before = {path: _sha256(path) for path in (self.translated, self.unrelated, self.paraphrased)}
        self.write_evidence()
        self.redirect({old: _sha256(path) for path, old in before.items()})

    def redirect(self, digests: Mapping[str, str]) -> None:
        """Replace digests of manifests in certificate and ticket file."""
        text = self.certificate.read_text(encoding="utf-8")
        for old, new in digests.items():
            text = text.replace(old, new)
        self.certificate.write_text(text, encoding="utf-8")
        self.point()

    def edit_certificate(self, change: Callable[[Json], None], *, canonical: bool = True) -> None:
        """Let ``change`` alter the certificate; its digest in the ticket file follows."""
        value = json.loads(self.certificate.read_bytes())
        change(value)
        data = synthetic.canonical(value) if canonical else json.dumps(value, indent=2).encode()
        self.certificate.write_bytes(data + b"\n")
        self.point()

    def edit_ticket(self, change: Callable[[Json], None]) -> None:
        content = json.loads(self.path.read_text(encoding="utf-8"))
        change(content["tickets"][0])
        self.path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def point(self) -> None:
        """Let the ticket file name certificate and manifests by the digests that they have now."""

        def change(ticket: Json) -> None:
            ticket["certificate"]["sha256"] = _sha256(self.certificate)
            for located in ticket["evidence"]:
                if (self.folder / located["path"]).is_file():
                    located["sha256"] = _sha256(self.folder / located["path"])

        self.edit_ticket(change)

    def adopt(self, ticket_sha256: str) -> None:
        """Let the certificate be about the ticket of that digest."""
        self.edit_certificate(lambda value: value["ticket"].update(sha256=ticket_sha256))


def fill(bundle: Bundle, *, units: int = UNITS) -> Bundle:
    """Give a bundle arms and records with which every shipped policy certifies it."""
    bundle.arms = [
        synthetic.arm("base", "base", table_sha256=tensor_sha256(bundle.base)),
        synthetic.arm("reference", "reference", table_sha256=tensor_sha256(bundle.tuned)),
        synthetic.arm(TICKET_ARM, "transfer", bundle.ids, table_sha256=bundle.table_of(bundle.ids)),
        *(null_arm(bundle, name) for name in NULLS),
    ]
    bundle.records = sentences(bundle.names, units)
    bundle.losses = [synthetic.window(i, dict.fromkeys(bundle.names, 250 * 10**9)) for i in range(units)]
    bundle.used = {"tuning": [synthetic.digest("tuned on this")[:16]], "scan": []}
    bundle.loss_used = dict(bundle.used)
    return bundle


def own_steps(tokens: Sequence[int], **changes: Json) -> Json:
    """Steps along an own output, sure of each token (own margin .95) and with E* agreeing."""
    p_a, p_b = [975_000_000] * len(tokens), [25_000_000] * len(tokens)
    return {"tokens": list(tokens), "top": [], "p_a": p_a, "p_b": p_b, "differs": []} | changes


def followed(record: Json) -> Json:
    """The record with the ticket's arm along its own output, if it does not say what that is."""
    ours = record["arms"].get(TICKET_ARM)
    if not isinstance(ours, dict) or "own" in ours or not isinstance(ours.get("length"), int):
        return record
    ours = ours | {"own": own_steps([50] * max(0, ours["length"]))}
    return record | {"arms": record["arms"] | {TICKET_ARM: ours}}


def null_arm(bundle: Bundle, name: str) -> Json:
    """The arm of a null ticket: one of :data:`NULLS`, or a further draw."""
    ids, (kind, _, seed) = bundle.null_ids(name), name.partition("-")
    control = NULLS.get(name, kind)
    number = int(seed) if seed.isdigit() else None
    fields = {"table_sha256": bundle.table_of(ids), "control": control, "of": "tiny", "seed": number}
    return synthetic.arm(name, "transfer", ids, **fields)


def sentences(names: Iterable[str], units: int, **matches: int) -> list[Json]:
    """Sentences on which the ticket's arm is best, the reference good, and a null ticket hardly better than
    the base; ``matches`` (n-grams out of 20) replace these."""
    names = list(names)
    score = {"base": 4, "reference": 14, TICKET_ARM: 18} | matches
    arms = {name: synthetic.Behaviour((score.get(name, 6),) * 3) for name in names}
    return [synthetic.sentence(number, arms) for number in range(units)]


def make_bundle(
    root: Path,
    *,
    base: Half | None = None,
    tuned: Half | None = None,
    units: int = UNITS,
    calibrated: bool = True,
    issued: bool = True,
    **options: Any,
) -> Bundle:
    """A ticket ``tiny`` with evidence; ``options`` go to :func:`lottery.find`."""
    base = base_table() if base is None else base
    tuned = _tuned() if tuned is None else tuned
    path = make_ticket(root, base=base, tuned=tuned, template="explicit", **options)
    ids = tuple(token["id"] for token in json.loads(path.read_text(encoding="utf-8"))["tickets"][0]["tokens"])
    bundle = fill(Bundle(path, base, tuned, ids), units=units)
    if calibrated:
        bundle.calibrate()
    if issued:
        bundle.issue()
    return bundle


def _tuned() -> Half:
    """A table after tuning in which a row that no ticket holds moved furthest, so that the null ticket by
    norm is one other than the ticket; its eight largest entries grew, which the KS test does not see."""
    table = tuned_table()
    largest = np.argsort(-np.abs(table[FURTHEST]))[:8]
    table[FURTHEST, largest] += np.sign(table[FURTHEST, largest]) * np.float16(0.125)
    return table


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
