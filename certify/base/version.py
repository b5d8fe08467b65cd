"""The version of this program, recorded in every ticket, certificate and report."""

from typing import Final

__version__: Final = "0.1.0"
