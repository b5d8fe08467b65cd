"""Evidence in outline: what claims and choices look at, and nothing else, without files or parsers.

For judges and simulations that need many small worlds with known truth. Attributes are those of
:mod:`certify.evidence.manifest` and :mod:`certify.evidence.record`; what is not here is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

from certify.stats.betting import Design
from proofs_checks.worlds.synthetic import vector


def arm(name: str, rows: int = 3, *, kind: str = "transfer", **fields: Any) -> Any:
    """An arm that serves a ticket of so many rows; ``fields`` replace attributes."""
    plain: dict[str, Any] = {"control": None, "gate": None, "of": None, "model_sha256": None}
    plain |= {"ids": tuple(range(rows)), "table_sha256": f"table of {name}"}
    return SimpleNamespace(name=name, kind=kind, **(plain | fields))


def answer(*scores: int, wrong: int = 0) -> Any:
    """What an arm does with a sentence; its first so many decisions are ``wrong``, not E*'s.

    Its chrF is ``5 score``, under the rules whole, first-line and cut; or one score for all.
    """
    stats = tuple(map(vector, scores or (10,)))
    rules = (0, 1, 2) if len(scores) == 3 else (0, 0, 0)
    return SimpleNamespace(differs=tuple((t, 9) for t in range(wrong)), stats=stats, rules=rules)


RIGHT: Final = answer()
WRONG: Final = answer(wrong=1)


def evidence(
    arms: Sequence[Any],
    answers: Mapping[str, Sequence[Any]],
    *,
    design: Design = "fixed",
    steps: int = 1,
    per_unit: int = 1,
    used: Mapping[str, frozenset[str]] | None = None,
) -> Any:
    """Translations: a sentence for each place of the lists of ``answers``, so many of them a unit."""
    reference = SimpleNamespace(tokens=(7,) * steps)
    records = [
        SimpleNamespace(
            id=f"r{i}",
            source=f"s{i}",
            target=f"t{i}",
            reference=reference,
            arms=dict(zip(answers, found, strict=True)),
        )
        for i, found in enumerate(zip(*answers.values(), strict=True))
    ]
    starts = range(0, len(records), per_unit)
    units = {f"u{start}": tuple(records[start : start + per_unit]) for start in starts}
    return SimpleNamespace(
        manifest=_manifest(arms, design),
        design=design,
        units=units,
        scores={},
        records=records,
        sentences=(),
        used={"tuning": frozenset({"0" * 16})} if used is None else used,
        sha256="0" * 64,
    )


def windows(rises: Sequence[tuple[int, int]], *, design: Design = "fixed") -> Any:
    """Unrelated text, a window and unit for each pair (nats by which the loss rises in 1e-9, tokens)."""
    units = {
        f"u{i}": (SimpleNamespace(nats={"base": 10**12, "t": 10**12 + nats}, tokens=tokens, unit=f"u{i}"),)
        for i, (nats, tokens) in enumerate(rises)
    }
    manifest = _manifest((arm("base", kind="base"), arm("t")), design)
    return SimpleNamespace(manifest=manifest, design=design, windows=units, records=(), sha256="0" * 64)


def subject() -> Any:
    """The ticket that the arm ``t`` serves, with three rows."""
    ticket = SimpleNamespace(
        id="t",
        tokens=(1, 2, 3),
        ids=(0, 1, 2),
        released=SimpleNamespace(object="transfer"),
        declared=(),
        calibration=None,
    )
    return SimpleNamespace(
        ticket=ticket,
        table_sha256="table of t",
        declared=lambda *_: None,
        choice=None,
        calibrated_on=frozenset(),
    )


def _manifest(arms: Sequence[Any], design: Design) -> Any:
    return SimpleNamespace(
        arms=tuple(arms),
        arm=lambda name: next(one for one in arms if one.name == name),
        text=SimpleNamespace(name="text", sha256="0" * 64, unit="sentence"),
        design=design,
        order_seed=0,
        template=None,
        produced_by=None,
        decoding=SimpleNamespace(beams=1, max_new_tokens=96, dtype="F32"),
    )
