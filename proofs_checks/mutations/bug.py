"""Historic bugs put back into the running program, one at a time: the checks must notice every one of them.

A bug is a Python function that takes the place of another one, which it is given first, before the arguments
of the call. It is attached to that function by name, not to its text: rewording the source changes nothing
here, and a function that is gone fails the check, so that the bug is put where the code went. Its docstring
says who made the mistake (a tool, a habit of the field, or an earlier version of this program), and what it
teaches.

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
from inspect import getdoc
from typing import Any, Final

from proofs_checks.check import CheckFinding, Fact

Judge = Callable[[], Iterator[Fact]]
"""Facts with known answers about some functions of the program."""

PROGRAM: Final = ("certify", "lottery", "reports")
"""Packages in which a bug is planted."""


class Stale(Exception):
    """A bug whose function is no longer there."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug: ``fault`` in the place of ``target``, which is ``module:name`` or ``module:Class.name``.

    A property is its getter.
    """

    target: str
    fault: Callable[..., Any]

    @property
    def name(self) -> str:
        """Short name, unique within the subject."""
        return self.fault.__name__.strip("_")

    @property
    def lesson(self) -> str:
        """Who made the mistake, and what it teaches."""
        return " ".join((getdoc(self.fault) or "").split())


@dataclass(slots=True)
class Judged:
    """Bugs of one subject, and the judges, asked in this order, that must notice each of them.

    The check is called ``mutations.NAME``; ``about`` says what is judged, and without the packages ``needs``
    nothing can be judged.
    """

    name: str
    about: str
    judges: tuple[Judge, ...] = ()
    bugs: tuple[Bug, ...] = ()
    needs: tuple[str, ...] = ()

    def bug(self, target: str) -> Callable[[Callable[..., Any]], Bug]:
        """Decorator of a faulty function."""

        def add(fault: Callable[..., Any]) -> Bug:
            one = Bug(target, fault)
            self.bugs += (one,)
            return one

        return add

    def judge(self, judge: Judge) -> Judge:
        """Decorator of a judge."""
        self.judges += (judge,)
        return judge


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


def look(judges: Sequence[Judge]) -> tuple[str | None, bool]:
    """The first fact that is false, or the exception that stopped a judge; and whether it is an exception.

    (None, False) if all facts hold.
    """
    for judge in judges:
        name = judge.__name__.removeprefix("judge_")
        try:
            for fact, holds in judge():
                if not holds:
                    return f"{name}: {fact}", False
        # A bug may break the program in any way; what that means is for the caller to say.
        except Exception as error:
            return f"{name}: {type(error).__name__}: {' '.join(str(error).split())}", True
    return None, False


def fate(one: Bug, judges: Sequence[Judge]) -> tuple[bool, str]:
    """Plant the bug and let the judges look: whether it was noticed as it should be, and by what or why not.

    Raises:
        Stale: see :func:`planted`.
    """
    with planted(one):
        killer, raised = look(judges)
    if killer is None:
        return False, f"{one.name} survives ({one.lesson})"
    return (False, f"{one.name} dies of an exception: {killer}") if raised else (True, killer)


def hunt(subject: Judged) -> CheckFinding:
    """Passed if the judges accept the program as it is and notice every bug of the subject."""
    wrong, _ = look(subject.judges)
    if wrong is not None:
        return CheckFinding("failed", 1, f"{subject.about}, without any bug: {wrong}")
    fates = []
    for one in subject.bugs:
        try:
            fates.append(fate(one, subject.judges))
        except Stale as error:
            return CheckFinding("failed", len(fates) + 1, f"{one.name} cannot be planted: {error}")
    survivors = [text for noticed, text in fates if not noticed]
    if survivors:
        detail = f"{len(survivors)} of {len(fates)} bugs are not noticed: {'; '.join(survivors)}"
        return CheckFinding("failed", len(fates), detail)
    first = subject.bugs[0]
    witness = f"{first.name} ({first.lesson}): {fates[0][1]}"
    return CheckFinding("passed", len(fates), f"{len(fates)} of {len(fates)} bugs are noticed", witness)


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
