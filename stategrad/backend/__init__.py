"""Lowering to StableHLO and running it."""
