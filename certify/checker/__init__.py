"""An independent second opinion on a folder of tickets, from its files alone (theory §2 to §7).

    python3 -I -S certify/checker DIR [--policy NAME|FILE.toml] [--json] [--quiet]

The standard library, nothing else of this project: a fault elsewhere cannot hide itself here. What a ticket,
its certificate and its evidence state is computed again in integers and rationals, by the definitions in the
docstrings of :mod:`certify.stats.betting`, :mod:`certify.claims.criteria`, :mod:`certify.policy.requirement`
and their neighbours. Prints ``ID POLICY STATUS CODE...``; the exit status is the gravest under the policy
asked for, else ``release``: 0 certified, 1 refuted, 3 inconclusive or vacuous, 4 invalid; 2 usage, 5 no
ticket.

Alone, everything is derived again, tables included if they lie in the folder. Inside ``certify check`` what
needs whole tables is taken from that program and named (:class:`verdict.Given`); records, units, claims, the
ticket's own rows and the verdict are derived again.

Hostile input ends in INVALID. What is not computed again (a sharded table, a ``.npy`` file, rule
``published:``) is NOT_RECOMPUTED and certifies nothing. Not read, and said so (:data:`verdict.NOT_READ`):
the prose of a certificate. Believed, like the outputs of the models: which rows of the pool are fed often, or
as often as the ticket's (null tickets by frequency); no evidence says so. So are the token counts that a
ticket binds: nothing here tokenises.

Read the files in this order: ``tables.py``, ``vocabulary.py``, ``shapes.py``, ``scan.py``, ``steps.py``,
``units.py``, ``declared.py``, ``claims.py``, ``arms.py``, ``audit.py``, ``verdict.py``.
"""

from .audit import Given, Opinion
from .verdict import main, verify

__all__ = ["Given", "Opinion", "main", "verify"]
