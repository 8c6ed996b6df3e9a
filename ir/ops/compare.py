"""Comparisons, logic, select, clamp, convert."""
