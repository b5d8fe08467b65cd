"""The two-sample Kolmogorov-Smirnov scan: engines, exact law, corrections, scan files."""
