"""The deliberate errors of this project, and their exit codes.

All derive from :class:`CertifyError`. A program that uses the library catches it and gets a one-line message
and the exit code that the command line would have used.
"""

from __future__ import annotations

from enum import IntEnum

from certify.base.text import escape


class ExitCode(IntEnum):
    """Exit status of every command: the same in every output format, and not suppressed by any option."""

    CERTIFIED = 0
    REFUTED = 1
    USAGE = 2
    INCONCLUSIVE = 3  # also VACUOUS
    INVALID = 4
    NOTHING = 5
    INTERNAL = 70
    INTERRUPTED = 130
    TERMINATED = 143


class CertifyError(Exception):
    """Base of all deliberate errors: ``str(error)`` is one line, ``code`` a stable reason code."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(_line(message))
        self.code = code

    def rename(self, inner: object, outer: object) -> None:
        """Say in the message what the caller knows: of a temporary path, or an option, by its name there."""
        self.args = (str(self).replace(_line(str(inner)), _line(str(outer))),)


class UsageError(CertifyError):
    """The caller asked for something that cannot be done: wrong option, missing file, missing extra."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, code: str = "USAGE") -> None:
        super().__init__(message, code=code)


class InvalidInputError(CertifyError):
    """A file or value is invalid: corrupt, hostile, mismatched, non-finite."""

    exit_code = ExitCode.INVALID

    def __init__(self, message: str, *, code: str = "INVALID") -> None:
        super().__init__(message, code=code)


class NothingToDoError(CertifyError):
    """The input is well-formed but empty: there is nothing to check."""

    exit_code = ExitCode.NOTHING

    def __init__(self, message: str, *, code: str = "NOTHING") -> None:
        super().__init__(message, code=code)


class UncertifiedError(CertifyError):
    """A ticket is not CERTIFIED where it has to be; ``exit_code`` is that of its verdict."""

    def __init__(self, message: str, *, exit_code: ExitCode, code: str = "TICKET_UNCERTIFIED") -> None:
        super().__init__(message, code=code)
        self.exit_code = exit_code


class InternalError(CertifyError):
    """An invariant of this program is violated; the gate closes."""

    exit_code = ExitCode.INTERNAL

    def __init__(self, message: str, *, code: str = "INTERNAL") -> None:
        super().__init__(message, code=code)


def _line(text: str) -> str:
    return escape(" ".join(text.split()))
