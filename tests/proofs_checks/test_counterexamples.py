"""C1-C8 come out as the theory states them, the searches find new ones, and neither can pass by accident."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest

from certify.stats import theorem
from proofs_checks.check import Budget, execute
from proofs_checks.theory import counterexamples, search
from proofs_checks.theory.counterexamples import interval_tie, reproduce
from proofs_checks.theory.finite import Change, smirnov

ALL = (*counterexamples.CHECKS, *search.CHECKS)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.name)
def test_the_counterexample_comes_out(item: counterexamples.Check) -> None:
    found = execute(item, Budget())
    assert found.outcome == "passed", found.detail
    assert found.cases >= 1
    assert found.witness


def test_all_eight_are_there_once() -> None:
    names = Counter(item.name for item in ALL)
    assert {f"counterexamples.C{i}" for i in range(1, 9)} <= set(names)
    assert max(names.values()) == 1


def test_a_fact_that_is_false_fails_and_is_named() -> None:
    found = reproduce([("2 is even", True), ("3 is even", False)], "3")
    assert found.outcome == "failed"
    assert found.detail == "not reproduced: 3 is even"


def test_smirnov_is_the_share_of_lattice_paths() -> None:
    for n in range(1, 6):
        heights = Counter()
        for ups in combinations(range(2 * n), n):
            walk = gap = 0
            for step in range(2 * n):
                walk += 1 if step in ups else -1
                gap = max(gap, abs(walk))
            heights[gap] += 1
        total = sum(heights.values())
        for h in range(1, n + 1):
            at_least = sum(count for gap, count in heights.items() if gap >= h)
            assert smirnov(h, n) == Fraction(at_least, total)


# --- what the criteria of the package say about them ------------------------------------------------------


def test_measured_max_accepts_c8_and_additive_does_not() -> None:
    r, h, d = Fraction(5, 11), [2], 11
    assert theorem.measured_max(r, h, d)
    assert not theorem.additive(r, h, d, theorem.variation("ACB", "A"))


def test_measured_max_accepts_c5_and_additive_does_not() -> None:
    assert theorem.measured_max(Fraction(1), [1, 1], 3)
    assert not theorem.additive(Fraction(1), [1, 1], 3, 2)


def test_every_criterion_accepts_c1() -> None:
    """No bound on D can: a permuted row has D = 0. The assumption A-LAW is named, not repaired."""
    assert theorem.additive(Fraction(1, 1000), [0], 4096)


def test_c6_is_refused() -> None:
    assert not theorem.measured_max(Fraction(1, 2), [1], 4)
    assert theorem.measured_max(Fraction(1, 2) + Fraction(1, 10**9), [1], 4)


def test_c4_needs_many_other_classes() -> None:
    """With one other class per side it would hold a quarter of the mass itself, and 2D would not be met."""
    assert interval_tie(1)[0].slack(multiplier=2) <= 0
    assert interval_tie(6)[0].slack(multiplier=2) > 0


# --- the searches ---------------------------------------------------------------------------------------


def test_a_violated_theorem_is_reported_by_the_random_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a definition of the criterion in which the constant is 1."""
    slack = Change.slack

    def careless(self: Change, **_: object) -> Fraction:
        return slack(self, combine="max", multiplier=1)

    monkeypatch.setattr(Change, "slack", careless)
    found = execute(next(item for item in search.CHECKS if item.name == "search.random"), Budget())
    assert (found.outcome, found.detail) == ("failed", "the theorem is violated")


def test_a_seed_repeats_a_search_and_another_changes_it() -> None:
    item = next(item for item in search.CHECKS if item.name == "search.random")
    first, again, other = (execute(item, Budget(seed=seed)) for seed in (1, 1, 2))
    assert (first.detail, first.witness) == (again.detail, again.witness)
    assert (first.detail, first.witness) != (other.detail, other.witness)
    models = [[search.random_change(draw) for _ in range(30)] for draw in map(random.Random, (1, 1, 2))]
    assert models[0] == models[1] != models[2]


def test_the_random_models_reach_what_they_are_for() -> None:
    """One and two coordinates, two to four classes, laws of different denominators, D at several atoms."""
    draw = random.Random(5)
    seen = [search.random_change(draw) for _ in range(300)]
    assert {len(change.shape) for change in seen} == {1, 2}
    assert {len(set(change.labels)) for change in seen} >= {2, 3, 4}
    assert any(change.lead_after < 0 < change.lead_before for change in seen)


# --- C1 on a model ----------------------------------------------------------------------------------------


def test_a_permuted_row_changes_what_a_model_says(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers import LlamaConfig, LlamaForCausalLM

    from proofs_checks.theory import llama

    names = ["<unk>", "<s>", "</s>", *"abcdefgh "]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=len(names),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.2,
            tie_word_embeddings=False,
        )
        model = LlamaForCausalLM(config)
    folder = tmp_path / "model"
    model.save_pretrained(folder)

    # Without a tokenizer the check cannot run, and says so.
    found = execute(llama.permuted_row(folder, prompt="abc deaf head"), Budget())
    assert found.outcome == "not run"

    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>"))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')

    check = llama.permuted_row(folder, prompt="abc deaf head")
    found = execute(check, Budget())
    assert found.outcome == "passed", found.detail
    assert "h = 0" in (found.witness or "")
    assert execute(check, Budget("full")).cases == len(set("abc deaf head"))

    # A model that does not read its input cannot be a witness.
    with torch.no_grad():
        for layer in model.model.layers:
            for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                weight.zero_()
        model.lm_head.weight.zero_()
    model.save_pretrained(folder)
    deaf = execute(llama.permuted_row(folder, prompt="abc deaf head"), Budget("full"))
    assert deaf.outcome == "failed"
    assert "no permuted row" in deaf.detail


def test_without_a_checkpoint_c1_is_not_run(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from proofs_checks.theory import llama

    found = execute(llama.permuted_row(tmp_path / "nowhere"), Budget())
    assert found.outcome == "not run"
    assert "no checkpoint" in found.detail
