"""Elementwise functions of one operand."""
