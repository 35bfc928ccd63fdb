"""Pure functions of arrays: the mathematics of Gaussianization. Imports JAX only."""
