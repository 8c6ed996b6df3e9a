"""Constants and iota."""
