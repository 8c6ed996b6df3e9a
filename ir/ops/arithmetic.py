"""Elementwise arithmetic of two and three operands."""
