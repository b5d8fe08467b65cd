"""Attacks on the theory and on the code that rests on it: ``certify prove``.

:mod:`~proofs_checks.theory` enumerates small models and searches for counterexamples,
:mod:`~proofs_checks.numbers` compares laws and limits with independent ones, :mod:`~proofs_checks.coverage`
measures how often the program is wrong on tickets of known truth (:mod:`~proofs_checks.worlds`), and
:mod:`~proofs_checks.mutations` puts historic bugs back: each must be noticed. :mod:`~proofs_checks.run` runs
them all and says what was tried. Nothing here proves a program right, and no verdict rests on it.
"""
