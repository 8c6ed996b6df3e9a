"""Slices, gather, scatter-add."""
