"""Steps that prepare texts: the sentences to evaluate, without those used before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from certify.base.jsonio import canonical_json, parse_json, write_bytes
from certify.ticket.corpus import Pair, Take, deduplicate, drawn, pair_digests
from certify.ticket.templates import encodable
from lottery.experiment.engine.context import RunContext, procedure
from lottery.experiment.engine.graph import Input, Result, Void, Work
from lottery.model.tokenizer import load_tokenizer
from lottery.text.pairsource import read_pairs
from lottery.text.usedtext import UsedText, unused, used_pairs

TEXT, USED = "text.jsonl", "used.json"


@procedure("used")
def list_used(context: RunContext, work: Work) -> Result:
    """List digests of the sentences that tuning read or settings were chosen on, both sides: ``used.json``.

    The whole tuning text counts, even if a plan tunes on a part of it.
    """
    p = work.parameters
    found: dict[str, list[str]] = {}
    for role, names in p["roles"].items():
        pairs = [pair for name in names for pair in read_pairs(context.text(work, name), *p["languages"])]
        found[role] = sorted(used_pairs(role, pairs).digests)
    work.write(USED, found)
    return Result((USED,), {role: len(digests) for role, digests in found.items()})


@procedure("text", 2)
def prepare_text(context: RunContext, work: Work) -> Result:
    """Select the sentences of a text to evaluate: no duplicates, none used before, no control tokens.

    Raises:
        Void: none is left.
    """
    p = work.parameters
    read = read_pairs(context.text(work, p["data"]), *p["languages"], documents=p.get("documents", False))
    distinct = deduplicate(read)
    fresh = unused(distinct, used_texts(work))
    plain = encodable(fresh, load_tokenizer(context.base_folder(work)))
    kept = drawn(plain, p["limit"], pair_digests, taken(p))
    if not kept:
        raise Void("no sentence of the text is left: all were used before, or hold a control token")
    # A pair without a document is written without the field, so that older measurements stay valid.
    written = ({key: value for key, value in asdict(pair).items() if value is not None} for pair in kept)
    lines = [canonical_json(pair) + b"\n" for pair in written]
    write_bytes(work.folder / TEXT, b"".join(lines))
    facts = {"sentences": len(kept), "repeated": len(read) - len(distinct)}
    facts |= {"used_before": len(distinct) - len(fresh), "control_token": len(fresh) - len(plain)}
    return Result((TEXT,), facts)


def taken(parameters: Mapping[str, Any]) -> Take:
    """Which of a text a step's limit takes; steps of before the choice took the first and do not say so."""
    take: Take = parameters.get("take", "first")
    return take


def evaluated_pairs(given: Input) -> list[Pair]:
    """Read the pairs that :func:`prepare_text` selected."""
    lines = given.path(TEXT).read_bytes().splitlines()
    return [Pair(**parse_json(line, what="a line of the text")) for line in lines]


def used_texts(work: Work) -> list[UsedText]:
    """Read the lists of used sentences, in the roles that the parameter ``avoid`` names."""
    lists = work.inputs["used"].json(USED)
    return [UsedText(role, frozenset(lists[role])) for role in work.parameters["avoid"] if lists.get(role)]
