"""Historic bugs: every one is killed; and the machine that plants them fails in every way it should."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from proofs_checks.check import Budget
from proofs_checks.mutations import mutations
from proofs_checks.mutations.judges import JUDGES, joined
from proofs_checks.mutations.judges_lottery import textbook
from proofs_checks.mutations.mutants import MUTANTS, Mutant
from proofs_checks.mutations.mutations import (
    NEEDS,
    Fate,
    Stale,
    execute,
    fate,
    first_false,
    hunt,
    patched,
    source_of,
)

STRICT = Mutant("certify.stats.theorem", "measured_max", "tie", ">= for >", "return r > ", "return r >= ")


@cache
def fate_of(mutant: Mutant) -> Fate:
    needs(mutant.module)
    return fate(mutant)


def needs(module: str) -> None:
    for extra in NEEDS.get(module, ()):
        pytest.importorskip(extra)


@pytest.mark.parametrize("module", sorted(JUDGES))
def test_the_judges_accept_the_real_source(module: str) -> None:
    needs(module)
    assert first_false(execute(source_of(module), module), JUDGES[module]) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}-{mutant.name}")
def test_every_bug_is_killed_as_it_should_be(mutant: Mutant) -> None:
    assert fate_of(mutant).killer is not None, mutant.bug
    assert fate_of(mutant).wrong is None


def test_there_are_enough_of_them_and_none_twice() -> None:
    assert len(MUTANTS) >= 25
    names = Counter((mutant.module, mutant.function, mutant.name) for mutant in MUTANTS)
    assert max(names.values()) == 1
    assert {mutant.module for mutant in MUTANTS} == set(JUDGES)
    programs = defaultdict(list)
    for mutant in MUTANTS:
        program = ast.dump(ast.parse(patched(source_of(mutant.module), mutant)))
        programs[mutant.module, program].append(mutant.name)
    assert [same for same in programs.values() if len(same) > 1] == []


def test_the_theorem_is_judged_by_facts() -> None:
    killers = [fate_of(mutant).killer or "" for mutant in MUTANTS if mutant.module == "certify.stats.theorem"]
    assert all(killer.split(": ")[0] in ("models", "variation", "criteria") for killer in killers)


def test_no_table_of_judges_hides_another() -> None:
    one, two, three = (lambda _: iter(()) for _ in range(3))
    assert joined({"a": (one,), "b": (two,)}, {"a": (three,)}) == {"a": (one, three), "b": (two,)}


def test_few_bugs_may_show_as_an_exception() -> None:
    assert sum(bool(mutant.raises) for mutant in MUTANTS) < len(MUTANTS) / 20


def test_the_modules_that_decide_have_mutants() -> None:
    for module in (
        *("ltt", "sequential", "drawn", "opposite", "requirement", "checker", "recheck", "certificate"),
        *("claims_loss", "claims_agreement", "claims_quality", "dataset_split", "guarantee", "steps"),
    ):
        assert sum(mutant.module == f"certify.{module}" for mutant in MUTANTS) >= 2, module


# --- the machine -------------------------------------------------------------------------------------------


def test_a_patch_touches_one_function_in_memory_only() -> None:
    before = source_of("certify.stats.theorem")
    after = patched(before, STRICT)
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1].strip().startswith("return r >= Fraction(2 *")
    copy = execute(after, "certify.stats.theorem")
    import certify.stats.theorem as real

    assert copy.measured_max(0.25, [1], 8)
    assert not real.measured_max(0.25, [1], 8)  # type: ignore[arg-type]
    assert copy is not real
    assert source_of("certify.stats.theorem") == before


@pytest.mark.parametrize(
    "changes",
    [
        {"old": "no such text"},
        {"old": "r"},
        {"function": "no_such_function"},
        {"function": "measured_max.inner"},
        {"module": "certify.no_such_module"},
        {"new": "return r >  "},  # the same program
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_text_that_is_gone_is_never_skipped(changes: dict[str, str]) -> None:
    mutant = Mutant(**{name: getattr(STRICT, name) for name in Mutant.__slots__} | changes)
    with pytest.raises(Stale):
        patched(source_of(mutant.module), mutant)
    if mutant.module == STRICT.module:
        finding = hunt("certify.stats.theorem", [mutant])
        assert finding.outcome == "failed"
        assert "cannot be applied" in finding.detail


def test_a_harmless_change_survives_and_fails() -> None:
    mutant = Mutant(
        "certify.stats.theorem", "measured_max", "words", "other words", '"""``r > 2', '"""``r >= 2'
    )
    assert fate(mutant).killer is None
    assert hunt("certify.stats.theorem", [mutant]).outcome == "failed"


def test_a_survivor_fails_and_is_named() -> None:
    def blind(_: Any) -> Iterator[tuple[str, bool]]:
        yield "anything goes", True

    finding = hunt("certify.stats.theorem", [STRICT], {"certify.stats.theorem": (blind,)})
    assert finding.outcome == "failed"
    assert ">= for >" in finding.detail


def raising(module: Any) -> Iterator[tuple[str, bool]]:
    """A judge that cannot finish where a margin of 1/4 against 2/8 certifies."""
    if module.measured_max(0.25, [1], 8):
        raise ZeroDivisionError("by accident")
    yield "a tie does not certify", True


def test_a_mutant_that_dies_of_an_exception_fails_unless_that_is_its_bug() -> None:
    judges = {"certify.stats.theorem": (raising,)}
    found = fate(STRICT, judges)
    assert (found.killer, found.raised) == ("raising: ZeroDivisionError: by accident", True)
    finding = hunt("certify.stats.theorem", [STRICT], judges)
    assert finding.outcome == "failed"
    assert "an exception of its own: raising: ZeroDivisionError: by accident" in finding.detail
    declared = replace(STRICT, raises="a division by zero")
    assert fate(declared, judges).wrong is None
    passed = hunt("certify.stats.theorem", [declared], judges)
    assert passed.outcome == "passed"
    assert "1 by an exception that is the bug's own" in passed.detail


def test_a_declared_exception_must_happen() -> None:
    declared = replace(STRICT, raises="a division by zero")
    assert "should raise a division by zero" in (fate(declared).wrong or "")
    assert hunt("certify.stats.theorem", [declared]).outcome == "failed"


def test_a_judge_that_refuses_the_real_source_fails() -> None:
    def grumpy(_: Any) -> Iterator[tuple[str, bool]]:
        yield "nothing is right", False

    finding = hunt("certify.stats.theorem", [STRICT], {"certify.stats.theorem": (grumpy,)})
    assert finding.outcome == "failed"
    assert "without any bug" in finding.detail


def test_methods_and_whole_modules_can_be_patched() -> None:
    method = Mutant("certify.evidence.distances", "Step.disagrees", "x", "bug", "!=", "==")
    assert patched(source_of("certify.evidence.distances"), method).count("self.expected == self.actual") == 1
    with pytest.raises(Stale, match="not once"):
        patched(
            source_of("certify.evidence.distances"),
            Mutant("certify.evidence.distances", "", "x", "bug", "return", "yield"),
        )


@pytest.mark.parametrize("item", mutations.CHECKS[:2], ids=lambda item: item.name)
def test_the_checks_report_what_was_caught(item: Any) -> None:
    result = item.run(Budget())
    assert result.passed, result
    assert f"{result.cases} of {result.cases} bugs" in result.detail


def test_no_mutant_is_written_to_disk() -> None:
    folder = Path(mutations.__file__).resolve().parent.parent
    times = {mutant.module: Path(folder, *mutant.module.split(".")).with_suffix(".py") for mutant in MUTANTS}
    before = {path: path.stat().st_mtime_ns for path in times.values()}
    fate(STRICT)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_textbook_procedures_on_a_worked_example() -> None:
    """Benjamini and Hochberg 1995, section 3: 15 p-values at .05; 4 rejected by BH, 3 by Bonferroni."""
    from fractions import Fraction

    texts = ".0001 .0004 .0019 .0095 .0201 .0278 .0298 .0344 .0459 .3240 .4262 .5719 .6528 .7590 1.000"
    p = [Fraction(text) for text in texts.split()]
    found = {name: sum(textbook(p, Fraction(1, 20), name)) for name in ("none", "bonferroni", "holm", "bh")}
    assert found == {"none": 9, "bonferroni": 3, "holm": 3, "bh": 4}
