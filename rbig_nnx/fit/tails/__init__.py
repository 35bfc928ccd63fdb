"""The fits of tails to rows: of every column, and of the radius of all."""
