"""The independent checker: alone it must come to what the package comes to, from files it cannot trust.

Numbers are compared with the package's own (which have oracles of their own), verdicts with planted faults
whose answer is known; that ``certify check`` and the checker agree on every planted ticket is part of
:mod:`test_planted`, because a difference there is an error.
"""

from __future__ import annotations

import ast
import hashlib
import json
import lzma
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from evidence_folders import TICKET_ARM, Bundle, make_bundle, sentences
from evidence_truth import worlds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples
from ticket_folders import edit, make_ticket
from ticket_strategies import damage, tickets

import certify
from certify import checker
from certify.base import enclosure
from certify.base.assumptions import ASSUMPTIONS
from certify.base.errors import CertifyError
from certify.checker import audit, claims, declared, scan, shapes, tables, units, verdict
from certify.claims import agreement, every, loss, quality
from certify.claims.criteria import drawn_index
from certify.claims.registry import KINDS
from certify.cli import archive
from certify.evidence.null_labels import GROUPS, NULLS
from certify.evidence.sampling import LARGEST_SHARE
from certify.evidence.sentence_scores import sentence_chrf
from certify.policy import policy
from certify.scan import multiplicity, smirnov
from certify.stats import betting, path, rates
from certify.tables import dtypes
from certify.ticket.declared import StrengthLaw
from certify.ticket.schema import Ticket
from certify.ticket.templates import load_template, template_names
from proofs_checks.worlds import synthetic

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Path(checker.__file__).parent
EXAMPLE = ROOT / "reports" / "published" / "en-ca-second" / "tickets"
LEVELS = st.sampled_from(("0.05", ".01", "0.5", "0.95", "0.001"))
DELTAS = st.fractions(Fraction(1, 1000), Fraction(1, 2), max_denominator=1000)
DESIGNS = st.sampled_from(("fixed", "sequential"))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Bundle:
    return pristine.copy(tmp_path / "copy")


def statuses(path: Path) -> dict[str, str]:
    """Status of the only ticket under each policy."""
    (verdicts,) = checker.verify(path.parent, path.name).values()
    return {name: opinion.status for name, opinion in verdicts.items()}


def alone(folder: Path | str, *options: str, script: Path = SOURCE) -> subprocess.CompletedProcess[str]:
    """The checker as a process that finds neither this project nor any installed package."""
    command = [sys.executable, "-I", "-S", str(script), str(folder), "--quiet", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")


# --- what it is made of ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.py")), ids=lambda path: path.name)
def test_it_imports_the_standard_library_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            own = node.level == 1 and (SOURCE / f"{node.module}.py").is_file()
            assert own or (not node.level and str(node.module).partition(".")[0] in sys.stdlib_module_names)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"__import__", "eval", "exec", "open"}


def test_it_runs_where_nothing_is_installed_and_copied_anywhere(pristine: Bundle, tmp_path: Path) -> None:
    script = tmp_path / "anything.pyz"
    archive.write(script)
    ran = alone(pristine.folder, script=script)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "".join(f"tiny {name} CERTIFIED\n" for name in verdict.SHIPPED)
    again = tmp_path / "again.pyz"
    assert archive.write(again) == archive.write(script), "the same program has the same digest"


def test_it_says_its_progress(pristine: Bundle) -> None:
    command = [sys.executable, "-I", "-S", str(SOURCE), str(pristine.folder), "--policy", "release"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd="/")
    assert ran.stdout == "tiny release CERTIFIED\n"
    assert [line.partition(": ")[0] for line in ran.stderr.splitlines()] == ["checker"] * 7
    assert f"not read: {verdict.NOT_READ}" in ran.stderr


def test_a_policy_of_ones_own(pristine: Bundle, tmp_path: Path) -> None:
    text = (ROOT / "certify" / "policy" / "release.toml").read_text(encoding="utf-8")
    own = tmp_path / "own.toml"
    own.write_text(text.replace('name = "release"', 'name = "own"', 1), encoding="utf-8")
    assert alone(pristine.folder, "--policy", str(own)).stdout == "tiny own CERTIFIED\n"
    own.write_text(own.read_text(encoding="utf-8").replace('above = "0"', 'above = "99"'), encoding="utf-8")
    assert alone(pristine.folder, "--policy", str(own)).returncode == 1


def test_the_shipped_example(tmp_path: Path) -> None:
    ran = alone(EXAMPLE, "--policy", "selection", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    tickets = json.loads((EXAMPLE / "tickets.json").read_text(encoding="utf-8"))["tickets"]
    assert {name: one["selection"][0] for name, one in found.items()} == {
        one["id"]: "CERTIFIED" for one in tickets
    }
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    with (folder / "reference" / "embed_tokens.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x00")
    ran = alone(folder, "--policy", "selection")
    assert (ran.returncode, ran.stderr) == (4, "")
    assert {line.split()[2] for line in ran.stdout.splitlines()} == {"INVALID"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("items = [", "ignored = ["),
        ("[[claim]]", "[[claims]]"),
        ("delta = ", "# delta = "),
        ('"evidence.split",', ""),
        ('"evidence.split",', '"evidence.split", "evidence.split",'),
        ('above = "0"', 'above = "1e999999999"'),
        ('above = "0"', 'above = "0"\nnote = "x"'),
        ('extends = "selection"', 'extends = "own"'),
        ("[[claim]]", '[text]\nx = "1"\n\n[[claim]]'),
        ("design = [", 'design = ["A-NONE", '),
        ("design = [", 'design = ["A-UNTIED", '),
        ("[[claim]]", 'accept = ["A-NONE"]\n\n[[claim]]'),
        ("[[claim]]", 'accept = ["A-UNITS"]\n\n[[claim]]'),
        ("[[claim]]", 'accept = ["A-ASYMPTOTIC"]\n\n[[claim]]'),
        ("[[claim]]", 'accept = [["A-CAP"]]\n\n[[claim]]'),
        ("[[claim]]", '[texts]\nx = "1"\n\n[[claim]]'),
        ('"evidence.split",', '"evidence.split", "evidence.joy",'),
        ('"gain:base:declared"', '"gain"'),
        ('"gain:base:declared"', '"corpus-bleu:base:whole"'),
        ('above = "0"', 'at_most = "99"'),
        ('above = "0"', 'finding = "held"'),
        ('above = "0"', 'above = "0"\ntexts = []'),
    ],
)
def test_it_refuses_the_policies_that_the_gate_refuses(tmp_path: Path, old: str, new: str) -> None:
    text = (ROOT / "certify" / "policy" / "release.toml").read_text(encoding="utf-8")
    assert old in text
    own = tmp_path / "own.toml"
    own.write_text(text.replace('"release"', '"own"', 1).replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CertifyError):
        policy.get_policy(str(own))
    with pytest.raises(tables.Stop) as refused:
        checker.verify(EXAMPLE, policies=[str(own)])
    assert refused.value.args[0] == "INVALID"


@pytest.mark.parametrize("items", ["", '"checker.agrees"'])
def test_it_refuses_a_policy_that_asks_for_nothing_but_agreement(tmp_path: Path, items: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        f'schema = "certify.policy"\nschema_version = 1\nname = "own"\nquestion = "?"\nitems = [{items}]\n'
    )
    with pytest.raises(CertifyError):
        policy.get_policy(str(own))
    with pytest.raises(tables.Stop) as refused:
        checker.verify(EXAMPLE, policies=[str(own)])
    assert refused.value.args == ("INVALID", "POLICY_EMPTY")


OWN = """
schema = "certify.policy"
schema_version = 1
name = "own"
question = "Is it?"
extends = "strict"
delta = "0.01"
design = ["A-UNITS"]
items = ["checker.agrees"]
claim = [{name = "gain:base:cut", at_least = "2"}]
"""


@pytest.mark.parametrize("name", [*policy.SHIPPED, "own"])
def test_it_reads_a_policy_as_the_gate_does(name: str) -> None:
    ours, theirs = (
        (verdict.policy(OWN.encode()), policy.parse_policy(OWN.encode()))
        if name == "own"
        else (verdict.named(name), policy.get_policy(name))
    )
    assert (ours.name, ours.items, ours.taken) == (name, theirs.items, theirs.taken)
    assert ours.delta == (theirs.delta or 1)
    for mine, its in zip(ours.claims, theirs.claims, strict=True):
        assert (mine.name, mine.texts) == (its.claim, its.texts)
        assert (mine.finding or its.test, mine.strict) == (its.test, its.test in ("above", "below"))
        sign = -1 if its.test in ("at_most", "below") else 1
        assert mine.threshold == (None if its.threshold is None else sign * its.threshold)


def test_its_constants_are_those_of_the_package() -> None:
    known = {key: {*kind.strip("=*").split("|")} for key, kind in shapes.keys("policy")[0].items()}
    assert known["design"] == policy.DESIGN
    assert known["accept"] == ASSUMPTIONS.keys() - policy.DESIGN - policy.INFORMATIVE
    assert dict(NULLS) == dict(claims.NULLS)
    assert list(NULLS) == list(claims.NULLS), "the order decides ties"
    assert dict(GROUPS) == dict(declared.GROUPS)
    assert dict.fromkeys(NULLS) == dict.fromkeys(one for group in GROUPS.values() for one in group)
    assert (verdict.SHIPPED, verdict.DEFAULT) == (policy.SHIPPED, policy.DEFAULT_POLICY)
    assert (loss.CAP, LARGEST_SHARE) == (claims.CAP, claims.LARGEST)
    aims = {**quality.AIMS, "token-agreement": agreement.AIM, "unrelated-loss": -loss.AIM}
    assert aims == claims.AIMS
    assert {
        name: ({v.comparator for v in kind.variants}, {v.extraction for v in kind.variants} - {None})
        for name, kind in KINDS.items()
        if kind.tests
    } == {name: ({*comparators}, {*rules}) for name, (comparators, rules) in declared.COMPARED.items()}
    folder = tables.Folder(ROOT)
    for name in template_names():
        ref = {"name": name, "path": None, "sha256": load_template(name).digest()}
        folder.template(ref)
        with pytest.raises(tables.Stop):
            folder.template(ref | {"sha256": "0" * 64})


# --- numbers -----------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.data())
def test_clopper_pearson(n: int, data: st.DataObject) -> None:
    k, delta = data.draw(st.integers(0, n)), data.draw(DELTAS)
    upper = Fraction(units.rate_upper(k, n, delta), units.RATES)
    assert upper == rates.clopper_pearson(k, n, delta, "upper")[1]
    alpha = data.draw(st.fractions(Fraction(1, 100), Fraction(99, 100), max_denominator=100))
    tail = units.tail(k, n, alpha)
    assert tail == rates.binomial_tail_at_most(k, n, alpha)
    hair = Fraction(1, 10**70)  # ties, and what sixty digits cannot tell from them
    for level in (delta, tail, tail - hair, tail + hair):
        if 0 < level < 1:
            assert units.compared(k, n, alpha, level) == (tail > level) - (tail < level)


@settings(max_examples=examples(40))
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), DELTAS, DESIGNS, st.integers(1, 99))
def test_betting(twelfths: list[int], delta: Fraction, design: Any, percent: int) -> None:
    aim = Fraction(percent, 100)
    values = [Fraction(one, 12) for one in twelfths]
    whole = [(one << 32) // 12 for one in twelfths]
    limit = betting.betting_lower(values, delta, design, aim=aim).value
    index = units.betting_lower(whole, delta, design, aim)
    assert Fraction(index, units.MEANS) == limit
    for hint in (index, index + 1, index - 1, 0, units.MEANS, -3, "x"):
        assert units.betting_lower(whole, delta, design, aim, hint) == index, "a hint is never believed"


_ORDER = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)).map(
    lambda one: (one[0], one[1], min(one))
)


@given(st.lists(_ORDER, min_size=8, max_size=8))
def test_chrf(orders: list[tuple[int, int, int]]) -> None:
    vector = [0] * 10 + [count for order in orders for count in order]
    assert units.chrf(vector) == sentence_chrf(vector)


@given(
    st.fractions(Fraction(1, 50), 12, max_denominator=10**9),
    st.fractions(Fraction(1, 1000), 1000, max_denominator=1000),
)
def test_logarithms(value: Fraction, x: Fraction) -> None:
    if x != 1:
        assert scan.exceeds_log(value, x) == enclosure.exceeds_log(value, x)


@pytest.mark.parametrize("alpha", ["0.05", "0.3", "0.9999"])
def test_a_logarithm_to_the_last_digit(alpha: str) -> None:
    # Rationals a hair above and below ln(2/alpha), which 40 digits cannot tell apart.
    low, high = enclosure.log_enclosure(2 / Fraction(alpha), bits=400)
    assert not scan.exceeds_log(low, 2 / Fraction(alpha))
    assert scan.exceeds_log(high, 2 / Fraction(alpha))


@given(st.integers(1, 40), st.data())
def test_the_exact_law_and_its_rounding(n: int, data: st.DataObject) -> None:
    h = data.draw(st.integers(0, n))
    assert scan.p_exact(h, n) == smirnov.p_exact(h, n)


@settings(max_examples=examples(40))
@given(
    st.integers(2, 40),
    st.lists(st.integers(0, 40), max_size=30),
    LEVELS,
    st.sampled_from(("none", "bonferroni", "holm", "bh", "by")),
    st.sampled_from(("exact", "asymptotic")),
)
def test_corrections(n: int, counts: list[int], alpha: str, correction: Any, method: Any) -> None:
    h = np.array([min(one, n) for one in counts], np.int64)
    theirs = multiplicity.rejected(h, n, alpha, correction, method)
    ranked = sorted(h.tolist(), reverse=True)
    assert scan.rejected(ranked, n, Fraction(alpha), correction, method) == theirs.sum()


@given(st.sampled_from(("F32", "F16", "BF16")), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8))
def test_rows_are_decoded_and_rounded_as_the_package_does(dtype: Any, patterns: list[int]) -> None:
    raw = np.array(patterns, np.uint32).view(np.dtype("<f4"))
    values = raw[np.isfinite(raw)]
    theirs = dtypes.cast(values, "F32", dtype)
    if values.size and dtypes.finite_mask(theirs, dtype).all():
        row = tables.pack(tables.numbers(values.tobytes(), "F32"), dtype)
        assert row == theirs.tobytes()
        wide = dtypes.to_float32(theirs, dtype).astype(float)
        assert list(tables.numbers(row, dtype)) == wide.tolist()


@given(st.integers(1, 6), st.data())
def test_ks_counts_against_every_threshold(n: int, data: st.DataObject) -> None:
    entries = st.lists(st.sampled_from((-1.0, -0.0, 0.0, 0.5, 2.0)), min_size=n, max_size=n)
    x, y = data.draw(entries), data.draw(entries)
    h = max(abs(sum(a <= t for a in x) - sum(b <= t for b in y)) for t in x + y)
    rows = [np.array(values, np.dtype("<f2")).tobytes() for values in (x, y)]
    found, norm, _ = scan.compare(rows[0], rows[1], "F16")
    assert found == h
    assert norm == pytest.approx(float(np.linalg.norm(np.array(x) - np.array(y))))


def test_units_that_are_no_shares_are_refused() -> None:
    with pytest.raises(tables.Stop):
        units.betting_lower([1 << 33], Fraction(1, 20), "fixed", Fraction(1, 2))
    with pytest.raises(tables.Stop):
        tables.numbers(np.array([np.nan], np.float32).tobytes(), "F32")


# --- verdicts ----------------------------------------------------------------------------------------------


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), design=DESIGNS, alpha=st.sampled_from(("0.05", "0.5")))
def test_every_claim_of_drawn_evidence_is_computed_alike(
    pristine: Bundle, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, design: str, alpha: str
) -> None:
    # The certificate states what the package computed from records in which every decision was drawn.
    drawn = pristine.copy(tmp_path_factory.mktemp("drawn") / "folder")
    drawn.edit_ticket(lambda ticket: ticket["selection"].update(alpha=alpha))
    law = StrengthLaw(n=4, g=data.draw(st.integers(1, 2)))
    claim = {"kind": "guarantee", "comparator": "path", "path": law.model_dump()}
    drawn.edit_ticket(lambda ticket: ticket["declared"].append(claim))
    drawn.records = data.draw(worlds(max_units=3, arms=drawn.names))
    for record in drawn.records:
        ours = record["arms"][TICKET_ARM]
        ours["differs"] = [[t, 50] for t, _ in ours["differs"]]  # an id of the table
        ours["path"] = [data.draw(_labels(law, *ends)) for ends in _ends(record)]
    text = synthetic.manifest(drawn.records, drawn.arms)["text"] | {"unit": "document"}
    if design == "sequential":  # all of its units, so that none was picked
        text["unit"] = "sentence"
        for number, record in enumerate(drawn.records):
            record["unit"] = str(number)
    drawn.fields = {"design": design, "text": text, "path": law.model_dump()}
    nats = st.integers(0, 10**12)
    drawn.losses = [
        synthetic.window(number, {name: data.draw(nats) for name in drawn.names}, unit=str(number // 2))
        for number in range(data.draw(st.integers(1, 4)))
    ]
    unrelated = synthetic.manifest(drawn.losses, drawn.arms)["text"]
    drawn.loss_fields = {"text": unrelated | {"name": "unrelated", "unit": "block:2"}}
    with patch.object(every, "LARGEST_SHARE", 1), patch.object(claims, "LARGEST", 1):  # units are few here
        drawn.issue()
        folder = tables.Folder(drawn.folder)
        one = audit.Audit(folder, tables.parse(drawn.path.read_bytes())["tickets"][0], None, None)
        one.examine()
    assert one.items["certificate.claims"] == ("", "")
    assert len(one.stated) == len(json.loads(drawn.certificate.read_bytes())["claims"]) > 9


def _ends(record: Any) -> list[tuple[int, int]]:
    """What the ticket's arm and the reference decide, step by step."""
    best = dict(enumerate(record["reference"]["tokens"])) | dict(record["reference"]["top"])
    said = dict(record["arms"][TICKET_ARM]["differs"])
    return [(said.get(t, best[t]), best[t]) for t in sorted(best)]


@st.composite
def _labels(draw: st.DrawFn, law: StrengthLaw, released: int, tuned: int) -> str:
    """Labels along a path, most often those of its ends."""
    found = draw(st.lists(st.sampled_from([released, tuned, tuned, 5]), min_size=law.n + law.g + 1))
    found = found[: law.n + law.g + 1]
    found[law.n // 2], found[law.n // 2 + law.g] = released, tuned
    return path.encode(found)


@given(st.integers(1, 8), st.data())
def test_the_path_theorem(half: int, data: st.DataObject) -> None:
    n, g = 2 * half, data.draw(st.integers(1, 2 * half))
    found = data.draw(st.lists(st.integers(0, 2), min_size=n + g + 1, max_size=n + g + 1))
    decided = path.decide(found, n, g)
    assert units.along(path.encode(found), n, g) == (found, decided.certified, decided.violation)


@pytest.mark.parametrize("text", ["5*2,5*2", "5*5", "5*3", "-5*4", "5*04", "5*9,6*-5", "5", "٥*4"])
def test_labels_are_spelled_in_one_way(text: str) -> None:
    assert tables.answer(units.along, text, 2, 1)[1][0] == "INVALID"


def test_the_step_that_is_drawn() -> None:
    record = synthetic.sentence(3, {name: synthetic.Behaviour() for name in ("base", "reference", "t")})
    record["arms"]["t"]["differs"] = [[1, 99]]
    evidence = object.__new__(units.Evidence)
    evidence.units = {"u": [record]}
    wanted = drawn_index("u", 3) == 1
    assert evidence.drawn("t", "0.05", {}, 32)["additive"] == [wanted]


def _worse(bundle: Bundle) -> None:
    bundle.records = sentences(bundle.names, 90, **{TICKET_ARM: 5})
    bundle.issue()


def _disagrees(bundle: Bundle) -> None:
    for record in bundle.records:
        record["arms"][TICKET_ARM]["differs"] = [[0, 99]]
    bundle.issue()


def _truncated(bundle: Bundle) -> None:
    file = bundle.folder / "evidence" / "translated.records.jsonl"
    file.write_bytes(file.read_bytes()[:-1])


def _edited(bundle: Bundle) -> None:
    bundle.edit_certificate(lambda value: value["claims"][0].update(n=91))


def _tuned_on(bundle: Bundle) -> None:
    bundle.used = {"tuning": [bundle.records[3]["target"]]}
    bundle.forge()


def _left_out(bundle: Bundle) -> None:
    bundle.issue([bundle.translated, bundle.paraphrased])


def _blocks(bundle: Bundle) -> None:
    bundle.records = sentences(bundle.names, 180)
    for number, record in enumerate(bundle.records):
        record["unit"] = str(number // 2)
    bundle.fields["text"] = synthetic.manifest(bundle.records, bundle.arms)["text"] | {"unit": "block:2"}
    bundle.issue()


def _documents(bundle: Bundle) -> None:
    """Documents of different lengths, by the names that a person gave them: no shipped policy takes these."""
    for number, record in enumerate(bundle.records):
        record["unit"] = f"news/{number % 84}"
    bundle.fields["text"] = synthetic.manifest(bundle.records, bundle.arms)["text"] | {"unit": "document"}
    bundle.issue()


def _sentences_twice(bundle: Bundle) -> None:
    """A sentence again, under another id and in a unit of its own."""
    bundle.records[5]["source"] = bundle.records[2]["source"]
    bundle.forge()


def _window_twice(bundle: Bundle) -> None:
    """A window again, as another unit that was cut from another line."""
    bundle.losses[5]["window"] = bundle.losses[2]["window"]
    bundle.forge()


def _line_twice(bundle: Bundle) -> None:
    bundle.losses[5]["lines"] = bundle.losses[2]["lines"]
    bundle.forge()


def _tuned_on_line(bundle: Bundle) -> None:
    bundle.used = {"tuning": bundle.losses[3]["lines"]}
    bundle.forge()


def _loss_of_unknown_use(bundle: Bundle) -> None:
    bundle.loss_used = {"scan": [synthetic.digest("scanned")[:16]]}
    bundle.issue()


def _no_lines(bundle: Bundle) -> None:
    bundle.losses[5]["lines"] = []
    bundle.forge()


def _passages(bundle: Bundle) -> None:
    """Units of two windows that were cut from the same lines."""
    pairs = zip(bundle.losses, [synthetic.window(90 + i, {}) for i in range(len(bundle.losses))], strict=True)
    twins = [[one, one | {key: two[key] for key in ("id", "window")}] for one, two in pairs]
    bundle.losses = [window for unit in twins for window in unit]
    bundle.issue()


def _ordered_by_a_name(bundle: Bundle) -> None:
    """A field of translations, by which units would be ordered as somebody likes."""
    for window in bundle.losses:
        window["source"] = window["id"]
    bundle.forge()


def _other_ticket(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda ticket: ticket["tokens"][0].update(h=0))


def _half_a_margin(bundle: Bundle) -> None:
    bundle.records[0]["reference"]["p_a"][0] = 0.5
    bundle.forge()


def _impossible(bundle: Bundle) -> None:
    bundle.records[0]["arms"][TICKET_ARM]["stats"][0][12] = 99
    bundle.forge()


def _picked(bundle: Bundle) -> None:
    text = synthetic.manifest(bundle.records, bundle.arms)["text"] | {"sentences": 200}
    bundle.fields |= {"design": "sequential", "text": text}
    bundle.forge()


def _drawn(bundle: Bundle) -> None:
    order = sorted(range(200), key=lambda unit: hashlib.sha256(f"0:{unit}".encode()).hexdigest())
    for record, unit in zip(bundle.records, order, strict=False):
        record["unit"] = str(unit)
    text = synthetic.manifest(bundle.records, bundle.arms)["text"] | {"sentences": 200}
    bundle.fields |= {"design": "sequential", "text": text}
    bundle.issue()


def _packed(bundle: Bundle) -> None:
    file = bundle.folder / "evidence" / "translated.records.jsonl"
    (file.parent / f"{file.name}.xz").write_bytes(lzma.compress(file.read_bytes()))
    file.unlink()


def _packed_and_damaged(bundle: Bundle) -> None:
    _packed(bundle)
    file = bundle.folder / "evidence" / "translated.records.jsonl.xz"
    file.write_bytes(file.read_bytes()[:-40])


# Statuses under selection, paper, release, drop-in, science, strict.
FAULTS: dict[str, tuple[Callable[[Bundle], object], Sequence[str]]] = {
    "worse than embed tuning": (_worse, ("CERTIFIED", "CERTIFIED", *("REFUTED",) * 4)),
    "disagrees at certified steps": (_disagrees, ("CERTIFIED", "REFUTED", *("CERTIFIED",) * 3, "REFUTED")),
    "records cut off": (_truncated, ("CERTIFIED", *("INVALID",) * 5)),
    "a claim edited": (_edited, ("CERTIFIED", *("REFUTED",) * 5)),
    "evaluated on what was tuned on": (_tuned_on, ("CERTIFIED", *("INVALID",) * 5)),
    "no unrelated text": (
        _left_out,
        ("CERTIFIED", "CERTIFIED", "INCONCLUSIVE", "INCONCLUSIVE", "CERTIFIED", "INCONCLUSIVE"),
    ),
    "blocks of unknown documents": (_blocks, (*("CERTIFIED",) * 5, "INCONCLUSIVE")),
    "documents": (_documents, ("CERTIFIED", *("INCONCLUSIVE",) * 5)),
    "a sentence that is there twice": (_sentences_twice, ("CERTIFIED", *("INVALID",) * 5)),
    "a window that is there twice": (_window_twice, ("CERTIFIED", *("INVALID",) * 5)),
    "a line in two units": (_line_twice, ("CERTIFIED", *("INVALID",) * 5)),
    "unrelated text that was tuned on": (_tuned_on_line, ("CERTIFIED", *("INVALID",) * 5)),
    "unrelated text of unknown use": (_loss_of_unknown_use, ("CERTIFIED", *("INCONCLUSIVE",) * 5)),
    "a window without lines": (_no_lines, ("CERTIFIED", *("INVALID",) * 5)),
    "windows of one passage (no fault)": (_passages, ("CERTIFIED",) * 6),
    "windows with a source": (_ordered_by_a_name, ("CERTIFIED", *("INVALID",) * 5)),
    "certificate of another ticket": (_other_ticket, ("REFUTED", *("INVALID",) * 5)),
    "a margin that is no integer": (_half_a_margin, ("CERTIFIED", *("INVALID",) * 5)),
    "units that were picked": (_picked, ("CERTIFIED", *("INVALID",) * 5)),
    "units that were drawn (no fault)": (_drawn, ("CERTIFIED",) * 6),
    "packed records (no fault)": (_packed, ("CERTIFIED",) * 6),
    "packed and cut off": (_packed_and_damaged, ("CERTIFIED", *("INVALID",) * 5)),
    "more matches than n-grams": (_impossible, ("CERTIFIED", *("INVALID",) * 5)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_gets_its_verdict(name: str, bundle: Bundle) -> None:
    assert set(statuses(bundle.path).values()) == {"CERTIFIED"}, "the control"
    act, wanted = FAULTS[name]
    act(bundle)
    assert statuses(bundle.path) == dict(zip(verdict.SHIPPED, wanted, strict=True))


def test_what_is_not_computed_again_certifies_nothing(tmp_path: Path) -> None:
    path = make_ticket(tmp_path, bundle=False)
    (verdicts,) = checker.verify(path.parent).values()
    assert verdicts["selection"][:2] == ("INCONCLUSIVE", ("NOT_GIVEN", "NOT_RUN"))
    path = make_ticket(tmp_path / "own", template="explicit")
    edit(path, lambda ticket: ticket["selection"].update(rule="published:en-ca"))
    (verdicts,) = checker.verify(path.parent).values()
    assert verdicts["selection"][0] == "INCONCLUSIVE"
    assert "NOT_RECOMPUTED" in verdicts["selection"][1]


@pytest.mark.parametrize("kind", ["npy", "sharded"])
def test_a_table_of_another_kind_is_not_computed_again(bundle: Bundle, kind: str) -> None:
    """Alone the checker abstains; in the gate it takes what needs rows, too, and says so."""
    folder = bundle.folder / "elsewhere"
    folder.mkdir()
    if kind == "npy":
        np.save(folder / "base.npy", bundle.base)
        files, table = ["base.npy"], {"path": "elsewhere/base.npy", "tensor": "", "tied": None}
    else:
        (bundle.folder / "base" / "embed_tokens.safetensors").rename(folder / "a.safetensors")
        shutil.copy(bundle.folder / "base" / "config.json", folder / "config.json")
        index = {"weight_map": {"model.embed_tokens.weight": "a.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        files, table = sorted(one.name for one in folder.iterdir()), {"path": "elsewhere"}
    bound = [
        {"path": f"elsewhere/{name}", "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name in files
    ]
    edit(bundle.path, lambda ticket: ticket["base"].update(table, files=bound))
    (verdicts,) = checker.verify(bundle.folder).values()
    assert verdicts["selection"][:2] == ("INCONCLUSIVE", ("NOT_RECOMPUTED", "NOT_RUN"))
    (ticket,) = certify.check(bundle.path, policy="selection", engine="numpy").tickets
    (item,) = (one for one in ticket.items if one.name == "checker.agrees")
    assert (ticket.status.value, "released.rows" in item.text) == ("CERTIFIED", True)


# --- what a ticket asserts ---------------------------------------------------------------------------------


def _shortest(value: Any) -> Any:
    """Without entries that are null or empty, and with whole numbers as other programs write them."""
    if isinstance(value, dict):
        return {name: _shortest(one) for name, one in value.items() if one not in (None, [])}
    if isinstance(value, list):
        return [_shortest(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() and value else value


@settings(max_examples=examples(100))
@given(ticket=tickets())
def test_what_a_ticket_asserts_does_not_depend_on_how_it_is_spelled(ticket: dict[str, Any]) -> None:
    parsed = Ticket.model_validate_json(json.dumps(ticket), strict=True)
    short = ticket | {
        name: _shortest(ticket[name]) for name in ("template", "declared", "tokens") if ticket[name]
    }
    short["selection"] = ticket["selection"] | {"tau": _shortest(ticket["selection"]["tau"])}
    for row, whole in zip(short["tokens"], ticket["tokens"], strict=True):
        row.setdefault("piece", whole["piece"])  # null, but never left out
    if not ticket["declared"]:
        del short["declared"]
    assert Ticket.model_validate_json(json.dumps(short), strict=True).digest() == parsed.digest()
    for spelled in (ticket, short):
        again = json.loads(json.dumps(spelled))
        assert tables.sha(tables.canonical(audit.asserted(again))) == parsed.digest()


def test_a_ticket_that_another_program_wrote_anew_is_the_same(bundle: Bundle) -> None:
    def shorter(ticket: dict[str, Any]) -> None:
        ticket["declared"][0] |= {"margin": None, "texts": [], "path": None}
        del ticket["template"]["path"]

    edit(bundle.path, shorter)
    assert "CERTIFICATE_OTHER_TICKET" not in str(checker.verify(bundle.folder))
    (ticket,) = certify.check(bundle.path, engine="numpy", workers=1).tickets
    assert "CHECKER_AGREES" in [item.code for item in ticket.items]


# --- hostile input -----------------------------------------------------------------------------------------


@settings(max_examples=examples(40))
@given(seed=st.integers(0, 1 << 32))
def test_damaged_tickets_break_nothing_and_get_the_verdict_of_the_gate(pristine: Bundle, seed: int) -> None:
    content = json.loads(pristine.path.read_text(encoding="utf-8"))
    path = pristine.folder / "damaged.json"
    path.write_text(json.dumps(damage(content, random.Random(seed).choice).apply(content)), encoding="utf-8")
    with suppress(tables.Stop):  # anything else that it raises is a defect
        checker.verify(pristine.folder, path.name, ["release"])
    with suppress(CertifyError):  # what the schema refuses has no verdict to compare
        (ticket,) = certify.check(path, engine="numpy", workers=1).tickets
        assert [item.text for item in ticket.items if item.code == "CHECKER_DIFFERS"] == []


@pytest.mark.parametrize("name", ["translated.json", "translated.records.jsonl", "unrelated.json"])
def test_a_flipped_bit_in_the_evidence_is_no_pass(bundle: Bundle, name: str) -> None:
    file = bundle.folder / "evidence" / name
    original = file.read_bytes()
    for place in range(7, len(original), len(original) // 5):
        data = bytearray(original)
        data[place] ^= 4
        file.write_bytes(data)
        assert statuses(bundle.path)["release"] == "INVALID", place


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schema":1}', b"\xff\xfe", b"[" * 100_000, b'{"a":NaN}', b'{"a":1,"a":1}'],
)
def test_a_hostile_ticket_file_is_one_line_and_exit_4(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tickets.json").write_bytes(content)
    ran = alone(tmp_path)
    assert (ran.returncode, ran.stderr) == (4, "")
    assert {line.split()[2] for line in ran.stdout.splitlines()} == {"INVALID"}


@pytest.mark.parametrize(
    "change", [{"schema_version": 1.0}, {"created_by": 1}, {"note": ""}, {"tickets": {}}]
)
def test_a_ticket_file_is_read_as_strictly_as_by_the_gate(bundle: Bundle, change: dict[str, Any]) -> None:
    content = json.loads(bundle.path.read_text(encoding="utf-8"))
    bundle.path.write_text(json.dumps(content | change), encoding="utf-8")
    with pytest.raises(CertifyError):
        certify.check(bundle.path, policy="selection")
    with pytest.raises(tables.Stop) as refused:
        statuses(bundle.path)
    assert refused.value.args[0] == "INVALID"


def test_an_unknown_extraction_rule_is_refused(bundle: Bundle) -> None:
    edit(bundle.path, lambda ticket: ticket.update(extraction="declared"))
    assert alone(bundle.folder).returncode == 4
    with pytest.raises(CertifyError, match="extraction"):
        certify.check(bundle.path)


def test_a_ticket_name_that_would_drive_a_terminal_is_refused(bundle: Bundle) -> None:
    edit(bundle.path, lambda ticket: ticket.update(id="a\x1b[2J"))
    ran = alone(bundle.folder)
    assert ran.returncode == 4
    assert "\x1b" not in ran.stdout


def test_the_command_line(tmp_path: Path) -> None:
    for place in (tmp_path, EXAMPLE / "tickets.json", "a\x1b[2J"):
        ran = alone(place, "--json")
        expected = f"checker: {str(place)!a}: expected the folder of tickets.json\n"
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", expected)
    ran = alone("--help")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, verdict.HELP, "")
    assert alone(tmp_path, "--policy", "none.toml").returncode == 2
    for words in ((), ("--policy",), ("--policy", "kind"), ("--policy", "paper", "x")):
        ran = alone(tmp_path, *words)
        if words:
            assert (ran.returncode, ran.stdout) == (2, "")
            assert ran.stderr.startswith("usage: ")
    empty = {"schema": "certify.tickets", "schema_version": 1, "created_by": "", "tickets": []}
    (tmp_path / "tickets.json").write_text(json.dumps(empty), encoding="utf-8")
    assert alone(tmp_path).returncode == 5


# --- what a reader could rely on ---------------------------------------------------------------------------


def figure(value: Any, **change: str) -> None:
    next(one["lower"] for one in value["claims"] if one["lower"]).update(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: figure(c, decimal="99.000000"),
        lambda c: figure(c, exact="1e999999999"),
        lambda c: c["claims"].append(c["claims"][0]),
        lambda c: c["claims"][0].update(note="x"),
        lambda c: c["claims"][0].update(signature="\x1b[2J"),
        lambda c: c.update(assumptions=[]),
        lambda c: c["parameters"].update(rule="ks2"),
        lambda c: c["parameters"].update(n=float(c["parameters"]["n"])),
        lambda c: c["parameters"].update(variation=4.0),
        lambda c: c["subjects"].reverse(),
        lambda c: c["claims"][0].update(kind="beauty"),
        lambda c: c["claims"][0].update(delta="2/40"),
        lambda c: c.update(signature=c["signature"].replace("alpha:0", "alpha:1")),
        lambda c: c.update(signature="\x1b[2J"),
        lambda c: c.update(proofs={}),
        lambda c: c.update(earlier=["0" * 64] * 65),
    ],
)
def test_what_a_certificate_displays_is_compared(bundle: Bundle, change: Callable[[Any], None]) -> None:
    bundle.edit_certificate(change)
    assert statuses(bundle.path)["release"] == "INVALID"
    assert certify.check(bundle.path, policy="release").tickets[0].status.value == "INVALID"


@pytest.mark.parametrize(
    "prose", [("assumptions", 0, "statement"), ("assumptions", 0, "status"), ("non_claims", 0)]
)
def test_the_prose_of_a_certificate_is_not_read(bundle: Bundle, prose: tuple[Any, ...]) -> None:
    def change(value: Any) -> None:
        for key in prose[:-1]:
            value = value[key]
        value[prose[-1]] = "altered"

    bundle.edit_certificate(change)
    assert statuses(bundle.path)["release"] == "CERTIFIED"
    assert certify.check(bundle.path, policy="release").tickets[0].status.value == "INVALID"


def answer(bundle: Bundle, **change: Any) -> None:
    bundle.records[0]["arms"][TICKET_ARM].update(change)


def counted(bundle: Bundle, place: int) -> None:
    answer(
        bundle, stats=[[count + 10**6 * (i == place) for i, count in enumerate(one)] for one in stats(bundle)]
    )


def stats(bundle: Bundle) -> list[list[int]]:
    found: list[list[int]] = bundle.records[0]["arms"][TICKET_ARM]["stats"]
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda b: answer(b, length=10**6),
        lambda b: answer(b, length=0),
        lambda b: answer(b, ended="no"),
        lambda b: answer(b, text=5),
        lambda b: answer(b, note=1),
        lambda b: answer(b, rules=[0, 0, 0, 0]),
        lambda b: answer(b, rules=[-1, -1, -1]),
        lambda b: answer(b, rules=[False, False, False]),
        lambda b: answer(b, stats=stats(b) * 2),
        lambda b: answer(b, tokens=[1]),
        lambda b: counted(b, 0),
        lambda b: counted(b, 2),
        lambda b: b.records[0].update(id=""),
        lambda b: b.records[0].update(note=1),
        lambda b: b.records[0].update(witness=None),
        lambda b: b.records[0]["prompt"].append(1 << 24),
        lambda b: b.records[0]["arms"]["base"].pop("tokens"),
        lambda b: b.fields.update(template=None),
        lambda b: b.fields.update(languages=None),
        lambda b: b.fields.update(order_seed=-1),
        lambda b: b.fields.update(schema_version=True),
        lambda b: b.fields.update(note="x"),
        lambda b: b.fields.update(decoding={"beams": 0, "max_new_tokens": 64, "dtype": "F32"}),
        lambda b: b.fields.update(decoding={"beams": 1, "max_new_tokens": 1, "dtype": "F32"}),
        lambda b: b.arm("base").update(ids=[1]),
        lambda b: b.arm(TICKET_ARM).update(seed=1 << 64),
        lambda b: b.arm(TICKET_ARM).update(of="no slug"),
        lambda b: b.records[0].update(witness={"source": "", "target": "x"}),
        lambda b: b.fields.update(text=synthetic.text_of(b.records) | {"name": "x", "unit": "sentence:1"}),
        lambda b: b.fields.update(signatures={"chrF": 1}),
        lambda b: b.loss_fields.update(languages=["en"]),
    ],
)
def test_it_refuses_the_evidence_that_the_gate_refuses(
    bundle: Bundle, change: Callable[[Bundle], None]
) -> None:
    change(bundle)
    bundle.forge()
    assert statuses(bundle.path)["release"] == "INVALID"
    assert certify.check(bundle.path, policy="release").tickets[0].status.value == "INVALID"


def test_a_count_that_is_no_integer_is_another(bundle: Bundle) -> None:
    bundle.edit_ticket(lambda t: t["selection"].update(tests=float(t["selection"]["tests"])))
    assert statuses(bundle.path)["selection"] == "REFUTED"
