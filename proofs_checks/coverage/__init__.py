"""Miss rates of every bound and claim, exact or simulated."""
