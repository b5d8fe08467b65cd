"""Steps that make models: synthetic base, embed tuning, partial tuning, comparison arms."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from certify.base.errors import NothingToDoError
from certify.base.jsonio import read_json
from certify.tables.dtypes import parse_dtype
from lottery.experiment.engine.context import BASE, RESULT, SELECTION, RunContext, procedure
from lottery.experiment.engine.graph import Result, Void, Work
from lottery.experiment.plan.fields import PairPlan
from lottery.experiment.plan.plan import ExperimentPlan
from lottery.experiment.steps.texts import taken
from lottery.pretrain.synthetic import write_checkpoint, write_text
from lottery.text.tunedata import Data
from lottery.tuning.journal import RUN_FILE
from lottery.tuning.recipe import Method, Recipe
from lottery.tuning.trainer import Limits
from lottery.tuning.tune import Settings, tune

_RUN = "run"


@procedure("synthetic")
def make_synthetic(_context: RunContext, work: Work) -> Result:
    """Make a tiny random model and text for it, with the parameters of :mod:`lottery.pretrain.synthetic`."""
    parameters = dict(work.parameters)
    seed = parameters.pop("seed")
    write_text(work.folder / "text", seed=seed, **parameters)
    if not (work.folder / BASE).exists():
        write_checkpoint(work.folder / BASE, seed=seed)
    return Result((BASE, "text"))


def tuning_parameters(
    plan: ExperimentPlan,
    pair: PairPlan,
    recipe: Recipe,
    *,
    seed: int,
    method: Method = "rows",
    limit: int | None = None,
    size: int = 8,
) -> dict[str, Any]:
    """Parameters that determine a tuning, together with base, text and rows."""
    tuning = plan.tuning
    return {
        "data": list(pair.data),
        "held_out": pair.choice,
        "languages": list(pair.languages),
        "template": plan.template,
        "max_length": tuning.max_length,
        "recipe": asdict(recipe),
        "micro_batch": tuning.micro_batch,
        "autocast": tuning.autocast,
        "dtype": parse_dtype(tuning.dtype),
        "gradient_checkpointing": tuning.gradient_checkpointing,
        "seed": seed,
        "method": method,
        "size": size,
        **plan.limited(min(filter(None, (limit, tuning.limit)), default=None)),
    }


def data_of(context: RunContext, work: Work) -> Data:
    """Describe the tuning text, from the parameters of :func:`tuning_parameters`."""
    p = work.parameters
    return Data(
        sources=tuple(context.text(work, name) for name in p["data"]),
        source_language=p["languages"][0],
        target_language=p["languages"][1],
        template=p["template"],
        held_out=None if p["held_out"] is None else context.text(work, p["held_out"]),
        limit=p["limit"],
        take=taken(p),
        max_length=p["max_length"],
    )


@procedure("tune")
def run_tuning(context: RunContext, work: Work) -> Result:
    """Tune all rows, the rows of the step in role ``select``, or a comparison arm.

    A killed run continues from its last saved state.

    Raises:
        Void: the selection has no rows.
    """
    p = work.parameters
    rows = "all"
    if "select" in work.inputs:
        ids = work.inputs["select"].json(SELECTION)["ids"]
        if not ids:
            raise Void("no row was selected: there is nothing to tune")
        rows = "ids:" + ",".join(map(str, ids))
    settings = Settings(
        data=data_of(context, work),
        recipe=Recipe(**p["recipe"]),
        limits=Limits(p["micro_batch"], p["autocast"]),
        seed=p["seed"],
        method=p["method"],
        rows=rows,
        dtype=p["dtype"],
        gradient_checkpointing=p["gradient_checkpointing"],
        adapter_size=p["size"],
    )
    out = work.folder / _RUN
    context.loaded.clear()  # a model kept for evaluation would double the memory
    progress = context.progress
    try:
        tune(
            str(context.base_folder(work)),
            settings,
            out,
            device=context.device,
            resume=out.exists(),
            save_every=context.save_every,
            report=None if progress is None else lambda step: progress(step.step, step.steps),
        )
    except NothingToDoError as error:
        # Killed between the end of the run and the record of the step.
        if error.code != "RUN_COMPLETE":
            raise
    outcome = read_json(out / RUN_FILE, what="record of a run")["outcome"]
    facts = {name: outcome[name] for name in ("trainable", "steps", "tokens", "loss", "held_out")}
    made = f"{_RUN}/{outcome['output']}"
    work.write(RESULT, {"path": made, "trained": outcome["trainable"]})
    return Result((made, RESULT), facts)
