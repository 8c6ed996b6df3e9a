"""Reductions, cumulative sums, argmax, sort."""
