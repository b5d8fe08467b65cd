"""The second part of the graph: evaluation and evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from certify.evidence.manifest import ROW_KINDS
from certify.stats.path import path_law
from certify.tables.dtypes import parse_dtype
from certify.ticket.templates import load_template
from lottery.evaluation.prompts import DOCUMENT
from lottery.experiment.plan.arms import ArmPlan, null_names, null_step, planned_arms, planned_tickets
from lottery.experiment.plan.estimate import Amount, Passes
from lottery.experiment.plan.fields import PairPlan, TextPlan, UnrelatedPlan
from lottery.experiment.plan.witness_shares import witness_shares
from lottery.experiment.steps import evidence, rows, texts
from lottery.text.score import signatures

if TYPE_CHECKING:
    from lottery.experiment.engine.context import Procedure
    from lottery.experiment.engine.graph import GraphStep
    from lottery.experiment.layout.builder import Builder

_TUNED_BEFORE = ("tuning", "choice")
UNRELATED = "unrelated"

_LONGEST = 3
"""Longest output of a batch, as a multiple of the mean."""


def evidence_steps(builder: Builder, pair: PairPlan) -> list[GraphStep]:
    """Build the steps for texts, measurements and evidence of one pair."""
    plan = builder.plan
    wanted = [text for text in plan.text if pair in plan.pairs_of(text)]
    if not wanted and plan.unrelated is None:
        return []
    roles = {"tuning": list(pair.data)} | ({"choice": [pair.choice]} if pair.choice else {})
    names = [name for listed in roles.values() for name in listed]
    parameters = {
        "roles": roles,
        "languages": list(pair.languages),
        "texts_sha256": [builder.input_digests.pairs(name, pair.languages) for name in names],
    }
    steps = [builder.step(f"{pair.name}/used", texts.list_used, parameters)]
    chosen = None if plan.calibration is None else plan.calibration.text
    for text in sorted(wanted, key=lambda text: text.name != chosen):
        steps += _text(builder, pair, text)
        if text.name == chosen:
            steps.append(_calibrate(builder, pair, chosen))
    if plan.unrelated is not None:
        steps += _unrelated(builder, pair, plan.unrelated)
    return steps


def _calibrate(builder: Builder, pair: PairPlan, text: str) -> GraphStep:
    needs = {"tickets": f"{pair.name}/tickets", "evidence": f"{pair.name}/evidence/{text}"}
    needs["embed"] = f"{pair.name}/embed"
    asked = None if builder.plan.calibration is None else builder.plan.calibration.model_dump()
    parameters = {"asked": asked, "bundle": builder.plan.bundle}
    return builder.step(f"{pair.name}/calibrate", rows.calibrate_tickets, parameters, needs)


def _text(builder: Builder, pair: PairPlan, text: TextPlan) -> list[GraphStep]:
    plan = builder.plan
    avoid = [role for role in _TUNED_BEFORE if role == "tuning" or text.role == "evaluation"]
    documents = text.unit == DOCUMENT
    parameters = {
        "data": text.data,
        "text_sha256": builder.input_digests.pairs(text.data, pair.languages, documents=documents),
        "languages": list(pair.languages),
        "avoid": avoid,
        **plan.limited(text.limit),
    } | ({"documents": True} if documents else {})
    source = f"{pair.name}/text/{text.name}"
    steps = [
        builder.step(source, texts.prepare_text, parameters, {"used": f"{pair.name}/used"}),
        _opportunity(builder, pair, text, source),
    ]
    arms = [arm for arm in planned_arms(plan) if arm.main or text.arms == "all"]
    if text.beams > 1:
        arms = [arm for arm in arms if arm.gate is None and arm.kind != "prefix"]
    steps += _translated(builder, pair, text, text.name, plan.template, arms, avoid)
    for template in plan.paraphrases if text.paraphrases else ():
        probed = [arm for arm in arms if arm.probed]
        file = f"{text.name}.{load_template(template).name}"
        steps += _translated(builder, pair, text, file, template, probed, avoid)
    return steps


def _translated(
    builder: Builder,
    pair: PairPlan,
    text: TextPlan,
    file: str,
    template: str,
    arms: list[ArmPlan],
    avoid: list[str],
) -> list[GraphStep]:
    """Build the steps that measure all arms on a text under a template, and the evidence."""
    settings = builder.plan.evaluation
    common: dict[str, Any] = {
        "languages": list(pair.languages),
        "template": template,
        "template_sha256": load_template(template).digest(),
        "max_new_tokens": text.max_new_tokens,
        "beams": text.beams,
        "served_dtype": builder.served,
        "dtype": parse_dtype(settings.dtype),
        "batch": settings.batch,
        "bleu_tokenizer": settings.bleu_tokenizer,
        "signatures": list(signatures(settings.bleu_tokenizer)),
    }
    more = _asked(builder) if file == text.name else {}
    about = more | {
        "file": file,
        "name": text.name,
        "unit": text.unit,
        "attribution": text.attribution,
        "arms": [arm.name for arm in arms],
        "avoid": avoid,
        "order_seed": settings.order_seed,
        "witnesses": witness_shares(builder.plan)[pair.name, text.name] if file == text.name else 0,
    }
    sources = {"text": f"{pair.name}/text/{text.name}", "embed": f"{pair.name}/embed"}
    # The reference comes first: every other arm follows its outputs.
    ordered = sorted(arms, key=lambda arm: arm.kind != "reference")
    work, asked = _decoding(builder, text, {}), _decoding(builder, text, more)
    declaring = builder.declaring(pair, text.name)
    steps = _measured(
        builder,
        pair,
        ordered,
        evidence.measure_arm,
        f"measure/{file}",
        common,
        sources,
        work,
        declaring,
        more,
        asked,
    )
    reference = {"reference": steps[0].name}
    steps[1:] = [replace(step, needs={**step.needs, **reference}) for step in steps[1:]]
    needs = sources | {"used": f"{pair.name}/used"} | _collected(ordered, steps)
    if declaring.endswith("/calibrate"):
        about["tickets"] = {ticket.arm: ticket.id for ticket in planned_tickets(builder.plan)}
        needs["tickets"] = declaring
    name = f"{pair.name}/evidence/{file}"
    return [*steps, builder.step(name, evidence.write_evidence, common | about, needs)]


def _unrelated(builder: Builder, pair: PairPlan, text: UnrelatedPlan) -> list[GraphStep]:
    plan = builder.plan
    common: dict[str, Any] = {
        "name": UNRELATED,
        "data": text.data,
        "text_sha256": builder.input_digests.lines(text.data),
        "block": text.block,
        "every": text.every,
        "window": text.window,
        "attribution": text.attribution,
        "avoid": list(_TUNED_BEFORE),
        "served_dtype": builder.served,
        "dtype": parse_dtype(plan.evaluation.dtype),
        "batch": plan.evaluation.batch,
        **plan.limited(text.limit),
    }
    arms = [arm for arm in planned_arms(plan) if (arm.main or text.arms == "all") and arm.gate is None]
    about = {"file": UNRELATED, "arms": [arm.name for arm in arms], "order_seed": plan.evaluation.order_seed}
    sources = {"used": f"{pair.name}/used", "embed": f"{pair.name}/embed"}
    tokens = text.limit * text.block * plan.estimate.line_tokens
    work = Amount(
        "loss",
        read=Passes(tokens, tokens),
        micro_batch=plan.evaluation.batch,
        length=text.window,
        bytes_per_weight=_bytes_per_weight(builder),
    )
    declaring = builder.declaring(pair)
    steps = _measured(builder, pair, arms, evidence.measure_losses, "loss", common, sources, work, declaring)
    name = f"{pair.name}/evidence/{UNRELATED}"
    needs = sources | _collected(arms, steps)
    return [*steps, builder.step(name, evidence.write_loss_evidence, common | about, needs)]


def _measured(
    builder: Builder,
    pair: PairPlan,
    arms: list[ArmPlan],
    procedure: Procedure,
    folder: str,
    common: dict[str, Any],
    sources: dict[str, str],
    work: Amount,
    declaring: str,
    more: dict[str, Any] | None = None,
    asked: Amount | None = None,
) -> list[GraphStep]:
    """Build a step per arm, named ``PAIR/FOLDER/ARM``.

    Arms of tickets are asked ``more``, and their work is ``asked``.

    Claims are declared, by the step ``declaring``, before anything is evaluated.
    """
    steps = []
    for arm in arms:
        # The fields of an arm that determine its measurement or appear in its evidence.
        kept = {
            name: getattr(arm, name) for name in ("name", "kind", "source", "control", "of", "seed", "gate")
        }
        parameters = common | {"arm": kept | {"training_seed": builder.plan.seed}}
        amount = work
        if arm.kind in ROW_KINDS and arm.control is None and arm.gate is None:
            parameters |= more or {}
            amount = work if asked is None else asked
        weights = {} if arm.source in ("base", "reference") else {"arm": f"{pair.name}/{arm.step}"}
        name = f"{pair.name}/{folder}/{arm.name}"
        needs = sources | weights
        steps.append(builder.step(name, procedure, parameters, needs, after=(declaring,), work=amount))
    return steps


def _asked(builder: Builder) -> dict[str, Any]:
    """What the arms of tickets are asked beside their decisions along the reference's outputs."""
    law, margins = builder.plan.path, builder.plan.evaluation.margins or builder.plan.calibration
    path = {} if law is None else {"path": law.model_dump(mode="json")}
    return path | ({"margins": True} if margins else {})


def _collected(arms: list[ArmPlan], steps: list[GraphStep]) -> dict[str, str]:
    return {f"arm:{arm.name}": step.name for arm, step in zip(arms, steps, strict=True)}


def _opportunity(builder: Builder, pair: PairPlan, text: TextPlan, source: str) -> GraphStep:
    plan = builder.plan
    selections = [f"select/{entry.id}" for entry in plan.ticket]
    for controls in plan.controls if text.arms == "all" else ():
        names = [name for name, kind, _ in null_names(controls) if kind != "direction"]
        selections += [null_step(controls, name) for name in names]
    parameters = {
        "template": plan.template,
        "template_sha256": load_template(plan.template).digest(),
        "languages": list(pair.languages),
        "selections": selections,
    }
    needs = {"text": source} | {name: f"{pair.name}/{name}" for name in selections}
    name = f"{pair.name}/opportunity/{text.name}"
    return builder.step(name, evidence.count_opportunity, parameters, needs)


def _decoding(builder: Builder, text: TextPlan, more: dict[str, Any]) -> Amount:
    """The work of measuring an arm that is asked for ``more``."""
    plan, sizes = builder.plan, builder.plan.estimate
    sentences = min(filter(None, (text.limit, sizes.sentences)))
    prompt, answer = sizes.prompt_tokens, min(text.max_new_tokens, sizes.new_tokens)
    # Along the reference's outputs, along the path, and twice along its own. What all prompts begin with,
    # about half of a prompt, is fed once; the last token of an answer is not fed.
    law = more.get("path")
    labelled = sum(t not in (0, 1) for t in path_law(law["n"], law["g"]).strengths) if law else 0
    forced = 1 + labelled + 2 * ("margins" in more)
    read = prompt * text.beams + forced * (prompt // 2 + answer - 1)
    fed = sentences * (answer - 1) * text.beams
    batches = -(-sentences // plan.evaluation.batch)
    return Amount(
        "decode",
        read=Passes(sentences * read, sentences * (text.beams + forced * answer)),
        decode=Passes(fed, fed),
        # A batch is decoded until its longest output ends.
        steps=batches * min(text.max_new_tokens - 1, _LONGEST * answer),
        micro_batch=plan.evaluation.batch * text.beams,
        length=text.max_new_tokens + prompt,
        bytes_per_weight=_bytes_per_weight(builder),
        along_path=law is not None,
    )


def _bytes_per_weight(builder: Builder) -> int:
    return 4 if builder.plan.evaluation.dtype == "fp32" else 2
