"""One bug as data; see :mod:`proofs_checks.mutations.mutations`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug.

    Attributes:
        module: full name of the module.
        function: ``name`` or ``Class.name`` within it, in whose text ``old`` occurs exactly once; empty for
            the whole module.
        name: short name, unique within the module.
        bug: what is wrong with it, in words.
        old: text of the source.
        new: what the bug has in its place.
        raises: the exception that the bug itself would show as, in words; empty where it must be noticed by
            a wrong result. A mutant that dies of an exception without this was planted wrongly.
    """

    module: str
    function: str
    name: str
    bug: str
    old: str
    new: str
    raises: str = ""


def of(module: str, *bugs: tuple[str, ...]) -> tuple[Mutant, ...]:
    """Bugs of one module, each as the other fields of :class:`Mutant` in their order."""
    return tuple(Mutant(module, *bug) for bug in bugs)
