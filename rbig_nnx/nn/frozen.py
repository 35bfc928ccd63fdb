"""State that no optimiser touches."""

from flax import nnx


class Frozen(nnx.Variable):
    """A fixed quantity: standardisers, rotations that do not train.

    Not an `nnx.Param`, so `wrt=nnx.Param` passes it by, and so do weight decay and EMA. A
    rotation kept as a trainable matrix would drift off orthogonal and report log
    densities that are false.
    """
