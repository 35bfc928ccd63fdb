"""Flax NNX modules: they hold parameters and build bijectors when asked."""
