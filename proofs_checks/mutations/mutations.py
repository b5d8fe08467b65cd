"""Historic bugs put back into the real source, one at a time: the checks must notice every one of them.

A mutant is the source of a module with one piece of text replaced, executed in a private namespace: nothing
on disk changes, no other module sees it. It is *killed* if a judge of its module finds a false fact
(:mod:`proofs_checks.mutations.judges`). A judge that cannot finish, because the mutant raised an exception,
has noticed something, but maybe not the bug: that counts only for mutants that declare it
(:attr:`Mutant.raises`), and for these it must happen. The unchanged source, executed in the same way, must
satisfy every
judge: otherwise everything would look killed. A text to replace that is no longer in the source, or is there
twice, is a failure, never skipped: the bug has to be put where the code went.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from proofs_checks.check import Budget, Check, Finding, check
from proofs_checks.mutations.judges import JUDGES, Judge
from proofs_checks.mutations.mutant import Mutant
from proofs_checks.mutations.mutants import MUTANTS

NEEDS: Final[Mapping[str, tuple[str, ...]]] = {"certify.scan.engine_numba": ("numba",)}
"""Packages of extras without which a module cannot be executed."""


class Stale(Exception):
    """A mutant whose text is not in the source as it should be, or which changes nothing."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a mutant.

    Attributes:
        mutant: the mutant.
        killer: the fact that it broke, or the exception, with the judge's name; None if it survived.
        raised: it died of an exception.
    """

    mutant: Mutant
    killer: str | None
    raised: bool = False

    @property
    def wrong(self) -> str | None:
        """What is wrong with this fate, in words; None if the bug was noticed as it should be."""
        name = f"{self.mutant.name} ({self.mutant.bug})"
        if self.killer is None:
            return f"{name} survives"
        if self.raised and not self.mutant.raises:
            return f"{name} dies of an exception of its own: {self.killer}"
        if self.mutant.raises and not self.raised:
            return f"{name} should raise {self.mutant.raises}"
        return None


def source_of(module: str) -> str:
    """Source text of an importable module; does not import it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise Stale(f"there is no module {module}")
    return Path(spec.origin).read_text(encoding="utf-8")


def patched(source: str, mutant: Mutant) -> str:
    """``source`` with the mutant's text replaced, within the function that it names.

    Raises:
        Stale: the function is gone, or its text holds what is to be replaced not exactly once, or the
            program stays the same.
    """
    start, stop = _span(source, mutant.function)
    segment = source[start:stop]
    if segment.count(mutant.old) != 1:
        raise Stale(
            f"{mutant.name}: {mutant.old!r} occurs {segment.count(mutant.old)} times in"
            f" {mutant.module}.{mutant.function or '*'}, not once"
        )
    changed = source[:start] + segment.replace(mutant.old, mutant.new) + source[stop:]
    if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)):
        raise Stale(f"{mutant.name} changes nothing")
    return changed


def execute(source: str, module: str) -> ModuleType:
    """Run source text as a module that is in no registry; what it imports is the real thing."""
    import_module(module)  # dataclasses look their module up by name
    namespace = ModuleType(module)
    namespace.__package__ = module.rpartition(".")[0]
    exec(compile(source, f"<{module}, patched>", "exec", dont_inherit=True), namespace.__dict__)
    return namespace


def first_false(module: Any, judges: Sequence[Judge]) -> str | None:
    """The first fact that is false of ``module``, or the exception that stopped a judge; None if all hold."""
    return _look(module, judges)[0]


def _look(module: Any, judges: Sequence[Judge]) -> tuple[str | None, bool]:
    for judge in judges:
        name = judge.__name__.removeprefix("judge_")
        try:
            for fact, holds in judge(module):
                if not holds:
                    return f"{name}: {fact}", False
        # A mutant may break in any way; whether it was to break in this one is for Fate to say.
        except Exception as error:
            return f"{name}: {type(error).__name__}: {' '.join(str(error).split())}", True
    return None, False


def fate(mutant: Mutant, judges: Mapping[str, Sequence[Judge]] = JUDGES) -> Fate:
    """Put the bug in and let the judges of its module look.

    Raises:
        Stale: see :func:`patched`.
    """
    source = patched(source_of(mutant.module), mutant)
    return Fate(mutant, *_look(execute(source, mutant.module), judges[mutant.module]))


def hunt(module: str, mutants: Sequence[Mutant], judges: Mapping[str, Sequence[Judge]] = JUDGES) -> Finding:
    """Passed if the judges accept the module as it is and kill every mutant of it, each as it should be."""
    wrong = first_false(execute(source_of(module), module), judges[module])
    if wrong is not None:
        return Finding("failed", 1, f"{module} without any bug fails: {wrong}")
    fates = []
    for mutant in mutants:
        try:
            fates.append(fate(mutant, judges))
        except Stale as error:
            return Finding("failed", len(fates) + 1, f"cannot be applied: {error}")
    wrongs = [one.wrong for one in fates if one.wrong is not None]
    if wrongs:
        detail = f"{len(wrongs)} of {len(fates)} bugs in {module} are not caught: {'; '.join(wrongs)}"
        return Finding("failed", len(fates), detail)
    raised = sum(one.raised for one in fates)
    detail = f"{len(fates)} of {len(fates)} bugs in {module} are caught"
    detail += f", {raised} by an exception that is the bug's own" if raised else ""
    return Finding("passed", len(fates), detail, f"{fates[0].mutant.bug}: {fates[0].killer}")


def _span(source: str, function: str) -> tuple[int, int]:
    """Offsets of the text of a function (``name`` or ``Class.name``), or of everything if empty."""
    if not function:
        return 0, len(source)
    body: Sequence[ast.stmt] = ast.parse(source).body
    node: ast.stmt | None = None
    for name in function.split("."):
        named = (n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name)
        node = next(named, None)
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            raise Stale(f"there is no {function} any more")
        body = node.body
    assert node is not None
    lines = source.splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1]))
    return start, start + sum(map(len, lines[node.lineno - 1 : node.end_lineno]))


def _checks() -> Iterator[Check]:
    for module in dict.fromkeys(mutant.module for mutant in MUTANTS):
        mutants = tuple(mutant for mutant in MUTANTS if mutant.module == module)

        def run(_: Budget, module: str, mutants: tuple[Mutant, ...]) -> Finding:
            return hunt(module, mutants)

        clause = f"§7: {len(mutants)} historic bugs are caught in {module}"
        register = check(f"mutations.{module}", clause, needs=NEEDS.get(module, ()))
        yield register(partial(run, module=module, mutants=mutants))


CHECKS: tuple[Check, ...] = tuple(_checks())
"""One check for each module that has mutants."""
