"""Taking evidence away never certifies: whatever is wrong with a bundle, weakening it does not help.

A defect denies the bundle its certificate; weakenings are then applied to it, with a certificate issued again
where that is possible, so that everything is consistent. What the text of the evaluation *is* cannot be bound
by anything: a ticket that lists fewer texts from the beginning is another ticket.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from evidence_folders import NULLS, TICKET_ARM, Bundle, make_bundle, null_arm, sentences
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples

import certify
from certify.base.errors import CertifyError
from proofs_checks.worlds import synthetic

EVERYTHING = str(Path(__file__).parents[2] / "fixtures" / "policies" / "everything.toml")

Json = Any
Change = Callable[[Bundle], None]


def _worse(**matches: int) -> Change:
    def change(bundle: Bundle) -> None:
        bundle.records = sentences(bundle.names, len(bundle.records), **matches)

    return change


def _loss(bundle: Bundle) -> None:
    for window in bundle.losses:
        window["nats"][TICKET_ARM] += 50 * 10**9


def _overlap(bundle: Bundle) -> None:
    bundle.used = {"tuning": [bundle.records[7]["source"]]}


def _tuned_on_unrelated(bundle: Bundle) -> None:
    bundle.loss_used = {"tuning": bundle.losses[7]["lines"]}


def _copied_window(bundle: Bundle) -> None:
    copied = {"id": "copy", "unit": "copy", "lines": [synthetic.digest("copy")[:16]]}
    bundle.losses.append(bundle.losses[0] | copied)


def _shared_line(bundle: Bundle) -> None:
    bundle.losses[3]["lines"] = bundle.losses[4]["lines"]


def _spoilt(bundle: Bundle) -> None:
    bundle.arm("top-norm")["table_sha256"] = synthetic.digest("noise")


DEFECTS: dict[str, Change] = {
    "worse than embed tuning": _worse(**{TICKET_ARM: 9}),
    "a random ticket is as good": _worse(**{"random-1": 18}),
    "a matched ticket is as good": _worse(**{"matched-2": 18}),
    "unrelated text suffers": _loss,
    "tuned on the evaluation": _overlap,
    "tuned on the unrelated text": _tuned_on_unrelated,
    "a window is there twice": _copied_window,
    "a line is in two units": _shared_line,
    "a null ticket is spoilt": _spoilt,
}


def _drop_arm(name: str) -> Change:
    def change(bundle: Bundle) -> None:
        bundle.arms = [arm for arm in bundle.arms if arm["name"] != name]
        for record in bundle.records:
            record["arms"].pop(name, None)
        for window in bundle.losses:
            window["nats"].pop(name, None)

    return change


def _drop_used(bundle: Bundle) -> None:
    bundle.used = None


def _drop_loss_used(bundle: Bundle) -> None:
    bundle.loss_used = None


def _empty_loss_used(bundle: Bundle) -> None:
    bundle.loss_used = {"tuning": []}


def _gate(bundle: Bundle) -> None:
    _relabel(TICKET_ARM, gate=["target"])(bundle)


def _relabel(name: str, **fields: Json) -> Change:
    def change(bundle: Bundle) -> None:
        for arm in bundle.arms:
            if arm["name"] == name:
                arm.update(fields)

    return change


RELABELLED: dict[str, Json] = {
    "of another ticket": {"of": "other"},
    "gated": {"gate": ["source"]},
    "with another seed": {"seed": 5},
    "as a variant": {"control": "seed"},
    "as a direction": {"control": "direction"},
    "as no control": {"control": None},
}


# Applied before evidence is written and a certificate is issued.
BEFORE: dict[str, Change] = {
    **{f"drop {name}": _drop_arm(name) for name in (TICKET_ARM, *NULLS)},
    "do not list what was used": _drop_used,
    "do not list what unrelated text shares": _drop_loss_used,
    "list nothing for unrelated text": _empty_loss_used,
    "gate the ticket": _gate,
    **{
        f"label {name} {how}": _relabel(name, **fields)
        for name in ("random-1", "matched-2")
        for how, fields in RELABELLED.items()
    },
}


def _edit(change: Callable[[Json], None]) -> Change:
    return lambda bundle: bundle.edit_certificate(change)


def _drop_text(role: str) -> Change:
    def change(value: Json) -> None:
        gone = {one["sha256"] for one in value["evidence"] if one["role"] == role}
        value["evidence"] = [one for one in value["evidence"] if one["sha256"] not in gone]
        value["claims"] = [claim for claim in value["claims"] if claim["evidence"] not in gone]

    return _edit(change)


def _drop_kind(kind: str) -> Change:
    def change(value: Json) -> None:
        value["claims"] = [claim for claim in value["claims"] if claim["kind"] != kind]

    return _edit(change)


def _unwitnessed(bundle: Bundle) -> None:
    """State no witnesses, as version 1 did."""

    def change(value: Json) -> None:
        for claim in value["claims"]:
            claim["witness"] = None

    bundle.edit_certificate(change)


# Applied afterwards.
AFTER: dict[str, Change] = {
    "state no witnesses": _unwitnessed,
    "drop the certificate": lambda bundle: bundle.certificate.unlink(missing_ok=True),
    "drop the records": lambda bundle: bundle.translated.with_name("translated.records.jsonl").unlink(True),
    "drop the losses": lambda bundle: bundle.unrelated.unlink(missing_ok=True),
    "leave out the translated text": _drop_text("evaluation"),
    "leave out the unrelated text": _drop_text("loss"),
    **{
        f"do not state {kind}": _drop_kind(kind)
        for kind in ("non-inferiority", "gain", "better-than-nulls", "unrelated-loss", "guarantee")
    },
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def apply(
    pristine: Bundle,
    folder: Path,
    before: list[Change],
    after: list[Change],
    delta: str,
) -> Bundle:
    bundle = pristine.copy(folder / "bundle")
    for change in before:
        change(bundle)
    try:
        bundle.issue(delta=delta)
    except CertifyError:  # what cannot be issued can still be forged
        bundle.forge()
    for change in after:
        if bundle.certificate.exists():
            change(bundle)
    return bundle


def status(bundle: Bundle, policy: str) -> str:
    return certify.check(bundle.path, policy=policy, engine="numpy", workers=1).tickets[0].status.value


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_denies(defect: str, pristine: Bundle, tmp_path: Path) -> None:
    bundle = apply(pristine, tmp_path, [DEFECTS[defect]], [], "0.05")
    assert status(bundle, EVERYTHING) in {"REFUTED", "INVALID", "INCONCLUSIVE"}


def _further(bundle: Bundle) -> None:
    """A fourth random draw, as good as the ticket."""
    bundle.arms.append(null_arm(bundle, "random-3"))
    bundle.records = sentences(bundle.names, len(bundle.records), **{"random-3": 18})
    for window in bundle.losses:
        window["nats"]["random-3"] = window["nats"]["random-2"]


@pytest.mark.parametrize("weakening", ["", "drop random-3", *RELABELLED])
def test_a_further_draw_is_paid_for_as_any_ticket_is(
    weakening: str, pristine: Bundle, tmp_path: Path
) -> None:
    changes = {"": [], "drop random-3": [_drop_arm("random-3")]}
    changes |= {name: [_relabel("random-3", **fields)] for name, fields in RELABELLED.items()}
    bundle = apply(pristine, tmp_path, [_further, *changes[weakening]], [], "0.05")
    # Its rows did not move, so that with a gate it is another null with a gate, which nobody chooses.
    expected = dict.fromkeys(("drop random-3", "gated"), "CERTIFIED") | {"with another seed": "INVALID"}
    assert status(bundle, EVERYTHING) == expected.get(weakening, "INCONCLUSIVE")


@settings(
    max_examples=examples(15),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    defect=st.sampled_from(sorted(DEFECTS)),
    before=st.sets(st.sampled_from(sorted(BEFORE)), max_size=2),
    after=st.sets(st.sampled_from(sorted(AFTER)), max_size=2),
    delta=st.sampled_from(["0.05", "0.5"]),
    policy=st.sampled_from([EVERYTHING, "strict"]),
)
def test_weakening_a_denied_bundle_never_certifies_it(
    pristine: Bundle,
    defect: str,
    before: set[str],
    after: set[str],
    delta: str,
    policy: str,
) -> None:
    changes = [DEFECTS[defect], *(BEFORE[name] for name in sorted(before))]
    with TemporaryDirectory() as folder:
        later = [AFTER[name] for name in sorted(after)]
        bundle = apply(pristine, Path(folder), changes, later, delta)
        assert status(bundle, policy) not in {"CERTIFIED", "ERROR"}


@pytest.mark.parametrize("weakening", [*BEFORE, *AFTER, "larger delta"])
def test_each_weakening_takes_a_certified_bundle_down(
    weakening: str, pristine: Bundle, tmp_path: Path
) -> None:
    before = [BEFORE[weakening]] if weakening in BEFORE else []
    after = [AFTER[weakening]] if weakening in AFTER else []
    bundle = apply(pristine, tmp_path, before, after, "0.5" if weakening == "larger delta" else "0.05")
    # A witness decides nothing, but a certificate states what the evidence shows, and all of it.
    expected = {"REFUTED"} if weakening == "state no witnesses" else {"INCONCLUSIVE", "INVALID"}
    assert status(bundle, EVERYTHING) in expected
