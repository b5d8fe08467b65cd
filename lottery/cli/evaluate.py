"""``certify evaluate``: translate a text, score it under every extraction rule, and write evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from certify.cli import options
from certify.cli.use import interop
from lottery.cli.options import ParallelText, PromptTemplate, SentenceLimit, SourceLanguage, TargetLanguage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certify.evidence.read import Manifest
    from certify.gate.watch import Watch
    from lottery.evaluation.armscores import ArmScores
    from lottery.evaluation.evaluate import Evaluation
    from lottery.text.score import Scores
    from lottery.text.usedtext import UsedRole, UsedText

UNRELATED = "unrelated.json"
"""Name of the evidence on text outside the task."""

_ROLES: tuple[UsedRole, ...] = ("tuning", "scan", "choice", "order", "pretraining")


def evaluate(
    base: Annotated[str, typer.Option(help="Checkpoint folder, or a model on the hub (ORG/NAME).")],
    data: ParallelText,
    source: SourceLanguage,
    target: TargetLanguage,
    template: PromptTemplate,
    table: Annotated[
        Path | None, typer.Option(help="Use this embedding table instead of the base's.")
    ] = None,
    ticket: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[#ID]", help="Use this ticket's rows. May be repeated with --evidence."),
    ] = None,
    limit: SentenceLimit = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest output, in tokens.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences per batch.")] = 64,
    beams: Annotated[int, typer.Option(min=1, help="Beam width; 1 is greedy.")] = 1,
    dtype: Annotated[str, typer.Option(help="Compute in fp32, bf16 or fp16.")] = "fp32",
    bleu_tokenizer: Annotated[
        Literal["13a", "flores101", "flores200"],
        typer.Option(help="How BLEU splits words; flores101 and flores200 give spBLEU."),
    ] = "13a",
    out: Annotated[
        Path | None, typer.Option(help="Write every output to this file, one JSON object per line.")
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(
            metavar="NAME.json", help="Evaluate base, reference and tickets side by side and write evidence."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="With --evidence: table after embed tuning; default: the ticket's.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="With --evidence: the unit of sampling: sentence, block:N or document.")
    ] = None,
    used: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=DATA",
            help=f"With --evidence: text already used for {', '.join(_ROLES)}, or used.txt of a tuning run;"
            " its sentences are left out. Repeatable.",
        ),
    ] = None,
    attribution: Annotated[
        str,
        typer.Option(
            help="With --evidence: owner of the text, to credit; up to 50 sentences are then included."
        ),
    ] = "",
    path: Annotated[
        str | None,
        typer.Option(
            metavar="N,G",
            help="With --evidence: record labels at N + G + 1 strengths between each ticket and E*, for"
            " guarantee:path; default: what the tickets declare.",
        ),
    ] = None,
    margins: Annotated[
        bool,
        typer.Option(
            "--margins",
            help="With --evidence: record each ticket's two largest probabilities along its own output, and"
            " what E* decides there, for certify calibrate; default: if the tickets declare its claim.",
        ),
    ] = False,
    nulls: Annotated[
        Path | None,
        typer.Option(
            metavar="COUNTS.npy",
            help="With --evidence: evaluate null tickets of every transfer ticket, too. They are drawn by"
            " how often tokens were fed in tuning: counts.npy of the run.",
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="With --nulls: draws of each random kind; claims need 3.")
    ] = 3,
    unrelated: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --evidence: measure the loss on this text outside the task, too, as evidence"
            " unrelated.json beside the other.",
        ),
    ] = None,
    passages: Annotated[
        int, typer.Option(min=1, help="With --unrelated: largest number of passages of five lines, drawn.")
    ] = 400,
    outputs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="With --evidence: take translations that another engine made; --max-new-tokens, --beams and"
            " --dtype are then what its first line says. Repeatable, one file per arm or one for all.",
        ),
    ] = None,
    paraphrase: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="With --evidence: evaluate base, reference and tickets under this other template, too, as"
            " evidence NAME.TEMPLATE.json beside the other. Repeatable.",
        ),
    ] = None,
    order_seed: Annotated[int, typer.Option(min=0, help="With --evidence: seed for the order of units.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --evidence: continue a run that was stopped.")
    ] = False,
    until_decided: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="With --evidence: draw units until every requirement of the policy is decided.",
        ),
    ] = None,
    max_units: Annotated[
        int | None, typer.Option(min=1, help="With --until-decided: largest number of units.")
    ] = None,
    delta: Annotated[
        str | None,
        typer.Option(help="With --until-decided: the part of the policy's delta to spend on this text."),
    ] = None,
    report_format: options.Format = "terminal",
) -> None:
    """Translate a text with a model, optionally with other embedding rows, and score the outputs.

    With --evidence, evaluate base, embed tuning and tickets side by side, step by
    step, for certify issue and certify check. With --until-decided as well, draw
    units in a seeded random order and stop once the policy is decided; the
    evidence then has a sequential design.
    """
    from dataclasses import asdict

    from certify.base.errors import UsageError
    from certify.base.files import check_output
    from certify.base.jsonio import canonical_json, write_bytes
    from certify.cli.shell import needs_extra, progress_bar

    with needs_extra("evaluating"):
        from lottery.evaluation import evaluate as evaluation
        from lottery.evaluation.arms import Nulls, open_evaluation
        from lottery.evaluation.unrelated import evaluate_unrelated
    from certify.tables.dtypes import parse_dtype
    from certify.ticket.declared import strength_law

    languages = (source, target)
    shared: dict[str, Any] = {
        "template": template,
        "limit": limit,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "beams": beams,
        "dtype": parse_dtype(dtype),
        "bleu_tokenizer": bleu_tokenizer,
    }
    tickets = ticket or []
    alone: dict[str, Any] = {"--reference": reference, "--unit": unit, "--used": used, "--path": path}
    alone |= {"--resume": resume, "--margins": margins, "--nulls": nulls, "--unrelated": unrelated}
    alone |= {"--outputs": outputs, "--paraphrase": paraphrase}
    if evidence is None and any(alone.values()):
        raise UsageError(f"{', '.join(n for n in alone if alone[n])}: only with --evidence", code="USAGE")
    if evidence is not None and unrelated is not None and evidence.name == UNRELATED:
        raise UsageError(f"{UNRELATED} is for the unrelated text: choose another name", code="USAGE")
    if evidence is None and len(tickets) > 1:
        raise UsageError("several tickets require --evidence", code="USAGE")
    if evidence is not None and (table is not None or out is not None):
        raise UsageError("--table and --out do not combine with --evidence", code="USAGE")
    if until_decided is None and (max_units is not None or delta is not None):
        raise UsageError("--max-units and --delta require --until-decided", code="USAGE")
    if until_decided is not None and evidence is None:
        raise UsageError("--until-decided requires --evidence", code="USAGE")
    if outputs and (path is not None or margins or until_decided is not None or paraphrase):
        raise UsageError(
            "--path, --margins, --paraphrase and --until-decided do not combine with --outputs", code="USAGE"
        )
    if paraphrase and until_decided is not None:
        raise UsageError("--until-decided does not combine with --paraphrase", code="USAGE")
    if evidence is None:
        with progress_bar("translating", "sentences") as progress:
            result = evaluation.evaluate(
                base,
                data,
                languages,
                table=table,
                ticket=next(iter(tickets), None),
                progress=progress,
                **shared,
            )
        if out is not None:
            written = (canonical_json(asdict(output)) + b"\n" for output in result.outputs)
            check_output(out)
            write_bytes(out, b"".join(written))
        interop.show(_lines(result), result.summary(), report_format)
        return
    if unit is None:
        raise UsageError(
            "--evidence requires --unit: document if the text names its documents, block:N for running text,"
            " sentence for unrelated sentences",
            code="UNIT",
        )
    texts = [_used(spec, languages) for spec in used or []]
    others = {evidence.with_suffix(f".{name}.json"): one for name, one in _paraphrases(template, paraphrase)}
    watch = None if until_decided is None else _watch(until_decided, delta, tickets, base, reference)
    opened = open_evaluation(
        base,
        reference=reference,
        tickets=tickets,
        used=texts,
        nulls=None if nulls is None else Nulls(nulls, draws),
        dtype=shared.pop("dtype"),
    )
    common: dict[str, Any] = {
        "order_seed": order_seed,
        "resume": resume,
        "notice": lambda text: typer.echo(text, err=True),
    }
    with progress_bar("evaluating", "sentences") as progress:
        manifest = evaluation.evaluate_tickets(
            opened,
            data,
            languages,
            out=evidence,
            unit=unit,
            attribution=attribution,
            path=None if path is None else strength_law(path),
            margins=margins,
            outputs=outputs or (),
            decided=watch,
            max_units=max_units,
            progress=progress,
            **common,
            **shared,
        )
    for place, other in others.items():
        with progress_bar(f"evaluating under {other}", "sentences") as progress:
            evaluation.evaluate_tickets(
                opened,
                data,
                languages,
                out=place,
                unit=unit,
                paraphrase=True,
                progress=progress,
                **common,
                **shared | {"template": other},
            )
    if unrelated is not None:
        settings = common | {"batch_size": batch_size, "limit": passages}
        with progress_bar("measuring the loss", "windows") as progress:
            evaluate_unrelated(
                opened, unrelated, out=evidence.with_name(UNRELATED), progress=progress, **settings
            )
    from lottery.evaluation.armscores import arm_scores

    scores = arm_scores(manifest, evidence.parent)
    lines = _arm_lines(evidence, manifest, scores)
    lines += [f"evidence {place}: under the template {other}" for place, other in others.items()]
    if unrelated is not None:
        lines.append(f"evidence {evidence.with_name(UNRELATED)}: loss on {unrelated.name}")
    summary: dict[str, Any] = {"evidence": str(evidence), "arms": [asdict(arm) for arm in scores]}
    if watch is not None:
        lines += _watched_lines(watch)
        summary["until_decided"] = _watched_summary(watch)
    following = interop.issuing(opened.sources[0], tickets[0], evidence, base, reference) if tickets else ()
    interop.show(lines, summary, report_format, *following)


def _paraphrases(template: str, named: Sequence[str] | None) -> list[tuple[str, str]]:
    """Name and place of each other template; none twice, and none the template of the evaluation."""
    from certify.base.errors import UsageError
    from certify.ticket.templates import load_template

    loaded = {one: load_template(one) for one in (template, *(named or ()))}
    found = [(loaded[one].name, one) for one in named or ()]
    digests = {loaded[one].digest() for one in (template, *(one for _, one in found))}
    if len(digests) <= len(found) or len({name for name, _ in found}) < len(found):
        raise UsageError("--paraphrase takes other templates than --template, each once", code="USAGE")
    return found


def _used(spec: str, languages: tuple[str, str]) -> UsedText:
    from certify.base.errors import UsageError
    from lottery.text.pairsource import read_sentences
    from lottery.text.usedtext import UsedText, read_used_list, used_sentences
    from lottery.tuning.journal import served_tables

    role, _, data = spec.partition("=")
    for known in _ROLES:
        if role == known and data:
            if data.endswith(".txt") and Path(data).is_file():
                tables = served_tables(Path(data)) if known == "tuning" else frozenset()
                return UsedText(known, read_used_list(Path(data)), tables)
            return used_sentences(known, read_sentences(data, *languages))
    raise UsageError(f"--used takes ROLE=DATA with a role of {', '.join(_ROLES)}, not {spec}", code="USAGE")


def _watch(
    policy: str, delta: str | None, tickets: Sequence[str], base: str, reference: Path | None
) -> Watch:
    from certify.cli.numbers import level
    from certify.gate.watch import Watch, open_subjects
    from certify.policy.policy import get_policy
    from lottery.model.backbone import find_base

    chosen = get_policy(policy)
    share = None if delta is None else level("--delta", delta)
    return Watch(chosen, open_subjects(tickets, find_base(base), reference), share)


def _watched_lines(watch: Watch) -> list[str]:
    last = watch.looks[-1]
    state = "everything is decided" if last.decided else "the units ended before everything was decided"
    lines = [f"{last.units} units drawn in {len(watch.looks)} looks: {state}"]
    for standing in last.standings:
        answer = "open" if standing.open else str(standing.answer.outcome)
        lines.append(
            f"  {standing.ticket}: {standing.requirement.claim} {standing.requirement}: {answer}"
            f" ({standing.answer.text}) [{standing.answer.code}]"
        )
    return [
        *lines,
        *(f"  {name}: not tested on this text, evaluate it separately" for name in watch.left_out),
    ]


def _watched_summary(watch: Watch) -> dict[str, Any]:
    return {
        "decided": watch.looks[-1].decided,
        "units": watch.looks[-1].units,
        "looks": [look.units for look in watch.looks],
        "standings": [
            {
                "ticket": standing.ticket,
                "claim": standing.requirement.claim,
                "asked": str(standing.requirement),
                "open": standing.open,
                "outcome": str(standing.answer.outcome),
                "code": standing.answer.code,
                "text": standing.answer.text,
            }
            for standing in watch.looks[-1].standings
        ],
        "left_out": list(watch.left_out),
    }


def _lines(result: Evaluation) -> list[str]:
    held = f" ({result.control} left out, holding a control token)" if result.control else ""
    lines = [f"{result.sentences} sentences{held}; the model ended {result.ended:.1%} of the outputs"]
    lines += [_score_line(score) for score in result.scores]
    first = result.scores[0]
    return [*lines, f"BLEU {first.bleu_signature}", f"chrF++ {first.chrf_signature}"]


def _arm_lines(path: Path, manifest: Manifest, scores: Sequence[ArmScores]) -> list[str]:
    lines = [f"evidence {path}: {manifest.records.count} sentences of {manifest.text.name}"]
    for arm in scores:
        ended = "" if arm.ended is None else f" the model ended {arm.ended:.1%} of the outputs"
        lines.append(f"{arm.arm}:{ended}")
        lines += [_score_line(score) for score in arm.scores]
    return [*lines, *(f"{name} {signature}" for name, signature in manifest.signatures.items())]


def _score_line(score: Scores) -> str:
    return (
        f"  {score.rule:<11} BLEU {score.bleu:6.2f}  chrF++ {score.chrf:6.2f}"
        f"  length ratio {score.length_ratio:.2f}"
    )
