"""Replaying recorded decisions: what is true is reproduced, what was edited is not, what lacks is said."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from evaluations import evaluate_tickets  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, write_pairs  # noqa: E402

import lottery  # noqa: E402
from certify.base.errors import CertifyError, UsageError  # noqa: E402
from certify.base.records import Dtype  # noqa: E402
from certify.cli.main import run  # noqa: E402
from certify.evidence.read import TranslationRecord, iter_records, read_manifest  # noqa: E402
from certify.evidence.record import Steps  # noqa: E402
from certify.stats.path import decision, encode  # noqa: E402
from certify.tables.safefile import open_tensor, write_tensors  # noqa: E402
from certify.ticket.declared import USUAL_LAW  # noqa: E402
from certify.ticket.released import open_source  # noqa: E402
from lottery.cli import replay as replaying  # noqa: E402
from lottery.evaluation.forced_decoding import Certainty  # noqa: E402
from lottery.evaluation.recurrence import Case, Comparison, Redecided, Replayed, Result, tolerance_of  # noqa: E402
from lottery.evaluation.replay import replay  # noqa: E402

TABLE = "model.embed_tokens.weight"
LANGUAGES = ("en", "ca")
IDS = sorted(PIECES.index(piece) for piece in (":", "\n", " ", "a"))
Run = Callable[..., tuple[Replayed, ...]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("text") / "dev", 8)


@pytest.fixture(scope="module")
def world(base: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reference, a ticket of one of its rows, and evidence about it."""
    folder = tmp_path_factory.mktemp("world")
    table = np.array(open_tensor(base / "model.safetensors", TABLE))
    table[IDS[0]] += np.random.default_rng(0).standard_normal(table.shape[1]) * 0.3
    # Rows outside are permuted: KS sees nothing, steps are certified, and the model decides otherwise.
    for i in IDS[1:]:
        table[i] = np.random.default_rng(i).permutation(table[i])
    write_tensors(folder / "tuned.safetensors", {TABLE: ("F32", table)}, None)
    rule = f"ids:{IDS[0]}"
    lottery.find(
        base,
        folder / "tuned.safetensors",
        out=folder / "tickets.json",
        ticket_id="one",
        rule=rule,
        template="labels",
    )
    evaluate_tickets(
        str(base),
        str(text),
        LANGUAGES,
        template="labels",
        reference=folder / "tuned.safetensors",
        tickets=[str(folder / "tickets.json")],
        out=folder / "dev.json",
        unit="sentence",
        attribution="nobody's",
        max_new_tokens=6,
        batch_size=4,
    )
    return folder


@pytest.fixture
def again(world: Path, base: Path, text: Path) -> Run:
    def run_it(cases: list[Case], **changes: Any) -> tuple[Replayed, ...]:
        settings: dict[str, Any] = {
            "base": str(base),
            "reference": world / "tuned.safetensors",
            "text": str(text),
        }
        evidence = changes.pop("evidence", world / "dev.json")
        return replay(open_source(str(world / "tickets.json")), evidence, cases, **(settings | changes))

    return run_it


def records(world: Path) -> list[TranslationRecord]:
    found = list(iter_records(read_manifest(world / "dev.json"), world))
    return [record for record in found if isinstance(record, TranslationRecord)]


def edited(world: Path, to: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """The evidence with its records changed and the manifest made to fit, as a forger would."""
    lines = [json.loads(line) for line in (world / "dev.records.jsonl").read_text().splitlines()]
    change(lines)
    data = "".join(
        json.dumps(line, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n" for line in lines
    ).encode()
    (to / "dev.records.jsonl").write_bytes(data)
    manifest = json.loads((world / "dev.json").read_text())
    manifest["records"]["sha256"] = hashlib.sha256(data).hexdigest()
    (to / "dev.json").write_text(json.dumps(manifest))
    return to / "dev.json"


def better(answer: dict[str, Any]) -> None:
    """Give an answer the statistics of a perfect one."""
    perfect = answer["stats"][0]
    perfect[10::3] = perfect[12::3] = perfect[11::3]
    answer.update(stats=[perfect], rules=[0, 0, 0])


def test_every_recorded_step_is_reproduced(world: Path, again: Run) -> None:
    found = records(world)
    cases = [(record.id, t) for record in found for t in range(len(record.reference.tokens))]
    wrong = {(record.id, t) for record in found for t, _ in record.arms["one.transfer"].differs}
    assert wrong, "the ticket must disagree somewhere"
    results = again(cases)
    assert [(one.record, one.step) for one in results] == cases
    assert [one.text for one in results if one.result != "REPRODUCED"] == []
    for one in results:
        assert one.found is not None
        assert (one.found.reference != one.found.arm) == ((one.record, one.step) in wrong)
        assert asdict(one)["recorded"]["p_a"] == one.recorded.p_a  # type: ignore[union-attr]


def test_labels_that_certify_must_recur(
    world: Path, base: Path, text: Path, again: Run, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"template": "labels", "unit": "sentence", "max_new_tokens": 6}
    settings |= {"reference": world / "tuned.safetensors", "tickets": [str(world / "tickets.json")]}
    out = tmp_path / "dev.json"
    evaluate_tickets(str(base), str(text), LANGUAGES, out=out, path=USUAL_LAW, **settings)
    cases = [(one.id, t) for one in records(tmp_path) for t in range(len(one.reference.tokens))]
    assert {one.result for one in again(cases, evidence=out)} == {"REPRODUCED"}
    victim, step = next(
        (record, t)
        for record in records(tmp_path)
        for t, labels in enumerate(record.arms["one.transfer"].path or ())
        if not decision(labels, 16, 2).certified and t in dict(record.arms["one.transfer"].differs)
    )
    said, best = dict(victim.arms["one.transfer"].differs)[step], victim.reference.argmaxes()[step]

    def forge(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["id"] == victim.id:
                line["arms"]["one.transfer"]["path"][step] = f"{best}*8,{said}*1,{best}*10"

    (tmp_path / "forged").mkdir()
    (result,) = again([(victim.id, step)], evidence=edited(tmp_path, tmp_path / "forged", forge))
    assert result.result == "NOT_REPRODUCED"
    assert "do not certify" in result.text


def test_steps_along_an_own_output_must_recur(
    world: Path, base: Path, text: Path, again: Run, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"template": "labels", "unit": "sentence", "max_new_tokens": 6}
    settings |= {"reference": world / "tuned.safetensors", "tickets": [str(world / "tickets.json")]}
    out = tmp_path / "dev.json"
    evaluate_tickets(str(base), str(text), LANGUAGES, out=out, margins=True, **settings)
    cases = [(one.id, 0) for one in records(tmp_path)]
    assert {one.result for one in again(cases, evidence=out)} == {"REPRODUCED"}
    victim = next(one for one in records(tmp_path) if one.arms["one.transfer"].own.differs)  # type: ignore[union-attr]
    forgeries: dict[str, Callable[[dict[str, Any]], None]] = {
        "embed tuning decides otherwise": lambda own: own["differs"].pop(),
        "a probability along": lambda own: own["p_b"].__setitem__(0, max(0, own["p_b"][0] - 200_000)),
        "the ticket decides otherwise": lambda own: own["top"].append([len(own["tokens"]) - 1, 0]),
    }
    for number, (said, change) in enumerate(forgeries.items()):

        def forge(lines: list[dict[str, Any]], change: Callable[[dict[str, Any]], None] = change) -> None:
            for line in lines:
                if line["id"] == victim.id:
                    change(line["arms"]["one.transfer"]["own"])

        (tmp_path / str(number)).mkdir()
        path = edited(tmp_path, tmp_path / str(number), forge)
        (result,) = again([(victim.id, 0)], evidence=path)
        assert (result.result, said in result.text) == ("NOT_REPRODUCED", True), result.text


def test_a_decision_that_was_edited_is_not_reproduced(world: Path, again: Run, tmp_path: Path) -> None:
    victim, step = next(
        (record, t)
        for record in records(world)
        for t in range(len(record.reference.tokens))
        if t not in dict(record.arms["one.transfer"].differs)
    )

    def forge(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["id"] == victim.id:
                wrong = line["arms"]["one.transfer"]["differs"]
                wrong.append([step, victim.reference.tokens[step] ^ 1])
                wrong.sort()

    path = edited(world, tmp_path, forge)
    (one,) = again([(victim.id, step)], evidence=path)
    assert one.result == "NOT_REPRODUCED"
    assert "the ticket says" in one.text


def test_margins_that_were_edited_are_not_reproduced(world: Path, again: Run, tmp_path: Path) -> None:
    victim = records(world)[0]

    def forge(lines: list[dict[str, Any]]) -> None:
        steps = lines[0]["reference"]
        steps["p_a"][1] = min(10**9 - steps["p_b"][1], steps["p_a"][1] + 10**7)

    path = edited(world, tmp_path, forge)
    assert [one.result for one in again([(victim.id, 0), (victim.id, 1)], evidence=path)] == [
        "REPRODUCED",
        "NOT_REPRODUCED",
    ]
    assert again([(victim.id, 1)], evidence=path, tolerance=10**8)[0].result == "REPRODUCED"


@pytest.mark.parametrize("arm", ["base", "reference", "one.transfer", None])
def test_what_rounding_explains_is_neither_reproduced_nor_contradicted(
    world: Path, again: Run, tmp_path: Path, arm: str | None
) -> None:
    """Under a tolerance that no margin is above; a score is no matter of rounding."""
    victim = records(world)[0]

    def forge(lines: list[dict[str, Any]], *, score: bool = False) -> None:
        answer = lines[0]["arms"]["one.transfer"]
        if arm is not None:
            lines[0]["arms"][arm]["text"] += " "  # chrF counts no spaces
        else:
            answer["differs"] = [[0, victim.reference.tokens[0] ^ 1]]
        if score:
            better(answer)

    path = edited(world, tmp_path, forge)
    (one,) = again([(victim.id, 0)], evidence=path, tolerance=5 * 10**8)
    assert one.result == "WITHIN_ROUNDING"
    (one,) = again([(victim.id, 0)], evidence=path)
    assert one.result == "NOT_REPRODUCED"
    (tmp_path / "scored").mkdir()
    path = edited(world, tmp_path / "scored", lambda lines: forge(lines, score=True))
    (one,) = again([(victim.id, 0)], evidence=path, tolerance=5 * 10**8)
    assert (one.result, "is scored otherwise" in one.text) == ("NOT_REPRODUCED", True)


@pytest.mark.parametrize(("dtype", "tolerance"), [("F32", 10**5), ("F16", 7_812_500), ("BF16", 62_500_000)])
@pytest.mark.parametrize("who", ["embed tuning", "the ticket"])
@pytest.mark.parametrize(("beyond", "result"), [(0, "WITHIN_ROUNDING"), (1, "NOT_REPRODUCED")])
def test_rounding_explains_a_decision_up_to_two_tolerances(
    world: Path, dtype: Dtype, tolerance: int, who: str, beyond: int, result: str
) -> None:
    assert tolerance_of(dtype) == tolerance
    record = next(one for one in records(world) if len(one.reference.tokens) > 1)
    steps, differs = record.reference, dict(record.arms["one.transfer"].differs)
    p_a, p_b = (5 * 10**8 + tolerance + beyond, steps.p_a[1]), (5 * 10**8 - tolerance, steps.p_b[1])
    expected = steps.argmaxes()[:2]
    actual = tuple(differs.get(t, token) for t, token in enumerate(expected))
    other = {"embed tuning": (expected[0] ^ 1, expected[1]), "the ticket": (actual[0] ^ 1, actual[1])}[who]
    both = (other, actual) if who == "embed tuning" else (expected, other)
    sure, said = (Certainty(tokens, p_a, p_b) for tokens in both)
    run = Redecided(sure, said)
    made = Comparison("one.transfer", None, tolerance).compare((record.id, 1), record, {}, {record.id: run})
    assert (made.result, made.text) == (result, f"{who} decides differently already at step 0")


@pytest.mark.parametrize("changed", [9, 11], ids=["between", "beyond E*"])
@pytest.mark.parametrize(("beyond", "result"), [(0, "WITHIN_ROUNDING"), (1, "NOT_REPRODUCED")])
def test_rounding_explains_a_label_along_the_path_up_to_two_tolerances(
    world: Path, changed: int, beyond: int, result: str
) -> None:
    tolerance, record = tolerance_of("BF16"), records(world)[0]
    labels, far, near = [7] * 19, 10**9, 2 * tolerance + beyond
    answer = msgspec.structs.replace(record.arms["one.transfer"], stated_differs=(), path=(encode(labels),))
    steps, sure = Steps((7,), (), (far,), (0,)), Certainty((7,), (far,), (0,))
    record = msgspec.structs.replace(record, reference=steps, arms={**record.arms, "one.transfer": answer})
    labels[changed] = 8
    between = [[near if place == changed else far] for place in range(19) if place not in (8, 10)]
    run = Redecided(sure, sure, [encode(labels)], between)
    made = Comparison("one.transfer", USUAL_LAW, tolerance).compare(
        (record.id, 0), record, {}, {record.id: run}
    )
    assert (made.result, "do not certify" in made.text) == (result, True)


@given(
    dtype=st.sampled_from(["F32", "F16", "BF16"]),
    shares=st.lists(st.fractions(0, 1), min_size=3, max_size=6),
    data=st.data(),
    swapped=st.booleans(),
)
def test_no_rounding_within_the_tolerance_contradicts(
    world: Path, dtype: Dtype, shares: list[Fraction], data: st.DataObject, swapped: bool
) -> None:
    """Every probability of an earlier step moves by at most the tolerance, for E* or for the ticket."""
    tolerance = tolerance_of(dtype)
    # So close that many change places.
    recorded = [2 * 10**8 + int(3 * tolerance * share) for share in shares]
    moves = st.sampled_from([-tolerance, tolerance]) | st.integers(-tolerance, tolerance)
    found = [one + data.draw(moves) for one in recorded]
    record = records(world)[0]
    steps = Steps((recorded.index(max(recorded)), 0), (), (0, 0), (0, 0))
    answer = msgspec.structs.replace(record.arms["one.transfer"], stated_differs=(), path=None)
    record = msgspec.structs.replace(record, reference=steps, arms={**record.arms, "one.transfer": answer})
    second, first = sorted(found)[-2:]
    other = Certainty((found.index(first), 0), (first, 0), (second, 0))
    same = Certainty(steps.tokens, (0, 0), (0, 0))
    run = Redecided(*((same, other) if swapped else (other, same)))
    made = Comparison("one.transfer", None, tolerance).compare((record.id, 1), record, {}, {record.id: run})
    assert made.result == ("REPRODUCED" if other.argmax == steps.tokens else "WITHIN_ROUNDING")


def test_a_replay_says_what_its_exit_code_means() -> None:
    def rerun(*results: Result) -> replaying.Rerun:
        made = tuple(Replayed(str(i), 0, result, "why") for i, result in enumerate(results))
        return replaying.Rerun("one", "dev.json", made, 0, 1)

    near, wrong = rerun("REPRODUCED", "WITHIN_ROUNDING", "NOT_RUN", "NOT_RUN"), rerun("NOT_REPRODUCED")
    assert [replaying.exit_code(code, (near,)) for code in (0, 1)] == [3, 1]
    assert [replaying.exit_code(code, (near, wrong)) for code in (0, 1)] == [4, 4]
    head, such, missing, last = replaying.lines((near,))
    assert "1 reproduced, 1 as far as rounding allows, 0 not reproduced, 2 not run" in head
    assert such == "  WITHIN_ROUNDING, such as 1, step 0: why"
    assert missing == "  2 NOT_RUN: why"
    assert "exit code 3" in last
    assert "exit code 4" in replaying.lines((near, wrong))[-1]
    for reruns, code in (((near, wrong), "NOT_REPRODUCED"), ((near,), "WITHIN_ROUNDING"), ((), "NOT_RUN")):
        assert replaying.gravest({"reports": [{"replay": replaying.data(reruns)}, {}]}) == code


@pytest.mark.parametrize("arm", ["base", "reference", "one.transfer"])
def test_an_output_in_other_words_is_not_reproduced(
    world: Path, again: Run, tmp_path: Path, arm: str
) -> None:
    victim = records(world)[0]

    def forge(lines: list[dict[str, Any]]) -> None:
        lines[0]["arms"][arm]["text"] += "x"

    (one,) = again([(victim.id, 0)], evidence=edited(world, tmp_path, forge))
    assert one.result == "NOT_REPRODUCED"
    assert f"{arm} says something other" in one.text


def test_a_better_score_of_the_same_output_is_not_reproduced(world: Path, again: Run, tmp_path: Path) -> None:
    def forge(lines: list[dict[str, Any]]) -> None:
        better(lines[0]["arms"]["one.transfer"])

    (one,) = again([(records(world)[0].id, 0)], evidence=edited(world, tmp_path, forge))
    assert (one.result, "one.transfer is scored otherwise" in one.text) == ("NOT_REPRODUCED", True)


def test_an_output_that_embed_tuning_does_not_give_is_not_reproduced(
    world: Path, again: Run, tmp_path: Path
) -> None:
    victim = next(record for record in records(world) if len(record.reference.tokens) > 3)

    def forge(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["id"] == victim.id:
                line["reference"]["tokens"][0] = line["reference"]["tokens"][0] ^ 1

    path = edited(world, tmp_path, forge)
    (one,) = again([(victim.id, 3)], evidence=path)
    assert one.result == "NOT_REPRODUCED"
    assert "differently already at step 0" in one.text


def test_without_the_text_only_sentences_that_travel_are_run(world: Path, again: Run, tmp_path: Path) -> None:
    first, second = records(world)[:2]

    def silence(lines: list[dict[str, Any]]) -> None:
        del lines[1]["witness"]

    path = edited(world, tmp_path, silence)
    results = again([(first.id, 0), (second.id, 0), (first.id, 999), ("nobody", 0)], evidence=path, text=None)
    assert [one.result for one in results] == ["REPRODUCED", "NOT_RUN", "NOT_RUN", "NOT_RUN"]
    assert "name the text" in results[1].text


def test_another_text_under_the_same_ids_is_not_run(world: Path, again: Run, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "dev", 8, first=50)
    (one,) = again([(records(world)[0].id, 0)], text=str(other))
    assert (one.result, one.text) == ("NOT_RUN", "the text has another sentence under this id")


def test_other_models_and_templates_are_refused(world: Path, again: Run, tmp_path: Path) -> None:
    cases = [(records(world)[0].id, 0)]
    other = save_checkpoint(tmp_path / "other", seed=1)
    for changes, code in (
        ({"base": str(other)}, "WRONG_BASE"),
        ({"template": "explicit"}, "EVIDENCE_TEMPLATE"),
    ):
        with pytest.raises(CertifyError) as error:
            again(cases, **changes)
        assert error.value.code == code
    with pytest.raises(UsageError):
        again(cases, tolerance=-1)


def test_other_layers_around_the_same_table_are_refused(
    world: Path, again: Run, base: Path, tmp_path: Path
) -> None:
    """Same input table, other weights behind it: only the digest of the rest of the checkpoint tells."""
    from tiny_llama import tiny_llama

    model = tiny_llama(seed=1)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(
            torch.from_numpy(np.array(open_tensor(base / "model.safetensors", TABLE)))
        )
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    with pytest.raises(CertifyError) as error:
        again([(records(world)[0].id, 0)], base=str(tmp_path))
    assert error.value.code == "EVIDENCE_MODEL"


def test_the_gate_replays_the_violations_that_it_counts(
    world: Path, base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("*.parts"))
    tables = ["--base", str(base), "--tokenizer", str(base)]
    ticket = ["--ticket", str(folder / "tickets.json")]

    def check(*more: str) -> tuple[int, dict[str, Any]]:
        issue = ["issue", *ticket, *tables, "--evidence", str(folder / "dev.json")]
        assert run([*issue, "--out", str(folder / "certificate.json"), "--attach"]) == 0
        capsys.readouterr()
        code = run(["check", *ticket, *tables, "--policy", "paper", "--format", "json", *more])
        shown = capsys.readouterr()
        assert shown.out, shown.err
        return code, json.loads(shown.out)

    plain, report = check()
    assert "replay" not in report
    code, report = check("--replay", str(base), "--text", str(text))
    assert code == report["exit_code"] == plain
    (rerun,) = report["replay"]
    assert rerun["results"], "some certified step must disagree"
    assert {one["result"] for one in rerun["results"]} == {"REPRODUCED"}
    violations = rerun["results"][: len(rerun["results"]) - rerun["drawn"]]
    counted = {(one["record"], one["step"]) for one in violations}
    assert rerun["drawn"] == len(records(world)) < replaying.SAMPLE

    # One violation less and one more: the certificate fits the forged evidence, the model does not.
    victim, step = min(counted)

    def forge(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["id"] == victim:
                wrong = dict(line["arms"]["one.transfer"]["differs"])
                wrong[step] ^= 1 if wrong[step] ^ 1 != line["reference"]["tokens"][step] else 2
                line["arms"]["one.transfer"]["differs"] = sorted(map(list, wrong.items()))

    edited(world, folder, forge)
    assert check()[0] == plain, "nothing but a replay can tell"
    code, report = check("--replay", str(base), "--text", str(text))
    assert code == 4
    results = report["replay"][0]["results"]
    assert {one["record"] for one in results if one["result"] != "REPRODUCED"} == {victim}

    # No violation at all: what is drawn finds it.
    def agree(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            line["arms"]["one.transfer"]["differs"] = []

    edited(world, folder, agree)
    code, report = check("--replay", str(base))
    assert code == 4
    results = report["replay"][0]["results"]
    assert {one["record"] for one in results if one["result"] != "REPRODUCED"} == {one for one, _ in counted}


def test_a_replay_that_ran_nothing_certifies_nothing(world: Path, again: Run, tmp_path: Path) -> None:
    def silent(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            del line["witness"]

    evidence = edited(world, tmp_path, silent)
    results = again([], evidence=evidence, text=None, sample=3, seed=1)
    assert [one.result for one in results] == ["NOT_RUN"] * 3
    rerun = replaying.Rerun("one", "dev.json", results, 3, 1)
    for nothing in ((), (rerun,)):
        assert replaying.exit_code(0, nothing) == 3
        assert replaying.exit_code(1, nothing) == 1
    assert [one.record for one in again([], sample=3, seed=2)] != [one.record for one in results]
