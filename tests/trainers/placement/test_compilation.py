import jax.numpy as jnp
import pytest

from trainers.placement.compilation import compiled, forget


@pytest.fixture(autouse=True)
def empty_store():
    forget()
    yield
    forget()


def double(x):
    return 2 * x


def test_one_structure_compiles_once():
    first = compiled(double, (jnp.ones(3),), identity=())
    assert compiled(double, (jnp.zeros(3),), identity=()) is first
    assert compiled(double, (jnp.zeros(4),), identity=()) is not first
    assert compiled(double, (jnp.zeros(3),), identity=("other",)) is not first
    assert first(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_what_failed_to_compile_is_tried_again():
    outcomes = [MemoryError("out of memory"), None]

    class Lowered:
        def compile(self):
            if error := outcomes.pop(0):
                raise error
            return double

    class Jit:
        def lower(self, *arguments):
            return Lowered()

    def start():
        return compiled(
            double, (jnp.ones(3),), identity=(), transform=lambda function: Jit()
        )

    with pytest.raises(MemoryError):
        start().wait()
    assert start().wait() is double
    assert start()(jnp.ones(())).item() == 2.0
    assert not outcomes
