"""Densities side by side: the same rows, seconds or steps for every model."""
