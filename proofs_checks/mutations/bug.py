"""Historic bugs put back into the running program, one at a time: the checks must notice every one of them.

A bug is a Python function that takes the place of another one. It is attached to that function by name, not
to its text: rewording the source changes nothing here, and a function that is gone fails the check, so that
the bug is put where the code went. What a bug says of itself:

* ``origin``: who made the mistake; a tool, a habit of the field, or an earlier version of this program.
* ``lesson``: what it teaches, in one line.

While a bug is planted every module and class of the program that holds the function holds the faulty one,
whatever it calls it; afterwards everything is as it was. Judges, and the oracles that they compare with, keep
the originals: a judge calls what it judges through its module.

A bug is *killed* if a judge of its subject finds a false fact. A judge that cannot finish, because the bug
raised an exception, has noticed something, but maybe not the bug: that is a failure of the bug. Without any
bug every judge must be satisfied, otherwise everything would look killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Any, Final

from proofs_checks.check import CheckFinding

Fact = tuple[str, bool]
"""A fact in words, and whether it holds."""

Judge = Callable[[], Iterator[Fact]]
"""Facts with known answers about some functions of the program."""

PROGRAM: Final = ("certify", "lottery", "reports")
"""Packages in which a bug is planted."""


class Stale(Exception):
    """A bug whose function is no longer there."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug.

    Attributes:
        target: the function as ``module:name`` or ``module:Class.name``; a property is its getter.
        name: short name, unique within the subject.
        fault: what runs in its place: it takes the original and then the arguments of the call.
        origin: who made the mistake.
        lesson: what it teaches.
    """

    target: str
    name: str
    fault: Callable[..., Any]
    origin: str
    lesson: str


@dataclass(frozen=True, slots=True)
class Judged:
    """Bugs of one subject, and the judges that must notice each of them.

    Attributes:
        name: short name; the check is called ``mutations.NAME``.
        about: what is judged, in words.
        judges: they are asked in this order.
        bugs: at least one.
        needs: packages of extras without which nothing can be judged.
    """

    name: str
    about: str
    judges: tuple[Judge, ...]
    bugs: tuple[Bug, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a bug.

    Attributes:
        bug: the bug.
        killer: the fact that it broke, or the exception, with the judge's name; None if it survived.
        raised: it died of an exception.
    """

    bug: Bug
    killer: str | None
    raised: bool = False

    @property
    def wrong(self) -> str | None:
        """What is wrong with this fate, in words; None if the bug was noticed as it should be."""
        if self.killer is None:
            return f"{self.bug.name} survives ({self.bug.lesson})"
        return f"{self.bug.name} dies of an exception: {self.killer}" if self.raised else None


def bug(target: str, *, origin: str, lesson: str) -> Callable[[Callable[..., Any]], Bug]:
    """Decorator that makes a :class:`Bug` of a faulty function, whose name is the bug's."""
    return lambda fault: Bug(target, fault.__name__.strip("_"), fault, origin, lesson)


@contextmanager
def planted(one: Bug) -> Iterator[None]:
    """Run the program with a bug in it.

    Raises:
        Stale: the function is gone.
    """
    original = _found(one.target)
    faulty = _faulty(original, one.fault)
    _exchange(original, faulty, PROGRAM)
    try:
        yield
    finally:
        # Modules that were first imported meanwhile took the faulty one along, those of judges too.
        _exchange(faulty, original, (*PROGRAM, __name__.partition(".")[0]))


def first_false(judges: Sequence[Judge]) -> str | None:
    """The first fact that is false, or the exception that stopped a judge; None if all hold."""
    return _look(judges)[0]


def fate(one: Bug, judges: Sequence[Judge]) -> Fate:
    """Plant the bug and let the judges look.

    Raises:
        Stale: see :func:`planted`.
    """
    with planted(one):
        return Fate(one, *_look(judges))


def hunt(subject: Judged) -> CheckFinding:
    """Passed if the judges accept the program as it is and notice every bug of the subject."""
    wrong = first_false(subject.judges)
    if wrong is not None:
        return CheckFinding("failed", 1, f"{subject.about}, without any bug: {wrong}")
    fates = []
    for one in subject.bugs:
        try:
            fates.append(fate(one, subject.judges))
        except Stale as error:
            return CheckFinding("failed", len(fates) + 1, f"{one.name} cannot be planted: {error}")
    wrongs = [one.wrong for one in fates if one.wrong is not None]
    if wrongs:
        detail = f"{len(wrongs)} of {len(fates)} bugs are not noticed: {'; '.join(wrongs)}"
        return CheckFinding("failed", len(fates), detail)
    first = fates[0]
    witness = f"{first.bug.name} ({first.bug.lesson}): {first.killer}"
    return CheckFinding("passed", len(fates), f"{len(fates)} of {len(fates)} bugs are noticed", witness)


def _look(judges: Sequence[Judge]) -> tuple[str | None, bool]:
    for judge in judges:
        name = judge.__name__.removeprefix("judge_")
        try:
            for fact, holds in judge():
                if not holds:
                    return f"{name}: {fact}", False
        # A bug may break the program in any way; what that means is for Fate to say.
        except Exception as error:
            return f"{name}: {type(error).__name__}: {' '.join(str(error).split())}", True
    return None, False


def _found(target: str) -> Any:
    module, _, path = target.partition(":")
    try:
        owner: Any = import_module(module)
        *classes, name = path.split(".")
        for one in classes:
            owner = vars(owner)[one]
        return vars(owner)[name]
    except (ImportError, KeyError) as error:
        raise Stale(f"there is no {target}") from error


def _faulty(original: Any, fault: Callable[..., Any]) -> Any:
    inner: Any = original.fget if isinstance(original, property) else original

    @wraps(inner)
    def call(*args: Any, **kwargs: Any) -> Any:
        return fault(inner, *args, **kwargs)

    return property(call) if isinstance(original, property) else call


def _exchange(old: Any, new: Any, packages: Sequence[str]) -> None:
    """Put ``new`` wherever a loaded module, or a class of one, holds ``old``; forget what was computed."""
    for module in [one for name, one in list(sys.modules.items()) if name.partition(".")[0] in packages]:
        classes = [one for one in vars(module).values() if isinstance(one, type)]
        for holder in (module, *(one for one in classes if one.__module__ == module.__name__)):
            for name, value in list(vars(holder).items()):
                if value is old:
                    setattr(holder, name, new)
                elif hasattr(value, "cache_clear"):
                    value.cache_clear()
