"""The last part of the graph: overlap of tickets, and publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lottery.experiment.steps import publish

if TYPE_CHECKING:
    from lottery.experiment.engine.graph import GraphStep
    from lottery.experiment.layout.builder import Builder


def final_steps(builder: Builder, steps: list[GraphStep]) -> list[GraphStep]:
    """Build the steps for overlap of tickets and for publication."""
    plan = builder.plan
    known = {step.name for step in steps}
    last = []
    if len(plan.pair) * (1 + len(plan.embed.seeds)) > 1:
        last.append(_overlap(builder))
    needs = {step.name: step.name for step in last}
    pairs = []
    for pair in plan.pair:
        found = {
            kind: {
                name.split("/", 2)[2]: name
                for name in sorted(known)
                if name.startswith(f"{pair.name}/{kind}/")
            }
            for kind in ("evidence", "opportunity")
        }
        tickets = builder.declaring(pair)
        needs |= {name: name for names in found.values() for name in names.values()} | {tickets: tickets}
        unlinked = tuple(f"{text.name}." for text in plan.text if text.role != "evaluation")
        # Evidence NAME or, under another template, NAME.TEMPLATE is about the text NAME.
        linked = [name for name in found["evidence"] if not f"{name}.".startswith(unlinked)]
        pairs.append({"name": pair.name, "tickets": tickets, "linked": linked, **found})
    parameters = {
        "plan": plan.model_dump(mode="json"),
        "notices": list(plan.notices),
        "pairs": pairs,
        "started_from": {
            "base_sha256": builder.input_digests.base or plan.base,
            "texts_sha256": builder.input_digests.known(),
        },
    }
    return [*last, builder.step("publish", publish.publish, parameters, needs, free=True)]


def _overlap(builder: Builder) -> GraphStep:
    plan = builder.plan
    tickets: dict[str, list[tuple[str, str, int]]] = {}
    needs: dict[str, str] = {}
    for pair in plan.pair:
        needs[f"{pair.name}/counts"] = f"{pair.name}/counts"
        for seed in (plan.seed, *plan.embed.seeds):
            prefix = pair.name if seed == plan.seed else f"{pair.name}/seed-{seed}"
            for entry in plan.ticket:
                role = f"{prefix}/select/{entry.id}"
                needs[role] = role
                tickets.setdefault(entry.id, []).append((role, pair.name, seed))
    counts = [f"{pair.name}/counts" for pair in plan.pair]
    parameters = {
        "tickets": {name: [list(role) for role in roles] for name, roles in tickets.items()},
        "counts": counts,
    }
    return builder.step("overlap", publish.compare_tickets, parameters, needs)
