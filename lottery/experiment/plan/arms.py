"""The arms of an experiment: the models to evaluate, by name, and the step that each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from certify.evidence.manifest import Segment
from lottery.experiment.plan.fields import ControlsPlan, Object, TicketPlan
from lottery.experiment.plan.plan import ExperimentPlan
from lottery.tuning.recipe import Method

WeightSource = Literal["base", "reference", "rows", "rows-file", "model"]
"""Origin of an arm's weights: the base itself, the embed tuning, the rows of a selection, the rows of a
tuning, or a checkpoint or adapter."""


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """One arm.

    Attributes:
        source: see :data:`WeightSource`.
        step: step that the weights come from, below the pair; empty for the base.
        main: whether it belongs to the arms of texts with ``arms = "main"``.
        probed: whether it is also evaluated under the paraphrased templates.
        of: id of the ticket that this arm is a control for.
        gate: segments in which the rows act.
    """

    name: str
    kind: str
    source: WeightSource
    step: str = ""
    select: str = ""
    main: bool = True
    probed: bool = False
    control: str | None = None
    of: str | None = None
    seed: int | None = None
    gate: tuple[Segment, ...] | None = None


@dataclass(frozen=True, slots=True)
class PlannedTicket:
    """One ticket of the ticket file: an entry of the plan for one of its objects.

    Attributes:
        id: ``a05`` for transferred rows, ``a05-tuned`` for tuned ones, ``a05-limited`` for rows tuned on
            the same part of the text as tuned controls.
        select: step that chose the rows, below the pair.
        tuned: step that trained them; empty for transferred rows.
    """

    id: str
    plan: TicketPlan
    object: Object
    select: str
    tuned: str = ""

    @property
    def arm(self) -> str:
        """Name of its arm: ``a05.transfer``, ``a05.tuned``, ``a05-limited.tuned``."""
        return f"{self.id.removesuffix('-tuned')}.{self.object}"


def planned_tickets(plan: ExperimentPlan) -> list[PlannedTicket]:
    """List the tickets of the ticket file, in order."""
    tickets: list[PlannedTicket] = []
    for entry in plan.ticket:
        select = f"select/{entry.id}"
        if "transfer" in entry.objects:
            tickets.append(PlannedTicket(entry.id, entry, "transfer", select))
        if "tuned" in entry.objects:
            tickets.append(
                PlannedTicket(f"{entry.id}-tuned", entry, "tuned", select, tuned=f"partial/{entry.id}")
            )
        if _limited(plan.controls_of(entry.id)):
            name = f"{entry.id}-limited"
            tickets.append(PlannedTicket(name, entry, "tuned", select, tuned=f"partial/{name}"))
    return tickets


def _limited(controls: ControlsPlan | None) -> bool:
    """Whether the ticket is also trained on the same part of the text as its tuned controls."""
    return controls is not None and controls.limit is not None and "tuned" in controls.objects


def null_names(controls: ControlsPlan) -> list[tuple[str, str, int | None]]:
    """List name, kind and seed of every null ticket and random direction, in order."""
    names: list[tuple[str, str, int | None]] = []
    for kind in controls.kinds:
        if kind in ("random", "frequency-matched", "direction"):
            seeds = range(controls.seed, controls.seed + controls.draws)
            names += [(f"{kind}-{seed}", kind, seed) for seed in seeds]
        else:
            names.append((kind.replace(":", "-"), kind, None))
    return names


def null_step(controls: ControlsPlan, name: str, *, tuned: bool = False) -> str:
    """Name the step, below the pair, that takes the null ticket ``name`` or tunes its rows."""
    return f"{'null-partial' if tuned else 'null'}/{controls.ticket}/{name}"


def planned_arms(plan: ExperimentPlan) -> list[ArmPlan]:
    """List all arms of one language pair, base and reference first."""
    arms = [
        ArmPlan("base", "base", "base", probed=True),
        ArmPlan("reference", "reference", "reference", step="embed", probed=True),
    ]
    for ticket in planned_tickets(plan):
        tuned = ticket.object == "tuned"
        arms.append(
            ArmPlan(
                name=ticket.arm,
                kind=ticket.object,
                source="rows-file" if tuned else "rows",
                step=ticket.tuned or ticket.select,
                select=ticket.select,
                probed=plan.controls_of(ticket.plan.id) is not None,
            )
        )
    for comparator in plan.comparator:
        method: Method = comparator.method
        arms.append(ArmPlan(method, method, "model", step=f"comparator/{method}"))
    for controls in plan.controls:
        arms += _controls(controls)
    return arms


def _controls(controls: ControlsPlan) -> list[ArmPlan]:
    ticket = controls.ticket
    tuned_of = f"{ticket}-limited" if _limited(controls) else f"{ticket}-tuned"
    arms: list[ArmPlan] = []
    for name, kind, seed in null_names(controls):
        select = null_step(controls, name)
        for thing in controls.objects:
            if kind == "direction" and thing == "tuned":
                continue  # trained rows have their own direction
            tuned = thing == "tuned"
            arms.append(
                ArmPlan(
                    name=f"{ticket}.{name}" if kind == "direction" else f"{ticket}.{name}.{thing}",
                    kind="direction" if kind == "direction" else thing,
                    source="rows-file" if tuned else "rows",
                    step=null_step(controls, name, tuned=tuned),
                    select=select,
                    main=False,
                    control=kind,
                    of=tuned_of if tuned else ticket,
                    seed=seed,
                )
            )
    for gate in controls.gates:
        arms.append(
            ArmPlan(
                name=f"{ticket}.gate-{'-'.join(gate)}",
                kind="transfer",
                source="rows",
                step=f"select/{ticket}",
                select=f"select/{ticket}",
                main=False,
                control="gate",
                of=ticket,
                gate=gate,
            )
        )
    return arms
