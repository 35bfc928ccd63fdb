"""Greedy fits from data: one-dimensional mixtures, rotations. Imports math only."""
