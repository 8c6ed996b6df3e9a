"""The transforms of stateful functions."""
