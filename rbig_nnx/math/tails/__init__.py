"""Power-law tails made Gaussian: of single features, and of the radius of all."""
