"""dot and conv."""
