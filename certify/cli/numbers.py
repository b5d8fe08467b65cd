"""Numbers on the command line: decimals and fractions become exact rationals, never binary floats."""

from __future__ import annotations

import re
from fractions import Fraction

from certify.base.errors import UsageError

_NUMBER = re.compile(r"-?([0-9]{1,9}(/[1-9][0-9]{0,8})?|[0-9]{0,9}\.[0-9]{1,60})")


def number(option: str, value: str) -> Fraction:
    """Parse a plain decimal such as ``0.05``, ``-1`` or ``15.5``, or a fraction such as ``1/180``.

    Raises:
        UsageError: ``value`` is anything else (``NUMBER``).
    """
    if not _NUMBER.fullmatch(value):
        raise UsageError(f"{option} takes a number such as 0.05 or 1/180, not {value!r}", code="NUMBER")
    return Fraction(value)


def level(option: str, value: str) -> Fraction:
    """Parse a number strictly between 0 and 1.

    Raises:
        UsageError: ``value`` is anything else (``NUMBER``).
    """
    found = number(option, value)
    if not 0 < found < 1:
        raise UsageError(f"{option} must lie strictly between 0 and 1, not {value}", code="NUMBER")
    return found
