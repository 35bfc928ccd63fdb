import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rbig_nnx as rn
from rbig_nnx import fit_layers
from rbig_nnx.fit import checks, gmm, judges, rotation, sample, sketch
from tests.slow import slow

KEY = jax.random.key(1)


def data(num_features, n=800, seed=0):
    """Correlated columns that are far from Gaussian."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((n, num_features)) < 0.4, -2, 1) + 0.4 * rng.normal(
        size=(n, num_features)
    )
    x[:, 1:] += 0.7 * x[:, :-1]
    return x.astype(np.float32)


def coupling_flow(d, **options):
    options = {"num_components": 4, "hidden": (8,), **options}
    return rn.coupling_flow(d, 2, rngs=nnx.Rngs(0), **options)


def diagonal_flow(d):
    return rn.diagonal_flow(d, 2, num_components=4, rngs=nnx.Rngs(0))


def leaves(model):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))


def test_output_kernels_are_exactly_zero_and_the_input_model_is_untouched():
    flow = coupling_flow(3)
    before = [np.array(a) for a in leaves(flow)]
    warm, report = rn.warm_start(flow, data(3), key=KEY)
    assert rn.output_kernel_magnitudes(warm) == (0.0,) * 4
    for a, b in zip(before, leaves(flow), strict=True):
        np.testing.assert_array_equal(a, b)
    # Trunks are not the warm start's business.
    for a, b in zip(flow.layers, warm.layers, strict=True):
        if isinstance(a, rn.MixtureCDFCoupling):
            for p, q in zip(
                leaves(a.conditioner.trunk), leaves(b.conditioner.trunk), strict=True
            ):
                np.testing.assert_array_equal(p, q)
    assert len(report.layers) == len(flow.layers)


@pytest.mark.slow
def test_scanned_blocks_are_fitted_like_a_list():
    x, (listed, scanned) = data(3), (coupling_flow(3, scan_blocks=s) for s in (0, 1))
    (warm, report), (scanned_warm, scanned_report) = (
        rn.warm_start(flow, x, key=KEY) for flow in (listed, scanned)
    )
    apart = [la for block in scanned_warm.layers[1].blocks() for la in block]
    for a, b in zip(
        leaves(nnx.List(warm.layers[1:])), leaves(nnx.List(apart)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert [dataclasses.replace(la, seconds=0) for la in scanned_report.layers] == [
        dataclasses.replace(la, seconds=0) for la in report.layers
    ]
    assert rn.output_kernel_magnitudes(scanned_warm) == (0.0,) * 4
    assert min(rn.output_kernel_magnitudes(scanned)) > 0  # untouched


def test_biases_unpack_to_the_fit_to_the_last_bit():
    x = data(2)
    layer = rn.MixtureCDFMarginal(2, num_components=4)
    warm, _ = rn.warm_start(rn.GaussianizationFlow([layer]), x, key=KEY, holdout=0.0)
    layer_key = jax.random.fold_in(KEY, 1)
    binned = sketch.sketch(jnp.asarray(x), jnp.ones(len(x)), layer_key)
    fit_key = jax.random.fold_in(layer_key, 1)
    fit = gmm.fit_sketch(binned, num_components=4, key=fit_key)
    for a, b in zip(warm.layers[0].mixture_params(), fit, strict=True):
        np.testing.assert_array_equal(a, b)


def mixtures_by_feature(flow):
    """The mixtures of each block, [blocks, d, 3·K]."""
    blocks, block = [], None
    for layer in flow.layers:
        params = getattr(layer, "mixture_params", None)
        if params is None:
            block = None
            continue
        if block is None:
            block = np.full((flow.num_features, 3 * layer.num_components), np.nan)
            blocks.append(block)
        moved = ~np.asarray(getattr(layer, "mask", [False] * flow.num_features))
        block[moved] = np.concatenate(params(), axis=1)
    return np.stack(blocks)


@pytest.mark.parametrize("num_features", [2, *map(slow, (3, 7, 16))])
def test_coupling_and_diagonal_flow_agree(num_features):
    x = data(num_features)
    coupling, _ = rn.warm_start(coupling_flow(num_features), x, key=KEY, holdout=0.0)
    diagonal, _ = rn.warm_start(diagonal_flow(num_features), x, key=KEY, holdout=0.0)
    np.testing.assert_array_equal(
        mixtures_by_feature(coupling), mixtures_by_feature(diagonal)
    )
    one, other = coupling.log_prob(x), diagonal.log_prob(x)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert np.mean(np.abs(one - other)) < 1e-5


def test_same_key_same_bits_and_each_layer_is_told():
    x, told = data(3), []
    one, report = rn.warm_start(coupling_flow(3), x, key=KEY, callback=told.append)
    assert tuple(told) == report.layers
    two, _ = rn.warm_start(coupling_flow(3), x, key=KEY)
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_report_adds_up_and_prints():
    _, report = rn.warm_start(coupling_flow(2), data(2), key=KEY)
    removed = [layer.negentropy for layer in report.layers]
    first = report.layers[0]
    start = first.log_prob - first.negentropy
    assert start + sum(removed) == pytest.approx(report.log_prob, abs=1e-4)
    assert report.seconds > 0
    text = str(report)
    assert "valid rows" in text
    assert "MixtureCDFCoupling" in text
    assert "MixtureCDFCoupling" in report._repr_html_()


def test_zero_weights_equal_left_out_rows():
    x = data(2)
    keep = np.arange(len(x)) % 4 != 0
    weights = keep.astype(np.float32)
    spoiled = np.where(keep[:, None], x, 50.0)
    flow = diagonal_flow(2)
    weighted, _ = rn.warm_start(flow, spoiled, key=KEY, weights=weights, holdout=0.0)
    dropped, _ = rn.warm_start(flow, x[keep], key=KEY, holdout=0.0)
    np.testing.assert_allclose(
        weighted.log_prob(x).mean(), dropped.log_prob(x).mean(), atol=0.03
    )


def test_sklearn_backend_agrees():
    x = data(2, n=1000)
    flow = rn.GaussianizationFlow(
        [rn.Standardize(2), rn.MixtureCDFMarginal(2, num_components=3)]
    )
    ours, _ = rn.warm_start(flow, x, key=KEY, holdout=0.0)
    reference, _ = rn.warm_start(flow, x, key=KEY, holdout=0.0, backend="sklearn")
    # Ours knows of the anchor when it fits; scikit-learn's does not.
    gain = ours.log_prob(x).mean() - reference.log_prob(x).mean()
    assert -1e-3 < gain < 0.05


def test_conditional_flow_and_its_context():
    rng = np.random.default_rng(0)
    context = rng.normal(5.0, 3.0, size=(600, 1)).astype(np.float32)
    x = data(2, 600)
    warm, _ = rn.warm_start(
        coupling_flow(2, context_features=1), x, key=KEY, context=context
    )
    assert rn.output_kernel_magnitudes(warm) == (0.0,) * 4
    scaled = warm.standardize_context.bijector().forward(context)
    np.testing.assert_allclose(scaled.mean(), 0, atol=0.2)
    np.testing.assert_allclose(warm.log_prob(x, context), warm.log_prob(x, context + 1))


class Head(nnx.Module):
    """Somebody's larger model."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(4, 2, rngs=rngs)
        self.heads = nnx.Dict(density=coupling_flow(2, context_features=2))


def test_flow_inside_a_larger_model():
    model = Head(nnx.Rngs(0))
    inputs = jnp.asarray(data(4))
    x = data(2)
    warm, _ = rn.warm_start(model, x, key=KEY, context=model.encoder(inputs))
    assert isinstance(warm, Head)
    assert rn.output_kernel_magnitudes(warm) == (0.0,) * 4
    assert min(rn.output_kernel_magnitudes(model)) > 0
    np.testing.assert_array_equal(warm.encoder.kernel[...], model.encoder.kernel[...])


class Shift(nnx.Module):
    """A user's layer that fits itself."""

    num_features = 2

    def __init__(self):
        self.shift = rn.Frozen(jnp.zeros(2))

    def bijector(self, context=None):
        import distrax

        del context
        return distrax.Block(distrax.ScalarAffine(shift=-self.shift[...]), 1)

    def warm_start(self, x, *, weights, key):
        del key
        self.shift[...] = jnp.sum(weights[:, None] * x, axis=0) / jnp.sum(weights)


def test_users_layers_fit_themselves_or_are_passed_through():
    x = data(2)
    flow = rn.GaussianizationFlow([Shift(), rn.MixtureCDFMarginal(2)])
    warm, report = rn.warm_start(flow, x, key=KEY, holdout=0.0)
    np.testing.assert_allclose(warm.layers[0].shift[...], x.mean(0), atol=1e-4)
    assert report.layers[0].action == "own fit"

    few = rn.HouseholderRotation(2, num_reflections=1, rngs=nnx.Rngs(0))
    flow = rn.GaussianizationFlow([few, rn.MixtureCDFMarginal(2)])
    warm, report = rn.warm_start(flow, x, key=KEY)
    np.testing.assert_array_equal(warm.layers[0].vectors[...], few.vectors[...])
    assert report.layers[0].action == "kept (1 of 2 reflections)"


def spread(x):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))


# Few rows are sorted, many binned; the rotation looks at a part of the last ones.
@pytest.mark.parametrize(("n", "rotation"), [(800, "pca"), slow(40_000, "ica")])
@pytest.mark.parametrize("max_rows", [262_144, 500], ids=["all rows", "a sample"])
def test_rows_sharded_over_devices_give_the_single_device_fit(n, rotation, max_rows):
    layers = [
        rn.Standardize(3),
        rn.HouseholderRotation(3, rngs=nnx.Rngs(0)),
        rn.MixtureCDFMarginal(3, num_components=4),
    ]
    flow, x = rn.GaussianizationFlow(layers), data(3, n)
    options = {"key": KEY, "rotation": rotation, "max_rows": max_rows}
    one, before = rn.warm_start(flow, x, **options)
    many, after = rn.warm_start(flow, spread(x), **options)
    np.testing.assert_allclose(one.log_prob(x), many.log_prob(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(before.log_prob, after.log_prob, rtol=1e-5)
    # What was fitted works on rows that are spread, and on those that are not.
    np.testing.assert_allclose(many.log_prob(spread(x)), many.log_prob(x), atol=1e-4)


def test_of_sharded_rows_only_the_sample_moves():
    n = 8 * 5_003
    x, weights = spread(data(3, n)), spread(np.ones(n, np.float32))
    everywhere = sample.everywhere(x)
    edges = np.zeros((3, 1_279), np.float32)
    programs = [
        sketch._binner(everywhere).lower(x, weights, edges),
        rotation._fit.lower("nongaussian", x, weights, x[:4_096], KEY),
        fit_layers._moments.lower(x, weights),
        checks.summary.lower(x),
        sample.row_taker(everywhere).lower(x, np.arange(0, n, 100)),
    ]
    for program in programs:
        # A device's program speaks of its own 5,003 rows, or of those it was sent.
        text = program.compile().as_text()
        assert "5003" in text
        assert not re.search(rf"[\[,]{n}[\],]", text)
    (rows,) = judges.split(KEY, x, None, 0.1, 4)
    assert rows.fit.sharding == rows.judge.sharding == weights.sharding


@pytest.mark.slow
def test_duplicates_integers_and_outliers_give_finite_fits_and_gradients():
    rng = np.random.default_rng(0)
    x = np.stack(
        [
            rng.integers(0, 3, 500),
            np.where(rng.random(500) < 0.9, 7.0, rng.normal(size=500)),
            np.append(rng.normal(size=499), 1e4),
        ],
        axis=1,
    ).astype(np.float32)
    warm, report = rn.warm_start(coupling_flow(3), x, key=KEY)
    assert np.isfinite(report.log_prob)
    far = jnp.asarray(np.concatenate([x, x + 1e4 * x.std(0), -1e4 * x.std(0)[None]]))
    assert np.all(np.isfinite(warm.log_prob(far)))
    grads = jax.grad(lambda x: jnp.sum(warm.log_prob(x)))(far)
    assert np.all(np.isfinite(grads))


def spoiled(value):
    x = data(2)
    x[3, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (
            spoiled(np.nan),
            {},
            "`x` must be finite; got NaN or infinity in 1 of 800 rows",
        ),
        (spoiled(np.inf), {}, "the first row 3. Drop or fill them"),
        (data(2) * [1, 0], {}, r"columns \[1\] are constant"),
        (data(2)[:4], {}, "more rows than `num_components`; got 4 rows and 4"),
        (data(3), {}, r"`x` must be \[rows, 2\], the flow's number of features"),
        (data(2)[:, 0], {}, r"`x` must be \[rows, 2\]"),
        (data(2).astype(complex), {}, "`x` must be real"),
        (data(2), {"context": np.ones((800, 1))}, "`context` must be None"),
        (data(2), {"weights": np.ones(3)}, "`weights` must have one row per row"),
        (data(2), {"weights": -np.ones(800)}, "`weights` must be finite, nonnegative"),
        (data(2), {"rotation": "qr"}, "`rotation` must be one of"),
        (data(2), {"backend": "torch"}, "`backend` must be one of"),
        (data(2), {"holdout": 1.0}, "`holdout` must be a share"),
        (data(2), {"max_rows": 4}, "`max_rows` must be more than `num_components`"),
    ],
)
def test_bad_input_is_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        rn.warm_start(diagonal_flow(2), x, key=KEY, **options)


def test_missing_context_and_models_without_a_flow_are_refused():
    with pytest.raises(ValueError, match="`context` must be given"):
        rn.warm_start(coupling_flow(2, context_features=1), data(2), key=KEY)
    with pytest.raises(ValueError, match="contain a GaussianizationFlow; got Linear"):
        rn.warm_start(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), data(2), key=KEY)
