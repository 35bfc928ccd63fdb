"""The models that are compared, and the programs that they run."""
