"""What the objects of a file may hold: no other key, no value of another kind."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from .tables import increasing, naturals

KINDS: Final[dict[str, Any]] = {
    "text": re.compile("(?s:.{0,4096})"),
    "name": re.compile("(?s:.{1,256})"),
    "sha": re.compile("[0-9a-f]{64}"),
    "prose": re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{0,4096}"),
    "ratio": re.compile("-?[0-9]{1,400}/[0-9]{1,400}"),
    "threshold": re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,12})?"),
    "slug": re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    "arm-name": re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,95}"),
    "word": re.compile("(?s:.{1,65536})"),
    "unit": re.compile("sentence|document|block:[1-9][0-9]{0,6}"),
    "str": str,
    "bool": bool,
    "list": list,
    "dict": dict,
    "ticket-version": range(1, 3),
    "u53": range(1 << 53),
    "u64": range(1 << 64),
    "beams": range(1, 1025),
    "new": range((1 << 17) + 1),
    "all": range(1, (1 << 22) + 1),
    "long": range(1, 1 << 53),
}
SHIPPED: Final = ("selection", "paper", "release", "drop-in", "science", "strict")

OBJECTS: Final = {
    "policy": "schema:=certify.policy schema_version:1 name:str question:text delta?:str items?:list"
    f" extends?:~={'|'.join(SHIPPED)}"
    " design?:=A-UNITS|A-BLOCKS|A-DOCUMENTS|A-EVIDENCE|A-ENGINE*"
    " accept?:=A-LAW|A-SCALAR|A-POINT|A-ORDER(V)|A-ONE|A-NULL|A-UNTIED*"
    " non_claims?:text* claim?:dict* texts?:dict",
    "certificate": "schema:str schema_version:3 created_by:text signature:text parameters:dict ticket:dict"
    " subjects:subject* earlier:sha* claims:claim* evidence:located* assumptions:assumed* non_claims:prose*",
    "subject": "name:str sha256:sha",
    "located": "path:str sha256:sha text:text role:str delta:str",
    "tickets": "schema:=certify.tickets schema_version:ticket-version created_by:text tickets:dict*",
    "choice": "schema:=certify.choice schema_version:1 candidates:candidate* chosen:str sentences:list",
    "candidate": "arm:str ids:list",
    "chosen-margin": "schema:=certify.calibration schema_version:1 t:str alpha:str text_sha256:sha"
    " sentences:list",
    "calibration": "t:str alpha:str text_sha256:sha record:file",
    "file": "path:str sha256:sha",
    "assumed": "id:slug statement:prose status:prose",
    "claim": "evidence:sha kind:str comparator:~slug extraction:~str finding:str estimate:~number"
    " lower:~number upper:~number delta:str n:u53 unit:text procedure:text assumptions:slug*"
    " signature:prose witness:~list critical:~dict",
    "number": "exact:ratio decimal:str",
    "manifest": "schema:str schema_version:1 kind:str created_by:text procedure:str base:model path?:~dict"
    " reference:~table tokenizer_sha256:sha tokenizer_probe_sha256?:~sha template:~template text:of"
    " languages:~slug* decoding:decoding order_seed:u64 design:=fixed|sequential signatures:dict arms:arm*"
    " margins?:~dict used:used* records:bound produced_by?:~producer",
    "producer": "engine:slug version:text settings?:text weights?:dict",
    "model": "tensor_sha256:sha model_sha256:sha",
    "table": "tensor_sha256:sha",
    "template": "name:slug sha256:sha",
    "of": "name:text sha256:sha sentences:all unit:unit attribution:text",
    "decoding": "beams:beams max_new_tokens:new dtype:=F32|F16|BF16",
    "bound": "path:str sha256:sha count:u53",
    "used": "path:str sha256:sha count:u53 role:=tuning|scan|choice|order|pretraining table_sha256?:~sha",
    "arm": "name:arm-name kind:=base|reference|transfer|tuned|direction|full|lora|prefix"
    " ids?:~list seed?:~u64 table_sha256?:~sha model_sha256?:~sha parameters:u53 of?:~slug note?:text"
    " gate?:~=instruction|source|target* control?:~=random|frequency-matched|top-frequency|top-norm|gate|seed"
    "|one-row:bos|one-row:newline|direction",
    "translation": "id:name unit:name source:str target:str prompt:list reference?:steps arms:dict"
    " witness?:words",
    "steps": "tokens:list top:list p_a:list p_b:list",
    "words": "source:word target:word",
    "answer": "text:str ended?:bool length?:long stats:list rules:list differs?:list tokens?:list path?:str*"
    " own?:own",
    "own": "tokens:list top:list p_a:list p_b:list differs:list",
    "loss": "id:name unit:name window:str lines:list tokens:u53 nats:dict",
}
"""Kinds by key: ``key?`` may be left out; ``~`` is null or that, ``*`` a list, ``=a|b`` one of these."""
OPEN: Final = ("choice", "candidate", "chosen-margin")
"""Objects that may hold more, for people."""


def digests(values: Any) -> bool:
    """A list of digests of sentences, strictly increasing, at least one."""
    some = isinstance(values, list) and values and increasing(values)
    return bool(some and all(re.fullmatch("[0-9a-f]{16}", one) for one in values))


@lru_cache
def keys(kind: str) -> tuple[dict[str, str], set[str]]:
    """Kinds by key of an object, and the keys that it must have."""
    parts = [part.partition(":") for part in OBJECTS[kind].split()]
    return {key.rstrip("?"): one for key, _, one in parts}, {key for key, _, _ in parts if key[-1] != "?"}


def fits(value: Any, kind: str) -> bool:
    """Whether parsed JSON is of a kind."""
    if kind[0] == "~" or kind[-1] == "*":
        if kind[0] == "~":
            return value is None or fits(value, kind[1:])
        return isinstance(value, list) and all(fits(one, kind[:-1]) for one in value)
    if kind in OBJECTS:
        known, needed = keys(kind)
        full = isinstance(value, dict) and needed <= value.keys()
        closed = full and (kind in OPEN or value.keys() <= known.keys())
        return closed and all(fits(value[key], known[key]) for key in known.keys() & value.keys())
    if kind.isdigit():
        return type(value) is int and str(value) == kind
    if kind[0] == "=":
        return type(value) is str and value in kind[1:].split("|")
    test = KINDS[kind]
    if isinstance(test, re.Pattern):
        return isinstance(value, str) and bool(test.fullmatch(value))
    return type(value) is int and value in test if isinstance(test, range) else type(value) is test


def consistent(arm: dict[str, Any]) -> bool:
    """Whether an arm of evidence has ids, a gate and digests exactly where its kind does."""
    ids, table, weights, gate = map(arm.get, ("ids", "table_sha256", "model_sha256", "gate"))
    rows, other = arm["kind"] in ("transfer", "tuned", "direction"), arm["kind"] in ("full", "lora", "prefix")
    kept = (ids is not None, weights is not None) == (rows, other) and (other or table is not None)
    whole = not rows or (bool(ids) and increasing(naturals(ids, 1 << 24)))
    return kept and whole and (gate is None or (rows and 0 < len(gate) == len({*gate})))
