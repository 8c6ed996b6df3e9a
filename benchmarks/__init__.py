"""Measurements as ratios, interleaved in one process: `python -m benchmarks` runs them."""
