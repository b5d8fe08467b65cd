"""The summary of an experiment, generated from evidence: tables by text and arm, from summed statistics.

The figures are descriptive and have no intervals. Only claims with limits support conclusions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from certify.base.records import RULES
from certify.evidence.read import (
    BASE_ARM,
    Arm,
    LossRecord,
    Manifest,
    TranslationRecord,
    iter_records,
    read_manifest,
)
from lottery.evaluation.armscores import ArmTally
from lottery.experiment.steps.text_estimates import UnitMeans, null_rows, termination_rows
from lottery.text.score import Statistics, bleu_score, chrf_score

EvidenceFiles = Mapping[str, Mapping[str, Path]]
"""Pair -> name of the evidence -> manifest file."""


_SEGMENTS = {"instruction": "instruction with labels", "frame": "of that, labels"}


def summarise(
    plan: Mapping[str, Any],
    evidence: EvidenceFiles,
    *,
    opportunity: Mapping[str, Any],
    overlap: Mapping[str, Any] | None,
    void: Mapping[str, str],
    root: Path,
    notices: Sequence[str] = (),
) -> dict[str, Any]:
    """Summarise an experiment as JSON: counts as integers, scores as decimal strings.

    Raises:
        InvalidInputError: evidence is malformed.
    """
    texts: dict[str, Any] = {}
    for pair, files in evidence.items():
        for name, path in files.items():
            manifest = read_manifest(path)
            make = _translation if manifest.kind == "translation" else _loss
            found = make(manifest, path.parent)
            about: dict[str, Any] = {"evidence": path.relative_to(root).as_posix(), "kind": manifest.kind}
            about |= {"text": manifest.text.name, "sentences": manifest.text.sentences}
            about |= {"unit": manifest.text.unit, "records": manifest.records.count}
            if manifest.template is not None:
                about["template"] = manifest.template.name
            texts[f"{pair}/{name}"] = about | {"signatures": dict(manifest.signatures), "arms": found}
    cuts = {
        "tuning.limit": plan["tuning"]["limit"],
        "controls.limit": {one["ticket"]: one["limit"] for one in plan["controls"] if one["limit"]},
        "text.limit": {text["name"]: text["limit"] for text in plan["text"]},
    }
    return {
        "schema": "lottery.experiment.summary",
        "schema_version": 1,
        "plan": plan["name"],
        "notices": list(notices),
        "cuts": cuts,
        "texts": texts,
        "opportunity": dict(opportunity),
        "overlap": overlap,
        "void": dict(void),
    }


def _about(arm: Arm) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": arm.kind, "rows": len(arm.ids or ()), "parameters": arm.parameters}
    facts |= {"note": arm.note} if arm.note else {}
    return facts | ({} if arm.control is None else {"control": arm.control, "of": arm.of})


def _translation(manifest: Manifest, folder: Path) -> dict[str, Any]:
    tallies = {arm.name: ArmTally() for arm in manifest.arms}
    means = UnitMeans()
    sentences = steps = 0
    for record in iter_records(manifest, folder):
        assert isinstance(record, TranslationRecord)
        sentences += 1
        steps += len(record.reference.tokens)
        for name, tally in tallies.items():
            tally.add(record.arms[name])
            means.add(record.unit, name, record.arms[name])
    return {
        arm.name: _about(arm)
        | {
            "sentences": sentences,
            "ended": tallies[arm.name].ended,
            "generated_tokens": tallies[arm.name].tokens,
            "steps": steps,
            "steps_as_reference": steps - tallies[arm.name].differing,
            "sentences_as_reference": tallies[arm.name].equal,
            "rules": {rule: _scored(total) for rule, total in tallies[arm.name].totals.items()},
        }
        | ({} if arm.name == BASE_ARM else {"termination": means.termination(arm.name)})
        for arm in manifest.arms
    }


def _scored(statistics: Statistics) -> dict[str, Any]:
    return {
        "statistics": list(statistics),
        "bleu": f"{bleu_score(statistics):.2f}",
        "chrf": f"{chrf_score(statistics):.2f}",
        "length_ratio": f"{statistics[0] / max(1, statistics[1]):.3f}",
    }


def _loss(manifest: Manifest, folder: Path) -> dict[str, Any]:
    names = [arm.name for arm in manifest.arms]
    nats = dict.fromkeys(names, 0)
    tokens = 0
    for record in iter_records(manifest, folder):
        assert isinstance(record, LossRecord)
        tokens += record.tokens
        for name in names:
            nats[name] += record.nats[name]
    return {
        arm.name: _about(arm)
        | {
            "tokens": tokens,
            "nats_1e-9": nats[arm.name],
            "nats_per_token": f"{nats[arm.name] / tokens / 1e9:.4f}",
            "above_base": f"{(nats[arm.name] - nats['base']) / tokens / 1e9:+.4f}",
        }
        for arm in manifest.arms
    }


# --- as text ---------------------------------------------------------------------------------------------


def markdown(summary: Mapping[str, Any]) -> str:
    """Format the summary as Markdown tables."""
    lines = [
        f"# Experiment {summary['plan']}: results",
        "",
        "Generated from the evidence beside it. Corpus scores from summed statistics, without intervals.",
        "",
    ]
    cuts = summary["cuts"]
    lines.append(f"Largest number of tuning pairs: {cuts['tuning.limit'] or 'all'}")
    for ticket, limit in cuts["controls.limit"].items():
        lines[-1] += f"; for tuned controls of {ticket}: {limit}"
    lines.append("")
    for notice in summary["notices"]:
        lines += [f"Note: {notice}.", ""]
    for name, text in summary["texts"].items():
        lines += _text_lines(name, text)
    if summary["opportunity"]:
        lines += _opportunity_lines(summary["opportunity"])
    if summary["overlap"]:
        lines += _overlap_lines(summary["overlap"])
    if summary["void"]:
        lines += ["## Steps with nothing to do", ""]
        lines += [f"- `{step}`: {reason}" for step, reason in summary["void"].items()]
        lines.append("")
    return "\n".join(lines)


def _text_lines(name: str, text: Mapping[str, Any]) -> list[str]:
    lines = [f"## {name}", ""]
    where = f"{text['sentences']} sentences of {text['text']}, unit {text['unit']}"
    if text["kind"] == "loss":
        lines += [f"{where}: {text['signatures']['loss']}", ""]
        rows = [
            [arm, figures["kind"], _count(figures["rows"]), figures["nats_per_token"], figures["above_base"]]
            for arm, figures in text["arms"].items()
        ]
        return lines + _table(["arm", "kind", "rows", "nats per token", "above base"], rows)
    lines += [f"{where}, template {text['template']}, greedy outputs unless the manifest says otherwise.", ""]
    rows = []
    for arm, figures in text["arms"].items():
        rules = figures["rules"]
        rows.append(
            [
                arm,
                _count(figures["rows"]),
                _count(figures["parameters"]),
                _percent(figures["ended"], figures["sentences"]),
                *(rules[rule]["length_ratio"] for rule in RULES[:1]),
                *(rules[rule]["bleu"] for rule in RULES),
                *(rules[rule]["chrf"] for rule in RULES),
                _percent(figures["steps_as_reference"], figures["steps"]),
            ]
        )
    head = ["arm", "rows", "parameters", "ended", "length ratio"]
    head += [f"BLEU {rule}" for rule in RULES] + [f"chrF++ {rule}" for rule in RULES]
    lines += _table([*head, "steps as reference"], rows)
    signatures = ", ".join(f"{metric} `{line}`" for metric, line in text["signatures"].items())
    lines += [signatures, "", f"### Gain from learning to stop: {name}", ""]
    lines += ["Estimates: gain over the base in mean sentence chrF under each rule, and the part of the gain"]
    lines += ["in whole outputs that vanishes when outputs are cut: none is given of a gain below .1.", ""]
    lines += _table(*termination_rows(text["arms"]))
    head, rows = null_rows(text["arms"])
    if rows:
        lines += [f"### Tickets against their null tickets: {name}", ""]
        lines += ["Estimates: corpus chrF++ of the first line. A claim needs limits and three draws.", ""]
        lines += _table(head, rows)
    return lines


def _opportunity_lines(opportunity: Mapping[str, Any]) -> list[str]:
    lines = ["## Where rows can act", "", "Share of examples that feed at least one row."]
    lines += ["Instruction is the prompt, with labels, without the sentence, as for gates.", ""]
    rows = []
    for text, selections in opportunity.items():
        for name, found in selections.items():
            touched = found["touched"]
            shares = [_percent(count, found["examples"]) for count in touched.values()]
            rows.append([text, name, str(found["rows"]), *shares, str(len(found["never_fed"]))])
    if not rows:
        return []
    segments = list(next(found for s in opportunity.values() for found in s.values())["touched"])
    named = [_SEGMENTS.get(segment, segment) for segment in segments]
    return lines + _table(["text", "selection", "rows", *named, "never fed"], rows)


def _overlap_lines(overlap: Mapping[str, Any]) -> list[str]:
    lines = ["## Overlap of tickets", ""]
    lines += ["Jaccard index; chance means random sets of the same sizes and similar frequency.", ""]
    rows = []
    for ticket, found in overlap.items():
        for one in found["comparisons"]:
            (first, a), (second, b) = one["first"], one["second"]
            sizes = " / ".join(map(str, one["sizes"]))
            rows.append([ticket, f"{first} seed {a}", f"{second} seed {b}", sizes, str(one["shared"])])
            rows[-1] += [one["expected"], one["jaccard"], one["p"]]
    lines += _table(["ticket", "first", "second", "rows", "shared", "by chance", "Jaccard", "p"], rows)
    rows = [
        [ticket, *(found[key] or "-" for key in ("seed_ceiling", "across_languages", "ratio"))]
        for ticket, found in overlap.items()
    ]
    return lines + _table(["ticket", "between seeds", "between languages", "ratio"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _count(number: int) -> str:
    return f"{number:,}"
