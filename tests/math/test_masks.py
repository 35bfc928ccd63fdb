import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.math import masks

MASKS = [
    (False,),
    (True, False),
    (False, True),
    (True, False, True, False, False),
    (False, False, True, True, False),
    (False, False, False),
]


@pytest.mark.parametrize("mask", MASKS)
def test_join_undoes_split(mask):
    x = jnp.arange(2 * len(mask), dtype=jnp.float32).reshape(-1, 2)
    passive, moved = masks.split(x, mask)
    np.testing.assert_array_equal(passive, np.asarray(x)[np.asarray(mask)])
    np.testing.assert_array_equal(masks.join(passive, moved, mask), x)


@pytest.mark.parametrize("mask", [(1, 0), ((True, False),), (True, True), ()])
def test_bad_masks_are_refused(mask):
    with pytest.raises(ValueError, match="`mask` must be"):
        masks.check(mask)
