"""Measurements beside the alternatives; `python -m benchmarks` runs them."""
