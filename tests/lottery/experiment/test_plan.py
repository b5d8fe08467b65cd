"""Plans of experiments: the form, what is refused, which arms and steps follow, and what they would cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra tune")

from certify.base.errors import UsageError
from certify.selection.rules import published
from certify.tables.modelconfig import read_config
from lottery.experiment import driver as library
from lottery.experiment.engine.context import RunContext, resolve
from lottery.experiment.engine.graph import Input, Work
from lottery.experiment.engine.inputs import InputDigests
from lottery.experiment.layout.layout import layout
from lottery.experiment.plan.arms import null_names, planned_arms, planned_tickets
from lottery.experiment.plan.estimate import (
    Amount,
    Passes,
    assumed,
    estimate,
    factors_of,
    model_of,
    parameters_of,
    rows_of_rule,
)
from lottery.experiment.plan.fields import rows_of_share
from lottery.experiment.plan.plan import PUBLISHED, ExperimentPlan, read_experiment
from lottery.experiment.plan.witness_shares import witness_shares
from lottery.experiment.steps.texts import evaluated_pairs, prepare_text
from lottery.pretrain.plan import shipped_plans

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = (
    "en-ca-small",
    "en-ca-small-cut",
    "en-ca-small-second",
    "en-ca-small-whole",
    "gemma3-en-ca",
    "gemma3-en-es",
    "llama-7b-en-ca",
    "llama-7b-six-pairs",
    "smoke",
    "smollm2-es-en",
    "smollm2-fr-en",
    "three-pairs-small",
)
BASE_SMALL = ROOT / "reports" / "published" / "base-small"


def graph_of(plan: ExperimentPlan) -> object:
    return layout(plan, RunContext(None, None), InputDigests("", None, required=False))


def test_the_plans_that_ship() -> None:
    assert tuple(shipped_plans("pair")) == SHIPPED  # and not base-small, which is a plan of pretraining
    for name in SHIPPED:
        assert read_experiment(name).name == name


MARK = "[[declared]]"


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (ROOT / "lottery" / "plans" / "smoke.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "plan.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed = 0\n", "", "missing field seed"),
        (MARK, f'[calibration]\ntext = "test"\nalpha = "0.1"\n{MARK}', "a text of role choice"),
        (
            'choice = "synthetic:choice"',
            '\n[calibration]\ntext = "choice"\nalpha = "0.1"',
            "choice text of its",
        ),
        ("seed = 0\n", "seed = -1\n", "seed"),
        ("seed = 0\n", 'seed = "0"\n', "seed"),
        ("seed = 0\n", "seed = 0\nsead = 1\n", "unknown field sead"),
        ("seed = 0\n", "seed = 1979-05-27\n", "1979-05-27 is a date"),
        ("seed = 0\n", "seed = \n", "not TOML"),
        ("lr = 0.15", "lr = nan", "embed.lr: Input should be a finite number"),
        ("lr = 0.15", "lr = 0", "embed.lr"),
        ('source = "en"', 'source = "xx"', "unknown language"),
        ('alpha = "0.05"', "alpha = 0.05", "ticket[0].alpha"),
        ('alpha = "0.05"', 'alpha = "1.5"', "ticket[0].alpha"),
        ('correction = "bonferroni"', 'correction = "sidak"', "correction"),
        ('id = "bonferroni"', 'id = "a05"', "two entries of ticket"),
        ('id = "bonferroni"', 'id = "a b"', "ticket[1].id"),
        ('share = "81/32000"', 'share = "3/2"', "share"),
        ('share = "81/32000"', 'share = "81/32000"\nalpha = "0.1"', "leave out"),
        ('rule = "ks"', 'rule = "ks"', ""),
        ('ticket = "a05"', 'ticket = "other"', "is not a ticket of the plan"),
        ('ticket = "share"', 'ticket = "a05"', "two entries of controls"),
        ("draws = 1", "draws = 0", "controls[0].draws"),
        ("draws = 1", 'draws = 1\nkinds = ["bos"]', "kinds must be"),
        ('gates = [["source"]]', "gates = [[]]", "a gate must name"),
        ('unit = "block:3"', 'unit = "block:0"', "expected sentence, document or block:N"),
        ('name = "choice"', 'name = "test"', "two entries of text"),
        ('arms = "all"', 'arms = "some"', "text[0].arms"),
        ('arms = "all"', 'arms = "all"\npairs = ["en-de"]', "a pair that is not in the plan"),
        ('method = "lora"', 'method = "ia3"', "comparator[0].method"),
        ("seeds = [1]", "seeds = [0]", "two entries of embed.seeds"),
        ('margin = "1.0"', "margin = 1.0", "declared[0].margin"),
    ],
)
def test_a_wrong_plan_is_one_clear_line(old: str, new: str, says: str, tmp_path: Path) -> None:
    if old == new:
        old, new = 'id = "a05"', 'id = "a05"\nrule = "largest:3"'
        says = "rule must be"
    with pytest.raises(UsageError, match="plan") as caught:
        read_experiment(edited(tmp_path, old, new))
    assert caught.value.code == "PLAN_INVALID"
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_plan_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="smoke") as caught:
        read_experiment("en-ca-big")
    assert caught.value.code == "PLAN_UNKNOWN"


def test_recipes_take_the_defaults_of_their_kind() -> None:
    plan = read_experiment("llama-7b-en-ca")
    embed, partial = plan.embed.recipe("embed"), plan.partial.recipe("partial")
    assert (embed.learning_rate, embed.epochs, embed.batch_size) == (2e-5, 3, 128)
    assert (embed.schedule, embed.warmup, embed.weight_decay) == ("cosine", 0.03, 0.0)
    assert (partial.learning_rate, partial.epochs) == (1e-2, 5)
    assert plan.embed.model_copy(update={"clip": 0.0}).recipe("embed").clip is None
    assert plan.embed.recipe("embed").clip == 1.0


@pytest.mark.parametrize(
    ("rows", "share", "expected"),
    [(32000, "81/32000", 81), (6000, "81/32000", 15), (482, "81/32000", 1), (10, "1/4", 3), (10, "1/999", 1)],
)
def test_a_share_of_the_rows(rows: int, share: str, expected: int) -> None:
    assert rows_of_share(rows, share) == expected


def test_tickets_and_arms_of_the_reference_experiment() -> None:
    plan = read_experiment("en-ca-small")
    tickets = {ticket.id: ticket.arm for ticket in planned_tickets(plan)}
    assert tickets["a05"] == "a05.transfer"
    assert tickets["a05-tuned"] == "a05.tuned"
    assert tickets["a05-limited"] == "a05-limited.tuned"
    arms = {arm.name: arm for arm in planned_arms(plan)}
    assert list(arms)[:2] == ["base", "reference"]
    assert set(tickets.values()) | {"lora", "prefix", "full"} <= {a for a, arm in arms.items() if arm.main}
    controls = {(arm.control, arm.kind) for arm in arms.values() if arm.control}
    for kind in ("random", "frequency-matched"):
        for thing in ("transfer", "tuned"):
            drawn = [a for a in arms.values() if (a.control, a.kind) == (kind, thing)]
            assert len(drawn) == 3
            assert len({arm.seed for arm in drawn}) == 3
    assert {("top-frequency", "tuned"), ("top-norm", "transfer"), ("direction", "direction")} <= controls
    assert {("one-row:bos", "transfer"), ("one-row:newline", "tuned"), ("gate", "transfer")} <= controls
    # A control is held against the ticket that had the same training text.
    assert {arm.of for arm in arms.values() if arm.control and arm.kind == "tuned"} == {"a05-limited"}
    assert {arm.of for arm in arms.values() if arm.control and arm.kind != "tuned"} == {"a05"}
    assert not any(arm.main for arm in arms.values() if arm.control)


def test_without_a_limit_controls_are_held_against_the_tuned_ticket() -> None:
    plan = read_experiment("llama-7b-en-ca")
    (controls,) = plan.controls
    assert controls.limit is None
    of = {arm.of for arm in planned_arms(plan) if arm.control and arm.kind == "tuned"}
    assert of == {"published-tuned"}
    assert len(null_names(controls)) == 3 * controls.draws + 4


def test_a_ticket_and_its_nulls_can_have_a_rate_of_their_own(tmp_path: Path) -> None:
    path = edited(tmp_path, 'id = "a05"', 'id = "a05"\nlr = 0.007')
    rates = {
        step.name.split("/", 1)[1]: step.parameters["recipe"]["learning_rate"]
        for step in graph_of(read_experiment(path)).steps
        if "partial/" in step.name
    }
    assert {rate for name, rate in rates.items() if "a05" in name} == {0.007}
    assert {rate for name, rate in rates.items() if "a05" not in name} == {0.05}
    assert any(name.startswith("null-partial/a05/") for name in rates)


def test_a_base_beside_the_data_is_found_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_experiment("en-ca-small-second")
    found: list[str] = []
    monkeypatch.setattr(library, "find_base", lambda name, **_: found.append(name) or Path(name))
    monkeypatch.setattr(library, "base_digest", lambda _: "digest")
    monkeypatch.setenv("CERTIFY_DATA", str(tmp_path))
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError):  # there is no text
        library.run(plan, tmp_path / "out")
    assert found == [str(tmp_path / "models" / "en-ca-small" / "base")]
    monkeypatch.delenv("CERTIFY_DATA")
    with pytest.raises(UsageError, match="--base") as caught:
        library.run(plan, tmp_path / "out")
    assert caught.value.code == "DATA_MISSING"


def test_prefixes_and_gates_are_decoded_greedily_only() -> None:
    names = [step.name for step in graph_of(read_experiment("llama-7b-en-ca")).steps]
    beam = {name.rpartition("/")[2] for name in names if "/measure/flores/" in name}
    greedy = {name.rpartition("/")[2] for name in names if "/measure/flores-greedy/" in name}
    assert "prefix" in greedy - beam
    assert any("gate" in name for name in greedy)
    assert not any("gate" in name for name in beam)


def test_claims_are_declared_before_anything_is_evaluated() -> None:
    steps = graph_of(read_experiment("smoke")).steps
    order = [step.name for step in steps]
    for step in steps:
        if step.kind in ("measure", "loss"):
            assert "en-ca/tickets" in step.after
            assert order.index("en-ca/tickets") < order.index(step.name)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_plan_can_be_gone_through_dry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CERTIFY_DATA", raising=False)
    monkeypatch.setattr(library, "find_base", _no_hub)
    if not BASE_SMALL.is_dir() and "small" in name:
        pytest.skip(f"{BASE_SMALL} does not exist")
    plan = read_experiment(name)
    if plan.base.startswith(PUBLISHED):
        monkeypatch.setattr(library, "find_base", lambda name, **_: Path(name))
    rows = library.dry_run(plan)
    assert len({row.step for row in rows}) == len(rows)
    costs = {row.step: row.estimate for row in rows}
    for pair in plan.pair:
        embed = costs[f"{pair.name}/embed"]
        assert embed is not None
        assert embed.seconds > 0
        expected = {
            "smoke": 482 * 64,
            "en-ca-small": 6000 * 512,
            "en-ca-small-cut": 6000 * 512,
            "en-ca-small-second": 8000 * 256,
            "en-ca-small-whole": 6000 * 512,
            "smollm2-es-en": 49_152 * 576,
            "smollm2-fr-en": 49_152 * 576,
            "gemma3-en-es": 262_144 * 640,
            "gemma3-en-ca": 262_144 * 640,
            "three-pairs-small": 6000 * 512,
        }
        assert embed.trained == expected.get(name, 32000 * 4096)
        assert embed.basis == "assumed"
        lora = costs.get(f"{pair.name}/comparator/lora")
        # As their published results count them.
        counted = {"smollm2-es-en": 57_600, "gemma3-en-es": 46_080, "gemma3-en-ca": 46_080}
        assert name not in counted or (lora is not None and lora.trained == counted[name])
    assert rows[-1].step == "publish"


def _no_hub(name: str, **_: object) -> Path:
    raise UsageError(f"no {name} here", code="MODEL_UNKNOWN")


def test_a_dry_run_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def snapshot_download(name: str, **options: object) -> str:
        asked.append({"name": name, **options})
        if not options.get("local_files_only"):
            raise AssertionError("a dry run went to the hub")
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    plan = read_experiment("llama-7b-en-ca")
    assert library.dry_run(plan, tmp_path)
    assert [entry["name"] for entry in asked] == ["huggyllama/llama-7b"]


def test_spbleu_is_asked_for_by_the_plan_and_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_experiment("smoke").evaluation.bleu_tokenizer == "13a"
    for name in ("llama-7b-en-ca", "llama-7b-six-pairs"):
        assert read_experiment(name).evaluation.bleu_tokenizer == "flores101"
    plan = read_experiment(edited(tmp_path, "[evaluation]", '[evaluation]\nbleu_tokenizer = "flores101"'))
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path / "nothing"))
    assert library.dry_run(plan)
    with pytest.raises(UsageError) as caught:
        library.run(plan, tmp_path / "out")
    assert caught.value.code == "SPBLEU_UNAVAILABLE"
    assert not (tmp_path / "out").exists()
    for step in graph_of(plan).steps:
        if step.kind in ("measure", "evidence") and "signatures" in step.parameters:
            assert step.parameters["bleu_tokenizer"] == "flores101"
            assert "tok:flores101" in step.parameters["signatures"][0]


@pytest.mark.parametrize("name", SHIPPED)
def test_all_texts_of_a_report_share_one_budget_of_witnesses(name: str) -> None:
    plan = read_experiment(name)
    given = {
        step.name: step.parameters["witnesses"]
        for step in graph_of(plan).steps
        if step.kind == "evidence" and "witnesses" in step.parameters
    }
    assert sum(given.values()) <= plan.evaluation.witnesses == 50
    shares = witness_shares(plan)
    assert {n: k for n, k in given.items() if k} == {
        f"{pair}/evidence/{text}": k for (pair, text), k in shares.items() if k
    }
    claimed = [text.name for text in plan.text if text.role == "evaluation"]
    assert all(share > 0 for (_, text), share in shares.items() if text in claimed)


def test_witnesses_go_to_the_texts_that_claims_rest_on_first(tmp_path: Path) -> None:
    plan = read_experiment("smoke")  # test: 12 sentences, choice: 6
    assert witness_shares(plan) == {("en-ca", "test"): 12, ("en-ca", "choice"): 6}
    few = read_experiment(edited(tmp_path, "[evaluation]", "[evaluation]\nwitnesses = 13"))
    assert witness_shares(few) == {("en-ca", "test"): 12, ("en-ca", "choice"): 1}
    pairs = read_experiment("llama-7b-six-pairs")
    assert sorted(witness_shares(pairs).values()) == [8, 8, 8, 8, 9, 9]


def test_without_model_and_geometry_nothing_can_be_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_base", _no_hub)
    plan = read_experiment("llama-7b-en-ca").model_copy(update={"geometry": None})
    with pytest.raises(UsageError, match="geometry"):
        library.dry_run(plan)


def test_parameter_counts() -> None:
    plan = read_experiment("llama-7b-en-ca")
    assert plan.geometry is not None
    assert parameters_of(plan.geometry) == 6_738_415_616  # LLaMA-7B's published size
    model = model_of(None, plan.geometry)
    speed = assumed("cpu")
    lora = estimate(Amount("tune", method="lora", size=8), model, speed)
    assert lora.trained == 32 * 2 * 8 * (4096 + 4096)  # two matrices a layer, in and out
    assert estimate(Amount("tune", method="partial"), model, speed).trained is None
    assert estimate(Amount("tune", method="full"), model, speed).trained == 6_738_415_616


def test_the_small_base_is_counted_from_its_file() -> None:
    if not BASE_SMALL.is_dir():
        pytest.skip(f"{BASE_SMALL} does not exist")
    model = model_of(BASE_SMALL, None)
    assert model.parameters == parameters_of(model.shape)
    size = (BASE_SMALL / "model.safetensors").stat().st_size
    assert 0 <= size - 2 * model.parameters < 20_000  # fp16, and a header
    assert read_config(BASE_SMALL / "config.json") is not None


def test_estimates_say_for_which_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_base", _no_hub)
    plan = read_experiment("llama-7b-en-ca")

    def days(rows: list[library.Row], processor: str) -> float:
        costs = [row.estimate for row in rows]
        assert {cost.processor for cost in costs if cost is not None} == {processor}
        return sum(cost.seconds for cost in costs if cost is not None) / 86_400

    assert days(library.dry_run(plan), "gpu") < 10 < 100 < days(library.dry_run(plan, device="cpu"), "cpu")
    for cuda, processor in ((True, "gpu"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda cuda=cuda: cuda)
        days(library.dry_run(read_experiment("smoke")), processor)


def test_rows_that_the_plan_knows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_base", _no_hub)
    plan = read_experiment("llama-7b-en-ca")
    trained = {row.step: row.estimate.trained for row in library.dry_run(plan) if row.estimate is not None}
    ticket = len(published().tickets["en-ca"]) * 4096
    assert trained["en-ca/partial/published"] == ticket
    assert trained["en-ca/null-partial/published/random-0"] == ticket
    assert trained["en-ca/null-partial/published/one-row-bos"] == 4096
    assert trained["en-ca/partial/a05"] is None
    smoke = {row.step: row.estimate for row in library.dry_run(read_experiment("smoke"))}
    assert smoke["en-ca/partial/share"].trained == rows_of_share(482, "81/32000") * 64
    for rule, rows in (("distance:7", 7), ("random:3", 3), ("ids:1,5,9", 3), ("ks", None)):
        assert rows_of_rule(rule) == rows


def test_every_step_costs_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model is all fixed costs: a rate alone predicted 0.4 s for half a minute."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    costs = [row.estimate for row in library.dry_run(read_experiment("smoke"))]
    assert all(cost is not None and cost.seconds > 0 for cost in costs)
    assert 15 < sum(cost.seconds for cost in costs if cost is not None) < 60


def test_few_draws_are_said_to_support_no_claim() -> None:
    notices = read_experiment("smoke").notices
    assert len(notices) == 2
    assert all("fewer than three draws" in notice and "no claim" in notice for notice in notices)
    assert read_experiment("en-ca-small").notices == ()


def test_finished_steps_of_the_same_kind_count_more() -> None:
    plan = read_experiment("smoke")
    model, speed = model_of(None, plan.geometry), assumed("cpu")
    amount = Amount("tune", train=Passes(1000, 300), method="rows")
    finished = [(amount, 7.0), (amount, 9.0), (amount, 100.0), (Amount("other"), 5.0)]
    learned = replace(speed, factors=factors_of(finished, model, speed))
    found = estimate(amount, model, learned)
    assert found.seconds == pytest.approx(9.0)  # the median
    assert found.basis == "finished"
    other = Amount("decode", decode=Passes(1000, 1000))
    assert estimate(other, model, learned) == estimate(other, model, speed)


def test_texts_are_found_where_they_are_said_to_be(tmp_path: Path) -> None:
    assert resolve("hub:a/b", None) == "hub:a/b"
    assert resolve("en-ca/x", tmp_path) == str(tmp_path / "en-ca/x")
    assert resolve(str(tmp_path), None) == str(tmp_path)
    assert resolve("synthetic:train", None, made=tmp_path) == str(tmp_path / "text" / "train")
    for name in ("en-ca/x", "synthetic:train"):
        with pytest.raises(UsageError):
            resolve(name, None)


# --- documents -------------------------------------------------------------------------------------------


def test_documents_of_a_text_decide_its_steps_and_reach_the_evaluation(tmp_path: Path) -> None:
    for language in ("en", "ca"):
        (tmp_path / f"t.{language}").write_text(
            f"one {language}\ntwo {language}\none {language}\n</s> {language}\n"
        )
    input_digests, pair = InputDigests("", tmp_path), ("en", "ca")
    plain = input_digests.pairs("t", pair)
    with pytest.raises(UsageError, match=r"t\.doc"):
        input_digests.pairs("t", pair, documents=True)
    digests = set()
    for ids in ("a\na\nb\nb\n", "a\nb\nb\nb\n"):
        (tmp_path / "t.doc").write_text(ids)
        digests.add(InputDigests("", tmp_path).pairs("t", pair, documents=True))
        assert InputDigests("", tmp_path).pairs("t", pair) == plain, "where nobody asks, nothing changes"
    assert len(digests | {plain}) == 3

    def prepared(**more: object) -> list[str]:
        folder = tmp_path / f"work{len(more)}"
        folder.mkdir()
        parameters = {"data": "t", "languages": list(pair), "limit": None, "avoid": [], **more}
        (folder / "used.json").write_text("{}")
        used = Input(folder, ("used.json",))
        done = prepare_text(RunContext(BASE_SMALL, tmp_path), Work(folder, parameters, {"used": used}))
        assert (done.facts["repeated"], done.facts["control_token"]) == (1, 1)
        pairs = evaluated_pairs(Input(folder, ("text.jsonl",)))
        assert [one.id for one in pairs] == ["t:1", "t:2"]
        return [f"{one.document}" for one in pairs]

    assert prepared(documents=True) == ["a", "b"]
    assert prepared() == ["None", "None"]
    assert "document" not in (tmp_path / "work0" / "text.jsonl").read_text(), "cached texts stay as they were"


def test_a_plan_says_that_documents_are_the_unit(tmp_path: Path) -> None:
    def parameters(unit: str) -> object:
        plan = read_experiment(edited(tmp_path, 'unit = "block:3"', f'unit = "{unit}"'))
        (step,) = (step for step in graph_of(plan).steps if step.name == "en-ca/text/test")
        return step.parameters

    assert parameters("document") == parameters("block:3") | {"documents": True}
    assert parameters("sentence") == parameters("block:3")


def test_a_limit_draws_a_sample_unless_the_plan_says_first(tmp_path: Path) -> None:
    """Steps of older plans are found again: they took the first, and their parameters do not say so."""

    def limited(plan: ExperimentPlan) -> dict[str, dict[str, object]]:
        return {
            step.name: dict(step.parameters) for step in graph_of(plan).steps if "limit" in step.parameters
        }

    sample = limited(read_experiment("smoke"))
    first = limited(read_experiment(edited(tmp_path, "seed = 0", 'seed = 0\ntake = "first"')))
    assert {"en-ca/embed", "en-ca/counts", "en-ca/text/test", "en-ca/loss/base"} <= set(sample)
    for name, parameters in sample.items():
        drawn = {"take": "sample"} if parameters["limit"] is not None else {}
        assert parameters == first[name] | drawn
        assert "take" not in first[name]
