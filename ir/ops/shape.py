"""Reshape, transpose, broadcast and their kin."""
