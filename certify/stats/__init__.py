"""Finite-sample statistics: limits, rates, betting, budgets, power, the theorem.

Learn then Test, which chooses a ticket with them, is :mod:`certify.gate.choose`.
"""
