"""Finite-sample statistics: limits, rates, betting, budgets, power, the theorem."""
