"""Steps that evaluate: one arm on one text, losses, and the resulting evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from certify.base.errors import UsageError
from certify.base.jsonio import sha256_file
from certify.evidence.read import Arm, BaseModelRef, Decoding
from certify.tables.modeldigest import checkpoint_digest
from certify.tables.rowfile import make_rows, read_rows
from certify.tables.table import Table, open_table
from certify.ticket.declared import StrengthLaw
from certify.ticket.schema import read_ticket_file
from certify.ticket.templates import encode, load_template
from lottery.controls.opportunity import of_examples
from lottery.evaluation.assemble import Assembly, LossTask, assemble_loss, make_loss_task
from lottery.evaluation.measure import measure, measure_loss
from lottery.evaluation.prompts import Task, make_task
from lottery.evaluation.shards import Part, read_part
from lottery.experiment.engine.context import (
    ROWS,
    SELECTION,
    RunContext,
    procedure,
    reference_file,
    tuned_result,
)
from lottery.experiment.engine.graph import Result, Void, Work
from lottery.experiment.steps.rows import TICKETS
from lottery.experiment.steps.texts import evaluated_pairs, taken, used_texts
from lottery.model.backbone import load_backbone
from lottery.model.row_swap import (
    Placement,
    base_placement,
    reference_placement,
    rows_placement,
    serve_base,
    weights_placement,
)
from lottery.model.tokenizer import load_tokenizer
from lottery.text.score import Scorer
from lottery.text.textfile import locate, read_lines
from lottery.text.unrelated import UnrelatedText, choose_passages

PART, ARM, OPPORTUNITY = "part.jsonl", "arm.json", "opportunity.json"


@procedure("measure", 3)
def measure_arm(context: RunContext, work: Work) -> Result:
    """Translate a text with one arm and decode it along the reference's outputs; resumable by sentence.

    Raises:
        Void: the arm has no rows.
    """
    placement = _placement(context, work)
    reference: Part | None = None
    if placement.arm.kind != "reference":
        reference = read_part(work.inputs["reference"].path(PART))
    model, tokenizer = _model(context, work)
    part = measure(
        model,
        tokenizer,
        _task(context, work, [placement.arm]),
        placement,
        work.folder / PART,
        reference=reference,
        tuned=_reference_table(work) if {"path", "margins"} & work.parameters.keys() else None,
        resume=True,
        progress=context.progress,
    )
    work.write(ARM, placement.arm.model_dump(mode="json"))
    tokens = sum(part.read(index)["length"] for index in range(len(part)))
    ended = sum(part.read(index)["ended"] for index in range(len(part)))
    facts = {"sentences": len(part), "generated": tokens, "ended": ended}
    return Result((PART, ARM), facts)


@procedure("loss", 2)
def measure_losses(context: RunContext, work: Work) -> Result:
    """Measure the loss of one arm on unrelated text; resumable by window.

    Raises:
        Void: the arm has no rows.
    """
    placement = _placement(context, work)
    model, tokenizer = _model(context, work)
    task = _loss_task(context, work, tokenizer, _unrelated(context, work, tokenizer))
    part = measure_loss(
        model,
        task,
        placement,
        work.folder / PART,
        batch_size=work.parameters["batch"],
        resume=True,
        progress=context.progress,
    )
    work.write(ARM, placement.arm.model_dump(mode="json"))
    nats = sum(part.read(index)["nats"] for index in range(len(part))) / 1e9
    tokens = sum(len(window.ids) - 1 for window in task.windows)
    return Result((PART, ARM), {"windows": len(task.windows), "nats_per_token": nats / tokens})


def _placement(context: RunContext, work: Work) -> Placement:
    asked = work.parameters["arm"]
    base = _base_table(context, work)
    source = asked["source"]
    if source == "base":
        return base_placement(base)
    if source == "reference":
        return reference_placement(_reference_table(work))
    given = work.inputs["arm"]
    if source == "model":
        path, trained = tuned_result(given)
        return weights_placement(
            asked["name"], asked["kind"], path, parameters=trained, seed=asked["training_seed"]
        )
    if source == "rows":
        if not given.json(SELECTION)["ids"]:
            raise Void("no row was selected: the arm equals the base")
        rows = read_rows(given.path(ROWS))
    else:
        found = read_rows(tuned_result(given)[0])
        rows = make_rows(found.ids, found.fp32, base.dtype)
    return rows_placement(
        asked["name"],
        asked["kind"],
        base,
        rows,
        control=asked["control"],
        of=asked["of"],
        seed=asked["seed"],
        gate=asked["gate"],
    )


def _base_table(context: RunContext, work: Work) -> Table:
    return open_table(context.base_folder(work)).as_dtype(work.parameters["served_dtype"])


def _reference_table(work: Work) -> Table:
    return open_table(reference_file(work)).as_dtype(work.parameters["served_dtype"])


def _base_ref(context: RunContext, work: Work) -> BaseModelRef:
    base = _base_table(context, work)
    folder = context.base_folder(work)
    key = (folder, "digest")
    if key not in context.loaded:
        context.loaded[key] = checkpoint_digest(folder, without=base.tensor)
    return BaseModelRef(tensor_sha256=base.digest(), model_sha256=context.loaded[key])


def _model(context: RunContext, work: Work) -> tuple[PreTrainedModel, Any]:
    """Load the base as served and its tokenizer, once for many steps."""
    folder, dtype = context.base_folder(work), work.parameters["dtype"]
    key = (folder, dtype)
    if key not in context.loaded:
        if context.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("no GPU that PyTorch can use: leave out --device, or choose cpu", code="NO_GPU")
        on_gpu = context.device != "cpu" and torch.cuda.is_available()
        model = load_backbone(folder, dtype).eval().to("cuda" if on_gpu else "cpu")
        serve_base(model, _base_table(context, work))
        context.loaded[key] = (model, load_tokenizer(folder))
    return cast("tuple[PreTrainedModel, Any]", context.loaded[key])


def _task(context: RunContext, work: Work, arms: Sequence[Arm]) -> Task:
    p = work.parameters
    folder = context.base_folder(work)
    return make_task(
        evaluated_pairs(work.inputs["text"]),
        (p["languages"][0], p["languages"][1]),
        load_template(p["template"]),
        load_tokenizer(folder),
        # Name and units of a text do not affect outputs; they appear only in the evidence.
        name=p.get("name", "text"),
        unit=p.get("unit", "sentence"),
        attribution=p.get("attribution", ""),
        tokenizer_sha256=sha256_file(folder / "tokenizer.json"),
        base=_base_ref(context, work),
        reference_sha256=_reference_table(work).digest(),
        decoding=Decoding(beams=p["beams"], max_new_tokens=p["max_new_tokens"], dtype=p["dtype"]),
        batch_size=p["batch"],
        scorer=Scorer(p["bleu_tokenizer"]),
        path=StrengthLaw.model_validate(p["path"]) if "path" in p else None,
        margins=_margins(work, arms) if "margins" in p else None,
    )


def _margins(work: Work, arms: Sequence[Arm]) -> dict[str, str | None]:
    """The margins that the tickets of arms declare; None where nothing is declared yet."""
    given, declared = work.inputs.get("tickets"), dict[str, str]()
    if given is not None and not given.void:
        tickets = read_ticket_file(given.path(TICKETS)).tickets
        declared = {ticket.id: ticket.calibration.t for ticket in tickets if ticket.calibration}
    of = work.parameters.get("tickets", {})
    return {arm.name: declared.get(of.get(arm.name, "")) for arm in arms if arm.released}


# --- evidence --------------------------------------------------------------------------------------------


@procedure("evidence", 2, collects=True)
def write_evidence(context: RunContext, work: Work) -> Result:
    """Join the parts of all arms into evidence on one text; void arms are left out."""
    p = work.parameters
    arms, parts = _measured(work)
    used, out = used_texts(work), work.folder / f"{p['file']}.json"
    seed, witnesses = p["order_seed"], p["witnesses"]
    Assembly(_task(context, work, arms), arms, out, used=used, order_seed=seed, witnesses=witnesses).add(
        parts
    )
    return Result(_evidence_files(work.folder, p["file"]), {"arms": len(arms)})


@procedure("evidence", 3, collects=True)
def write_loss_evidence(context: RunContext, work: Work) -> Result:
    """Join the losses of all arms into evidence on unrelated text."""
    p = work.parameters
    arms, parts = _measured(work)
    tokenizer = load_tokenizer(context.base_folder(work))
    text = _unrelated(context, work, tokenizer)
    assemble_loss(
        _loss_task(context, work, tokenizer, text),
        arms,
        parts,
        work.folder / f"{p['file']}.json",
        reference_sha256=next(arm.table_sha256 for arm in arms if arm.kind == "reference"),
        used=used_texts(work),
        order_seed=p["order_seed"],
    )
    return Result(_evidence_files(work.folder, p["file"]), {"arms": len(arms), **text.left_out()})


@procedure("opportunity", 2, collects=True)
def count_opportunity(context: RunContext, work: Work) -> Result:
    """Count the examples of a text that feed the tokens of each ticket: ``opportunity.json``.

    Segments are those of :mod:`lottery.controls.opportunity` and of gates.
    """
    p = work.parameters
    tokenizer = load_tokenizer(context.base_folder(work))
    pairs = evaluated_pairs(work.inputs["text"])
    examples = encode(load_template(p["template"]), pairs, tokenizer, *p["languages"])
    counted: dict[str, Any] = {}
    for name in p["selections"]:
        given = work.inputs[name]
        ids = [] if given.void else given.json(SELECTION)["ids"]
        if ids:
            found = of_examples(ids, examples)
            counted[name] = {
                "rows": len(found.ids),
                "examples": found.prompts,
                "touched": dict(found.touched),
                "never_fed": list(found.unsupported()),
            }
    work.write(OPPORTUNITY, counted)
    return Result((OPPORTUNITY,), {"selections": len(counted)})


def _measured(work: Work) -> tuple[list[Arm], dict[str, Part]]:
    """List the arms in the order of the plan, with their parts.

    If two tickets have the same rows, the arm of the first represents both: evidence has each table once.
    """
    arms: dict[tuple[Any, ...], Arm] = {}
    parts: dict[str, Part] = {}
    for name in work.parameters["arms"]:
        given = work.inputs[f"arm:{name}"]
        if given.void:
            continue
        arm = Arm.model_validate_json(given.path(ARM).read_bytes())
        same = (arm.kind, arm.table_sha256, arm.model_sha256, arm.gate, arm.control, arm.of, arm.seed)
        if same in arms:
            first = arms[same]
            note = f"{first.note}, {arm.name}" if first.note else f"the same rows as {arm.name}"
            arms[same] = first.model_copy(update={"note": note})
            continue
        arms[same] = arm
        parts[arm.name] = read_part(given.path(PART))
    return list(arms.values()), parts


def _unrelated(context: RunContext, work: Work, tokenizer: Any) -> UnrelatedText:
    p = work.parameters
    return choose_passages(
        read_lines(locate(Path(context.text(work, p["data"])))),
        name=p["name"],
        block=p["block"],
        every=p["every"],
        limit=p["limit"],
        take=taken(p),
        used=frozenset().union(*(entry.digests for entry in used_texts(work))),
        tokenizer=tokenizer,
    )


def _loss_task(context: RunContext, work: Work, tokenizer: Any, text: UnrelatedText) -> LossTask:
    p = work.parameters
    return make_loss_task(
        text,
        tokenizer,
        window=p["window"],
        attribution=p["attribution"],
        base=_base_ref(context, work),
        tokenizer_sha256=sha256_file(context.base_folder(work) / "tokenizer.json"),
        dtype=p["dtype"],
    )


def _evidence_files(folder: Path, name: str) -> tuple[str, ...]:
    used = sorted(path.relative_to(folder).as_posix() for path in folder.glob("used/*.txt"))
    return (f"{name}.json", f"{name}.records.jsonl", *used)
