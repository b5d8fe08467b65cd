"""Build the graph of steps from a plan: names, parameters, and the inputs of each step.

Names below a language pair::

    embed · seed-1/embed · counts · select/ID · partial/ID · comparator/METHOD · nulls/ID · null/ID/NAME ·
    null-partial/ID/NAME · tickets · calibrate · text/TEXT · measure/TEXT/ARM · evidence/TEXT · loss/ARM ·
    evidence/unrelated · opportunity

and, for the whole experiment, ``base`` (synthetic only), ``overlap`` and ``publish``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from certify.base.errors import UsageError
from certify.ticket.templates import load_template
from lottery.experiment.engine.context import BASE, RunContext
from lottery.experiment.engine.graph import Graph, GraphStep
from lottery.experiment.engine.inputs import InputDigests
from lottery.experiment.layout.builder import SYNTHETIC_SIZES, Builder
from lottery.experiment.layout.evidence import evidence_steps
from lottery.experiment.layout.final import final_steps
from lottery.experiment.plan.arms import null_names, null_step, planned_tickets
from lottery.experiment.plan.estimate import Amount, Passes, rows_of_rule
from lottery.experiment.plan.fields import ControlsPlan, PairPlan, TicketPlan
from lottery.experiment.plan.plan import ExperimentPlan
from lottery.experiment.steps import rows, tuning
from lottery.tuning.recipe import Recipe, adjusted

MAX_STEPS = 10_000
"""Largest number of steps of a plan."""


def layout(plan: ExperimentPlan, context: RunContext, input_digests: InputDigests) -> Graph:
    """Build the steps of ``plan``, in an order in which they can run.

    Raises:
        CertifyError: a text or template of the plan is missing or malformed, or two steps have one name.
    """
    builder = Builder(plan, context, input_digests)
    steps = list[GraphStep]()
    if builder.made:
        sizes = {"seed": plan.seed} | SYNTHETIC_SIZES
        steps.append(builder.step(BASE, tuning.make_synthetic, sizes, free=True))
    for pair in plan.pair:
        steps += _tunings(builder, pair)
        for controls in plan.controls:
            steps += _nulls(builder, pair, controls)
        steps.append(_tickets(builder, pair))
        steps += evidence_steps(builder, pair)
        if len(steps) > MAX_STEPS:
            raise UsageError(f"plan {plan.name} has more than {MAX_STEPS} steps", code="PLAN_INVALID")
    steps += final_steps(builder, steps)
    names = Counter(step.name for step in steps)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UsageError(
            f"plan {plan.name}: two steps are named {twice[0]}: rename a ticket, text or template, or drop a"
            " repeated entry of controls",
            code="PLAN_INVALID",
        )
    return Graph(steps)


def _tunings(builder: Builder, pair: PairPlan) -> list[GraphStep]:
    plan = builder.plan
    steps = []
    steps.append(_counts(builder, pair))
    seeds = [(plan.seed, pair.name), *((seed, f"{pair.name}/seed-{seed}") for seed in plan.embed.seeds)]
    for seed, prefix in seeds:
        steps.append(_tune(builder, f"{prefix}/embed", pair, plan.embed.recipe("embed"), seed=seed))
        steps += [_choose(builder, pair, prefix, entry) for entry in plan.ticket]
    for ticket in planned_tickets(plan):
        if ticket.tuned:
            recipe = adjusted(plan.partial.recipe("partial"), learning_rate=ticket.plan.lr)
            controls = plan.controls_of(ticket.plan.id) if ticket.id.endswith("-limited") else None
            limit = controls.limit if controls else None
            name, select = f"{pair.name}/{ticket.tuned}", f"{pair.name}/{ticket.select}"
            known = _known(ticket.plan)
            steps.append(_tune(builder, name, pair, recipe, limit=limit, select=select, known=known))
    for comparator in plan.comparator:
        name, recipe = f"{pair.name}/comparator/{comparator.method}", comparator.recipe(comparator.method)
        method, size = comparator.method, comparator.size
        steps.append(_tune(builder, name, pair, recipe, method=method, size=size))
    return steps


def _known(entry: TicketPlan) -> dict[str, Any]:
    """What is known from the plan alone about the number of a ticket's rows, for estimates."""
    return {"share": entry.share} if entry.share is not None else {"rows": rows_of_rule(entry.rule)}


def _tune(
    builder: Builder,
    name: str,
    pair: PairPlan,
    recipe: Recipe,
    *,
    select: str = "",
    known: Mapping[str, Any] | None = None,
    **asked: Any,
) -> GraphStep:
    """Build a tuning; ``asked`` are arguments of ``tuning_parameters``."""
    asked = {"seed": builder.plan.seed} | asked
    parameters = tuning.tuning_parameters(builder.plan, pair, recipe, **asked)
    estimate = builder.plan.estimate
    pairs = min(filter(None, (parameters["limit"], estimate.tuning_pairs)))
    held_out = estimate.choice_pairs if pair.choice else 0
    fed = parameters["recipe"]["epochs"] * estimate.tokens_per_pair
    targets = parameters["recipe"]["epochs"] * max(estimate.tokens_per_pair - estimate.prompt_tokens, 1)
    amount = Amount(
        "tune",
        train=Passes(pairs * fed, pairs * targets),
        read=Passes(held_out * fed, held_out * targets),
        method="partial" if select else str(parameters["method"]),
        size=parameters["size"],
        checkpointing=parameters["gradient_checkpointing"],
        micro_batch=parameters["micro_batch"],
        length=parameters["max_length"],
        bytes_per_weight=4 if parameters["dtype"] == "F32" else 2,
        **(known or {}),
    )
    needs = {"select": select} if select else {}
    return builder.step(name, tuning.run_tuning, parameters | builder.texts(pair), needs, work=amount)


def _choose(builder: Builder, pair: PairPlan, prefix: str, entry: TicketPlan) -> GraphStep:
    parameters = _rule_of(entry, pair, builder.plan.seed) | {"served_dtype": builder.served}
    needs = {"embed": f"{prefix}/embed"} | _counted(entry, pair)
    if entry.rule.startswith("template"):
        parameters |= _template(builder.plan)
    name = f"{prefix}/select/{entry.id}"
    return builder.step(name, rows.choose, parameters, needs, work=Amount("scan"))


def _rule_of(entry: TicketPlan, pair: PairPlan, seed: int) -> dict[str, Any]:
    asked = {name: getattr(entry, name) for name in ("alpha", "correction", "share")}
    rule = f"template:{pair.name}" if entry.rule == "template" else entry.rule
    return asked | {"rule": rule, "exclude": sorted(set(entry.exclude)), "seed": seed}


def _counted(entry: TicketPlan, pair: PairPlan) -> dict[str, str]:
    """What a rule that counts the tuning text needs."""
    return {"counts": f"{pair.name}/counts"} if entry.rule.startswith("frequency:") else {}


def _template(plan: ExperimentPlan) -> dict[str, str]:
    return {"template": plan.template, "template_sha256": load_template(plan.template).digest()}


def _counts(builder: Builder, pair: PairPlan) -> GraphStep:
    plan = builder.plan
    asked = tuning.tuning_parameters(plan, pair, plan.embed.recipe("embed"), seed=plan.seed)
    wanted = ("data", "held_out", "languages", "template", "limit", "take", "max_length")
    parameters = {name: asked[name] for name in wanted if name in asked} | builder.texts(pair)
    return builder.step(f"{pair.name}/counts", rows.count_fed, parameters)


def _nulls(builder: Builder, pair: PairPlan, controls: ControlsPlan) -> list[GraphStep]:
    plan = builder.plan
    own = {"select": f"{pair.name}/select/{controls.ticket}", "embed": f"{pair.name}/embed"}
    served = {"served_dtype": builder.served}
    drawing = {"draws": controls.draws, "null_seed": controls.seed, **served}
    counted = {"counts": f"{pair.name}/counts"}
    drawn = f"{pair.name}/nulls/{controls.ticket}"
    steps = [builder.step(drawn, rows.draw_nulls, drawing, own | counted)]
    entry = next(one for one in plan.ticket if one.id == controls.ticket)
    recipe = adjusted(plan.partial.recipe("partial"), learning_rate=entry.lr)
    for name, kind, seed in null_names(controls):
        null = f"{pair.name}/{null_step(controls, name)}"
        if kind == "direction":
            turning = {"seed": seed, **served}
            steps.append(builder.step(null, rows.turn_rows, turning, own))
            continue
        needs = {"nulls": drawn, "embed": f"{pair.name}/embed"}
        asked = {"name": name, **served}
        steps.append(builder.step(null, rows.take_null, asked, needs))
        if "tuned" in controls.objects:
            tuned = f"{pair.name}/{null_step(controls, name, tuned=True)}"
            known = {"rows": 1} if kind.startswith("one-row") else _known(entry)
            steps.append(_tune(builder, tuned, pair, recipe, limit=controls.limit, select=null, known=known))
    return steps


def _tickets(builder: Builder, pair: PairPlan) -> GraphStep:
    plan = builder.plan
    needs = {"embed": f"{pair.name}/embed"}
    entries = []
    for ticket in planned_tickets(plan):
        needs |= {ticket.select: f"{pair.name}/{ticket.select}"} | _counted(ticket.plan, pair)
        if ticket.tuned:
            needs[ticket.tuned] = f"{pair.name}/{ticket.tuned}"
        declared = [claim.model_dump(mode="json") for claim in (*plan.declared, *ticket.plan.declared)]
        about = {"id": ticket.id, "role": ticket.select, "tuned": ticket.tuned or None, "declared": declared}
        if ticket.plan.extraction:  # results of plans without one keep their keys
            about["extraction"] = ticket.plan.extraction
        entries.append(about | _rule_of(ticket.plan, pair, plan.seed))
    parameters = {
        "tickets": entries,
        "served_dtype": builder.served,
        "bundle": plan.bundle,
        **_template(plan),
    }
    return builder.step(f"{pair.name}/tickets", rows.write_tickets, parameters, needs)
