"""Rewrites a freshly built model from data, before its first gradient step.

The layers of a flow are walked in order: one that can be fitted is, its parameters are written,
and the data are pushed on (`rbig_nnx.fit_flow`). So the model starts as a diagonal RBIG flow
(Laparra, Camps-Valls and Malo, Iterative Gaussianization, 2011), and training lifts the
kernels.

Of many rows a sample is walked through the layers, so that the time does not grow with
them; rows that are spread over devices or processes are sampled where they lie.

A flow of several is fitted as it would be alone. Of an ensemble every member has a sample of
the rows and a key of its own.
"""

import contextlib
import functools
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.fit.mixtures import Options
from rbig_nnx.fit.rotation import METHODS
from rbig_nnx.fit_flow import fit_flow
from rbig_nnx.math.arrays import Numbers
from rbig_nnx.math.params import whole
from rbig_nnx.nn.base import meshes
from rbig_nnx.nn.surgery.members import leading_axes
from rbig_nnx.report import LayerReport, WarmStartReport
from rbig_nnx.targets.choice import Target, targets
from rbig_nnx.targets.ensemble import bootstrap, members, write_members
from rbig_nnx.targets.rows import FlowRows, check_untraced, read, rows_of

BACKENDS = ("jax", "sklearn")


def warm_start(
    model: Any,
    x: Any,
    *,
    key: Array,
    flows: Any = None,
    context: Numbers | Mapping[str, Numbers] | None = None,
    weights: Numbers | Mapping[str, Numbers] | None = None,
    rotation: str = "pca",
    holdout: float = 0.1,
    smoothing: float = 0.1,
    max_rows: int = 262_144,
    backend: str = "jax",
    callback: Callable[[LayerReport], None] | None = None,
) -> tuple[Any, WarmStartReport]:
    """Returns a copy of the model whose flows have been fitted to x, layer by layer.

    The input model is left unchanged. Afterwards every coupling's output kernel is exactly
    zero and its bias holds the fitted mixtures; standardisers hold mean and standard
    deviation, rotations the reflections of the fitted matrix. Layers of other types fit
    themselves if they have a method `warm_start` (see `Fittable`), and are passed through
    otherwise. What layers and networks write to themselves on the way, such as statistics,
    is kept. Fits depend on `key` only: same key, same bits. A flow of several is fitted as it
    would be alone.

    An ensemble, as `nnx.vmap` makes it of a function that builds a flow, has its members on
    the first axis of every variable. Each is fitted with a key of its own to its own Bayesian
    bootstrap sample: all rows, weighted by exponential draws (Rubin, The Bayesian bootstrap,
    1981).

    Args:
      model: a `GaussianizationFlow`, an ensemble of them, or any NNX module, list or
        dictionary that contains some.
      x: the rows that the flow models, [n, d]; a `jax.Array`, which may be sharded over
        rows, or host numbers of any type, which are taken by value and become float32, or
        keep float64 with 64-bit types on. A mapping of paths to rows fits the flows that it
        names, each to its own. Of an ensemble, [members, n, d] are each member's.
      key: JAX key.
      flows: which flows: None for all; a dotted path such as "heads.density", where "*"
        matches anything; an nnx filter of (path, flow); or a list of them. Or a mapping of
        paths to functions (model, x) -> rows [n, d], or (rows, context): what each flow
        reads of x, which may then be any tree of arrays. A function treats every row by
        itself, and is given 1,024 at a time; the model is in evaluation mode, and flows that
        were named before are fitted.
      context: the flow's context, [n, c], if it is conditional. Of several flows, of those
        that are; or a mapping of paths.
      weights: nonnegative weights of the rows, [n], array or list; None for equal ones. Or
        a mapping of paths.
      rotation: "pca", "random", "ica", "nongaussian" or "auto". "nongaussian" starts
        highest, on tables of measurements by whole nats, and takes the most time, which
        grows with d²: two seconds a layer for 64 features on two cores. "auto" takes "pca"
        where rows that are held out do not clearly prefer it.
      holdout: share of the rows, in [0, 1), that only judge the fits. Where that is fewer
        than 200 rows, all are fitted, and judge further fits that leave them out, in at most
        five parts; the time is that of as many starts. The standardisers know every row. 0
        fits every layer plainly to every row: no stop, no shrinkage, no smoothing.
      smoothing: standard deviation of a Gaussian kernel by which each feature is blurred
        before its mixture is fitted, in standard deviations. Sharper fits start higher
        and train to a lower held-out log density (`docs/design.md`).
      max_rows: of more rows, the layers after the standardiser see a random sample of so
        many. A mixture of K components fitted to n rows loses about 3 K / 2n nats.
      backend: "jax", or "sklearn" for scikit-learn's `GaussianMixture` as reference.
      callback: called with the report of each layer once it is fitted.

    Returns:
      The warm-started model and a report of its layers; `report.flows` has that of each flow
      and member by name.

    Raises:
      ValueError: for what is no number, NaN or infinite rows, a constant column, one whose
        spread is less than 800 steps of its dtype at its offset, no more rows (of
        positive weight) than components, a wrong width, a context that is missing or not
        wanted, unknown options, a model without a flow, a path that matches none, members
        that are not on the first axis, or anything traced: call it outside of `jax.jit`.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> x = jax.random.normal(jax.random.key(0), (1000, 2)) ** 3
      >>> flow = rn.coupling_flow(2, 2, num_components=4, rngs=nnx.Rngs(0))
      >>> warm, report = rn.warm_start(flow, x, key=jax.random.key(1))
      >>> print(rn.output_kernel_magnitudes(warm))
      (0.0, 0.0, 0.0, 0.0)
      >>> print(bool(warm.log_prob(x).mean() > flow.log_prob(x).mean() + 1))
      True

      Two flows, each with its own rows:

      >>> pair = nnx.Dict(a=flow, b=nnx.clone(flow))
      >>> warm, report = rn.warm_start(pair, {"a": x, "b": 2 * x}, key=jax.random.key(1))
      >>> print(list(report.flows))
      ['a', 'b']
    """
    for name, value in (("holdout", holdout), ("smoothing", smoothing)):
        if not isinstance(value, numbers.Real | jax.Array) or np.ndim(value):
            raise ValueError(f"`{name}` must be a number; got {value!r}.")
    max_rows = whole("max_rows", max_rows)
    if rotation not in (*METHODS, "auto"):
        raise ValueError(
            f"`rotation` must be one of {(*METHODS, 'auto')}; got {rotation!r}."
        )
    if rotation == "auto" and not holdout:
        raise ValueError(
            "`holdout` must be above 0 with rotation='auto', which held-out rows choose;"
            " got 0. Name a rotation."
        )
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {BACKENDS}; got {backend!r}.")
    if not 0 <= holdout < 1:
        raise ValueError(
            f"`holdout` must be a share of the rows in [0, 1); got {holdout}."
        )
    if not 0 <= smoothing < np.inf:
        raise ValueError(
            f"`smoothing` must be at least 0, and finite; got {smoothing}."
        )
    check_untraced(model, x=x, context=context, weights=weights, key=key)
    model = nnx.clone(model)
    with meshes.automatic_axes(model):
        x, context, weights, key = (
            meshes.on_meshes(given, meshes.automatic_mesh)
            for given in (x, context, weights, key)
        )
        chosen = targets(model, flows, x, context, weights)
        axes = [leading_axes(target.flow) for target in chosen]
        if backend == "sklearn" and any(axes):
            raise ValueError(
                "`backend` must be 'jax' for the members of an ensemble, whose samples are"
                " weights, which scikit-learn's GaussianMixture does not take; got 'sklearn'."
            )
        several = len(chosen) > 1
        ready: list[list[FlowRows] | None] = []
        for target, shape in zip(chosen, axes, strict=True):
            # What can be refused is, before anything is fitted.
            with _naming(f"flow {target.name!r}" if several else ""):
                ready.append(None if target.read else rows_of(target, shape, max_rows))
        fit = functools.partial(
            fit_flow,
            options=Options(
                rotation, smoothing if holdout else 0.0, backend, holdout > 0
            ),
            holdout=holdout,
            max_rows=max_rows,
            callback=callback,
        )
        reports: list[LayerReport] = []
        for target, shape, rows in zip(chosen, axes, ready, strict=True):
            with _naming(f"flow {target.name!r}" if several else ""):
                rows = rows or rows_of(read(target, model), shape, max_rows)
                if shape:
                    reports += _fit_members(fit, target, shape, rows, key)
                else:
                    reports += fit(target.flow, rows[0], name=target.name, key=key)
    return model, WarmStartReport(tuple(reports), holdout)


def _fit_members(
    fit: Callable[..., list[LayerReport]],
    target: Target,
    axes: tuple[int, ...],
    rows: list[FlowRows],
    key: Array,
) -> list[LayerReport]:
    """Fits every member of an ensemble to a sample of its own."""
    parts, reports = members(target.flow, axes), []
    for number, at in enumerate(np.ndindex(axes)):
        with _naming(f"member {list(at)}"):
            fit_key, sample_key = jax.random.split(jax.random.fold_in(key, number))
            own = rows[number]
            weights = bootstrap(sample_key, len(own.x), own.weights)
            own = own._replace(weights=weights)
            name = f"{target.name}{list(at)}"
            reports += fit(parts[number], own, name=name, key=fit_key)
    write_members(target.flow, parts, axes)
    return reports


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Says in errors whose they are."""
    try:
        yield
    except ValueError as error:
        if not what:
            raise
        raise ValueError(f"{what}: {error}") from error
