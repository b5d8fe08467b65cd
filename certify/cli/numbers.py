"""Numbers on the command line: decimals become exact rationals, never binary floats."""

from __future__ import annotations

import re
from fractions import Fraction

from certify.base.errors import UsageError

_DECIMAL = re.compile(r"-?[0-9]{0,9}(\.[0-9]{1,60})?")


def decimal(option: str, value: str) -> Fraction:
    """Parse a plain decimal such as ``0.05``, ``-1`` or ``15.5``.

    Raises:
        UsageError: ``value`` is anything else (``NUMBER``).
    """
    if not _DECIMAL.fullmatch(value) or not any(char.isdigit() for char in value):
        raise UsageError(f"{option} takes a plain decimal such as 0.05, not {value!r}", code="NUMBER")
    return Fraction(value)


def level(option: str, value: str) -> Fraction:
    """Parse a decimal strictly between 0 and 1.

    Raises:
        UsageError: ``value`` is anything else (``NUMBER``).
    """
    number = decimal(option, value)
    if not 0 < number < 1:
        raise UsageError(f"{option} must lie strictly between 0 and 1, not {value}", code="NUMBER")
    return number
