"""Synthetic evidence with known truth, as plain JSON data.

What an evaluation *would* leave behind if the models behaved in a stated way: the rate at which decisions
disagree, the margins, the quality of every arm and the loss are parameters, so that whatever judges evidence
can be judged. Nothing of the package is imported; digests are computed with ``hashlib``.

=======================  ================================================================================
function                 what it makes
=======================  ================================================================================
:func:`vector`           a possible statistics vector whose sentence chrF is exactly ``100 m / FULL``
:func:`sentence`         one record of kind ``translation`` from the behaviour of each arm
:func:`arm`              an arm; :func:`plain_arms`, :func:`null_arms`: the arms that claims need
:func:`manifest`         the manifest of some records; :func:`write` puts everything into a folder
:func:`ticket`           a ticket that the evidence can be about
=======================  ================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Json = Any

FULL: Final = 20
"""Number of n-grams of every order on both sides; matches ``m`` of them give a sentence chrF of 5 m."""

UNIT: Final = 10**9
WIDTH: Final = 256
ROWS: Final = 1000
TICKET_IDS: Final = (5, 7, 11)

CONTROLS: Final = (
    *("random", "random", "random", "frequency-matched", "frequency-matched", "frequency-matched"),
    *("top-frequency", "top-norm", "one-row:bos", "one-row:newline"),
)


def digest(text: str) -> str:
    """SHA-256 of a text: a digest for something that need not exist."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Json) -> bytes:
    """Canonical JSON: one line of a records file without its end."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


BASE_TABLE: Final = digest("table of the base")
REFERENCE_TABLE: Final = digest("table of the reference")
TICKET_TABLE: Final = digest("table of the ticket")


def vector(matches: int) -> list[int]:
    """Statistics of an output that matches ``matches`` of :data:`FULL` n-grams of each order."""
    totals = [FULL, FULL - 1, FULL - 2, FULL - 3]
    return [FULL, FULL, *(min(matches, total) for total in totals), *totals, *([FULL, FULL, matches] * 8)]


@dataclass(frozen=True)
class Behaviour:
    """What one arm does with one sentence.

    ``matches`` are n-grams matched under the rules whole, first-line, cut, 0 to :data:`FULL`; ``differs``
    pairs (step, id) where its decision is not the reference's. A ``length`` of None is the reference's.
    """

    matches: tuple[int, int, int] = (FULL // 2,) * 3
    differs: tuple[tuple[int, int], ...] = ()
    ended: bool = True
    length: int | None = None


def sentence(
    number: int,
    arms: Mapping[str, Behaviour],
    *,
    unit: str | None = None,
    prompt: Sequence[int] = (1, 20),
    tokens: Sequence[int] = (30, 31, 2),
    margins: Sequence[int] | None = None,
    base_tokens: Sequence[int] = (40, 2),
) -> dict[str, Json]:
    """One record of kind ``translation``; id, digests and the unit follow from the number.

    ``base`` and ``reference`` are among the arms. The reference generates ``tokens`` with ``margins``
    ``p_a - p_b`` in units of 1e-9, .8 by default, and the base ``base_tokens``.
    """
    margins = [800_000_000] * len(tokens) if margins is None else list(margins)
    record: dict[str, Json] = {
        "id": f"text:{number}",
        "unit": str(number) if unit is None else unit,
        "source": digest(f"source {number}")[:16],
        "target": digest(f"target {number}")[:16],
        "prompt": sorted(set(prompt)),
        "reference": {
            "tokens": list(tokens),
            "top": [],
            "p_a": [(UNIT + margin) // 2 for margin in margins],
            "p_b": [(UNIT + margin) // 2 - margin for margin in margins],
        },
        "arms": {},
    }
    for name, behaviour in arms.items():
        distinct = sorted(set(behaviour.matches))
        answer: dict[str, Json] = {
            "text": f"output of {name}" if name != "base" else "output",
            "ended": behaviour.ended,
            "length": len(tokens) if behaviour.length is None or name == "reference" else behaviour.length,
            "stats": [vector(matches) for matches in distinct],
            "rules": [distinct.index(matches) for matches in behaviour.matches],
        }
        if name != "reference":
            answer["differs"] = [list(pair) for pair in behaviour.differs]
        if name == "base":
            answer |= {"tokens": list(base_tokens), "length": len(base_tokens)}
        record["arms"][name] = answer
    return record


def window(
    number: int, nats: Mapping[str, int], *, tokens: int = 100, unit: str | None = None
) -> dict[str, Json]:
    """One record of kind ``loss``: total nats by arm, in units of 1e-9.

    ``number`` tells windows apart; id, digests and, unless it is given, the unit follow from it.
    """
    return {
        "id": f"window:{number}",
        "unit": str(number) if unit is None else unit,
        "window": digest(f"window {number}")[:16],
        "lines": [digest(f"line {number}")[:16]],
        "tokens": tokens,
        "nats": dict(nats),
    }


def arm(name: str, kind: str, ids: Sequence[int] | None = None, **fields: Json) -> dict[str, Json]:
    """An arm; its table is a digest of its name unless ``fields`` say otherwise."""
    value: dict[str, Json] = {
        "name": name,
        "kind": kind,
        "ids": None if ids is None else list(ids),
        "table_sha256": digest(f"table of {name}"),
        "model_sha256": None,
        "parameters": len(ids or ()) * WIDTH,
        "control": None,
        "of": None,
        "seed": None,
        "gate": None,
        "note": "",
    }
    return value | fields


def plain_arms(object_: str = "transfer", ids: Sequence[int] = TICKET_IDS) -> list[dict[str, Json]]:
    """The arms base, reference and ``t`` (the ticket's)."""
    return [
        arm("base", "base", table_sha256=BASE_TABLE),
        arm("reference", "reference", table_sha256=REFERENCE_TABLE),
        arm("t", object_, ids, table_sha256=TICKET_TABLE),
    ]


def null_arms(object_: str = "transfer", *, of: str = "t", k: int = len(TICKET_IDS)) -> list[dict[str, Json]]:
    """One arm for every control that a ticket must beat, three draws of the random ones."""
    return [
        arm(
            f"null-{number}",
            object_,
            [100 + number] if control.startswith("one-row") else range(100 + number, 100 + number + k),
            control=control,
            of=of,
            seed=number % 3 if control in ("random", "frequency-matched") else None,
        )
        for number, control in enumerate(CONTROLS)
    ]


def text_of(records: Sequence[Json]) -> dict[str, Json]:
    """Size and digest of the text of records: pairs in their order, or unit by unit the lines of windows."""
    if records and "lines" in records[0]:
        units = {record["unit"]: dict[str, None]() for record in records}
        for record in records:
            units[record["unit"]] |= dict.fromkeys(record["lines"])
        lines = [line for unit in units.values() for line in sorted(unit)]
    else:
        lines = [f"{record['source']} {record['target']}" for record in records]
    return {
        "sha256": hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest(),
        "sentences": len(lines),
    }


def manifest(records: Sequence[Json], arms: Sequence[Json], **fields: Json) -> dict[str, Json]:
    """The manifest of ``records``; ``fields`` replace top-level entries."""
    data = b"".join(canonical(record) + b"\n" for record in records)
    loss = bool(records) and "nats" in records[0]
    value: dict[str, Json] = {
        "schema": "certify.evidence",
        "schema_version": 1,
        "kind": "loss" if loss else "translation",
        "created_by": "synthetic",
        "procedure": "loss/2" if loss else "translation/1",
        "base": {"tensor_sha256": BASE_TABLE, "model_sha256": digest("model")},
        "reference": {"tensor_sha256": REFERENCE_TABLE},
        "tokenizer_sha256": digest("tokenizer"),
        "template": None if loss else {"name": "explicit", "sha256": digest("template")},
        "languages": None if loss else ["en", "ca"],
        "text": {
            "name": "synthetic",
            **text_of(records),
            "unit": "sentence",
            "attribution": "",
        },
        "decoding": {"beams": 1, "max_new_tokens": 0 if loss else 96, "dtype": "F32"},
        "order_seed": 0,
        "design": "fixed",
        "signatures": {},
        "arms": list(arms),
        "used": [],
        "records": {
            "path": "synthetic.records.jsonl",
            "sha256": hashlib.sha256(data).hexdigest(),
            "count": len(records),
        },
    }
    return value | fields


def write(
    folder: Path,
    records: Sequence[Json],
    arms: Sequence[Json],
    *,
    used: Mapping[str, Iterable[str]] | None = None,
    used_table: str | None = None,
    name: str = "synthetic",
    **fields: Json,
) -> Path:
    """Write evidence into an existing folder; returns the path of the manifest.

    ``used`` has digests (16 hexadecimal digits) by role, ``used_table`` is the table of the run that used
    them, ``name`` is the stem of the files, and ``fields`` replace top-level entries of the manifest.
    """
    value = manifest(records, arms)
    value["records"]["path"] = f"{name}.records.jsonl"
    for role, digests in (used or {}).items():
        lines = sorted(set(digests))
        data = "".join(f"{line}\n" for line in lines).encode()
        path = f"{name}.{role}.txt"
        (folder / path).write_bytes(data)
        entry = {"role": role, "path": path, "sha256": hashlib.sha256(data).hexdigest(), "count": len(lines)}
        if used_table is not None:
            entry["table_sha256"] = used_table
        value["used"].append(entry)
    (folder / f"{name}.records.jsonl").write_bytes(b"".join(canonical(record) + b"\n" for record in records))
    target = folder / f"{name}.json"
    target.write_text(json.dumps(value | fields), encoding="utf-8")
    return target


def ticket(
    ids: Sequence[int] = TICKET_IDS, *, alpha: str = "0.05", object_: str = "transfer", **fields: Json
) -> dict[str, Json]:
    """A ticket as parsed JSON, about the tables and tokenizer of :func:`manifest`."""

    def table(sha256: str) -> Json:
        return {
            "path": None,
            "files": [],
            "tensor": "model.embed_tokens.weight",
            "dtype": "F16",
            "shape": [ROWS, WIDTH],
            "tensor_sha256": sha256,
            "tied": False,
        }

    value: dict[str, Json] = {
        "id": "t",
        "base": table(BASE_TABLE),
        "reference": table(REFERENCE_TABLE),
        "tokenizer": {"path": None, "files": [], "sha256": digest("tokenizer"), "size": ROWS},
        "template": {"name": "explicit", "sha256": digest("template"), "path": None},
        "selection": {
            "rule": "ks",
            "alpha": alpha,
            "correction": "none",
            "method": "exact",
            "n": WIDTH,
            "tests": ROWS,
            "h_alpha": 31,
            "tau": 0.12,
            "seed": None,
            "counts": None,
            "excluded": [],
        },
        "released": {"object": object_, "rows": None},
        "tokens": [
            {"id": token, "piece": None, "h": 40, "p": 0.001, "log10_p": -3.0, "shift_norm": 1.0}
            for token in sorted(ids)
        ],
        "declared": [],
        "evidence": [],
        "certificate": None,
    }
    return value | fields
