"""Where state and batches lie: one program over a mesh, or one copy of it on each device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainers.placement import messages, sharding
from trainers.placement.compilation import Compiled, compiled

STRATEGIES = ("jit", "pmap")


class Jit:
    """One program: arrays are global, and XLA sums over the devices that hold parts.

    Args:
      mesh: devices, or None for one.
      data_axis: of the mesh, over which rows are spread.

    Attributes:
      by_device: where [steps, batch] lies, if each device needs its part of a batch alone.
      given: the mesh as the user gave it.
    """

    given: Mesh | None = None

    def __init__(self, mesh: Mesh | None, data_axis: tuple[str, ...]):
        self.mesh, self.data_axis = mesh, data_axis
        self.by_device = sharding.over_columns(mesh, data_axis)
        self._rows = sharding.over_rows(mesh, data_axis)

    def initial(self, make: Callable, arguments: tuple, shardings: Any) -> Any:
        """The state that `make` computes, in place: no device holds more than its part."""
        if self.mesh is None:
            return make(*arguments)
        return jax.jit(make, out_shardings=shardings)(*arguments)

    def whole(self, state: Any) -> Any:
        """The state without copies."""
        return state

    def place_rows(self, rows: Any) -> Any:
        """Rows spread over the data axis."""
        return sharding.place_rows(rows, self.mesh, self.data_axis)

    def compile(
        self, function: Callable, arguments: tuple, identity: tuple
    ) -> Compiled:
        """`function` of (state, ...), which gives its first argument's memory away."""

        def jit(function):
            if self.mesh is None:
                return jax.jit(function, donate_argnums=0)
            state = jax.tree.map(lambda leaf: leaf.sharding, arguments[0])
            rest = sharding.replicated(self.mesh)
            return jax.jit(
                function, donate_argnums=0, out_shardings=(state, rest, rest)
            )

        return compiled(function, arguments, identity=identity, transform=jit)

    def take(self, rows: Any, index: jax.Array) -> Any:
        """The rows of a batch. Traced."""
        return self._take(_exchange, rows, index, PartitionSpec())

    def take_own(self, rows: Any, index: jax.Array) -> Any:
        """`take`, where each part of `index` names rows of its own device. Traced."""
        return self._take(_own, rows, index, PartitionSpec(self.data_axis))

    def _take(self, function, rows, index, index_spec):
        if self.mesh is None:
            return jax.tree.map(lambda leaf: leaf[index], rows)
        by_row = PartitionSpec(self.data_axis)
        return jax.shard_map(
            functools.partial(function, axes=self.data_axis),
            mesh=self.mesh,
            in_specs=(by_row, index_spec),
            out_specs=by_row,
        )(rows, index)

    def own_part(self, array: jax.Array) -> jax.Array:
        """What lies with this program's rows of an array over the whole batch. Traced."""
        if self.mesh is None:
            return array
        return jax.lax.with_sharding_constraint(array, self._rows)

    def spread(self, batch: Any, parts: int) -> Any:
        """A batch in `parts` over all devices, if it divides over them. Traced."""
        if self.mesh is None:
            return batch
        axes = self._axes_of(batch, parts)
        if axes == self.data_axis:
            return batch
        where = NamedSharding(self.mesh, PartitionSpec(axes))
        return jax.lax.with_sharding_constraint(batch, where)

    def mean_of_rows(self, function: Callable, parts: int, *args: Any) -> Any:
        """The mean of `function(*args)` over the last, a batch in `parts`. Traced.

        The devices work side by side, and one message brings the means together.
        """
        assert self.mesh is not None
        axes = self._axes_of(args[-1], parts)
        return messages.over_parts(function, self.mesh, axes, *args)

    def _axes_of(self, batch: Any, parts: int) -> tuple[str, ...]:
        """The rows' axes, and the others where there are rows enough for every device."""
        assert self.mesh is not None
        size = jax.tree.leaves(batch)[0].shape[0]
        rest = tuple(a for a in self.mesh.axis_names if a not in self.data_axis)
        return (*self.data_axis, *rest * (size % (self.mesh.size * parts) == 0))

    def mean(self, tree: Any) -> Any:
        """Of equal parts. Traced."""
        return tree

    def settled(self, before: Any, after: Any) -> Any:
        """The variables that a forward pass writes, alike everywhere. Traced."""
        del before
        return after


class Pmap:
    """A copy of the state on every device, under `jax.pmap`, for code that lives there.

    Losses and gradients are means over the devices' equal parts of a batch, and so are the
    floating variables that a forward pass writes.

    Args:
      mesh: devices along one axis; None for all of this process.
      data_axis: that axis.

    Attributes:
      by_device: as of `Jit`, and so is `given`.

    Raises:
      ValueError: a mesh with more axes, or several processes.
    """

    given: Mesh | None = None

    def __init__(self, mesh: Mesh | None, data_axis: tuple[str, ...]):
        if jax.process_count() > 1:
            raise ValueError(
                "`strategy` must be 'jit' where several processes train together; got"
                " 'pmap'."
            )
        if mesh is None:
            mesh, data_axis = Mesh(np.array(jax.local_devices()), ("data",)), ("data",)
        if mesh.axis_names != data_axis:
            raise ValueError(
                f"`mesh` must have the one axis {sharding.shown(data_axis)} with"
                f" strategy='pmap', which copies the parameters; got {mesh.axis_names}."
                " Use strategy='jit'."
            )
        self.mesh, self.data_axis = mesh, data_axis
        # `pmap` gives every device the same second and later arguments.
        self.by_device = sharding.replicated(mesh)
        self._devices = list(mesh.devices.flat)
        self._copies = sharding.over_rows(mesh, data_axis)
        self._first = jax.jit(
            lambda state: jax.tree.map(lambda leaf: leaf[0], state),
            out_shardings=sharding.replicated(mesh),
        )

    def initial(self, make: Callable, arguments: tuple, shardings: Any) -> Any:
        """A copy for every device of the state that `make` computes."""
        del shardings
        n = len(self._devices)

        def copies(*arguments):
            repeat = lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape))  # noqa: E731
            return jax.tree.map(repeat, make(*arguments))

        return jax.jit(copies, out_shardings=self._copies)(*arguments)

    def whole(self, state: Any) -> Any:
        """One of the copies, which are equal."""
        return self._first(state)

    def place_rows(self, rows: Any) -> Any:
        """A part of the rows for every device."""
        n = len(self._devices)
        split = jax.tree.map(lambda leaf: leaf.reshape(n, -1, *leaf.shape[1:]), rows)
        return sharding.place_rows(split, self.mesh, self.data_axis)

    def compile(
        self, function: Callable, arguments: tuple, identity: tuple
    ) -> Compiled:
        """`function` of (state, rows, ...), which gives the state's memory away."""

        def pmap(function):
            return jax.pmap(
                function,
                axis_name=self.data_axis[0],
                in_axes=(0, 0, *[None] * (len(arguments) - 2)),
                out_axes=(0, None, None),
                donate_argnums=0,
                devices=self._devices,
            )

        return compiled(function, arguments, identity=identity, transform=pmap)

    def take(self, rows: Any, index: jax.Array) -> Any:
        """This device's rows of a batch. Traced."""
        return _exchange(rows, index, axes=self.data_axis)

    def take_own(self, rows: Any, index: jax.Array) -> Any:
        """`take`, where each part of `index` names rows of its own device. Traced."""
        return _own(rows, self.own_part(index), axes=self.data_axis)

    def own_part(self, array: jax.Array) -> jax.Array:
        """What lies with this device's rows of an array over the whole batch. Traced."""
        size = array.shape[0] // len(self._devices)
        start = jax.lax.axis_index(self.data_axis) * size
        return jax.lax.dynamic_slice_in_dim(array, start, size)

    def spread(self, batch: Any, parts: int) -> Any:
        """This device's rows. Traced."""
        del parts
        return batch

    def mean(self, tree: Any) -> Any:
        """Over the devices. Traced."""
        return messages.mean_of_parts(tree, self.data_axis)

    def settled(self, before: Any, after: Any) -> Any:
        """The variables that a forward pass writes: `before` plus the mean change. Traced.

        The mean of seven equal numbers is another number; that of seven zeros is not.
        """

        def settled(old, new):
            if new is old or not jnp.issubdtype(new.dtype, jnp.floating):
                return new  # not written, or equal already
            change = jnp.where(new == old, 0, new - old)
            change = jax.lax.pmean(change, self.data_axis)
            return jnp.where(change == 0, old, old + change)

        return jax.tree.map(settled, before, after)


def make_strategy(
    name: str, mesh: Mesh | None, data_axis: sharding.Axes | None = None
) -> Jit | Pmap:
    """The strategy of this name.

    Raises:
      ValueError: an unknown name, or a mesh that does not suit it.
    """
    if name not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {STRATEGIES}; got {name!r}.")
    strategy = (Jit if name == "jit" else Pmap)(*sharding.prepare_mesh(mesh, data_axis))
    strategy.given = mesh
    return strategy


def _own(rows: Any, index: jax.Array, axes: tuple[str, ...]) -> Any:
    """This device's rows number `index` of all, which it holds."""

    def one(leaf):
        return leaf[index - jax.lax.axis_index(axes) * leaf.shape[0]]

    return jax.tree.map(one, rows)


def _exchange(rows: Any, index: jax.Array, axes: tuple[str, ...]) -> Any:
    """This device's share of the rows `index`, whichever devices hold them.

    Every device offers the rows that it holds and zeros for the others; the sum is exact.
    What moves is one batch, never the data.
    """

    def one(leaf):
        size = leaf.shape[0]
        at = index - jax.lax.axis_index(axes) * size
        held = ((at >= 0) & (at < size)).reshape(-1, *[1] * (leaf.ndim - 1))
        offered = jnp.where(held, leaf[jnp.clip(at, 0, size - 1)], 0)
        offered = offered.astype(jnp.int8) if leaf.dtype == bool else offered
        return jax.lax.psum_scatter(offered, axes, tiled=True).astype(leaf.dtype)

    return jax.tree.map(one, rows)
