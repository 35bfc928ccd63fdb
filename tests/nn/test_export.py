"""Flows through `jax.export`: batches of any size, and products that keep float32."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import rbig_nnx as rn
import trainers
from tests.slow import slow

X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
EVERYWHERE = ("cpu", "cuda", "tpu")


def flow_of(num_features=3, num_blocks=1, **options):
    options = {"num_components": 2, "hidden": (4,), **options}
    return rn.coupling_flow(num_features, num_blocks, **options, rngs=nnx.Rngs(0))


def exported(call, *shapes, dtype=np.float32, platforms=EVERYWHERE, **options):
    """An artefact for arrays of these shapes, such as "b, 3"."""
    scope = export.SymbolicScope()
    arguments = [
        jax.ShapeDtypeStruct(export.symbolic_shape(s, scope=scope), dtype)
        for s in shapes
    ]
    return export.export(jax.jit(call), platforms=platforms, **options)(*arguments)


def assert_same(artefact, call, *arguments):
    """The artefact gives what the call gives."""
    found, wanted = artefact.call(*arguments), call(*arguments)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
        found,
        wanted,
    )


def round_trip(flow, x, *context):
    """Everything that a flow computes for rows."""
    z, log_det = flow.forward_and_log_det(x, *context)
    back, log_det_back = flow.inverse_and_log_det(z, *context)
    log_prob = flow.distribution(*context).log_prob(x)
    return z, log_det, back, log_det_back, log_prob


def draw(flow, x, *context):
    return flow.sample(jax.random.key(0), 1 if context else x.shape[0], *context)


@pytest.mark.parametrize(
    ("method", "num_features", "num_contexts"),
    [
        (rn.GaussianizationFlow.log_prob, 1, 1),  # a single coupling
        (draw, 1, 1),
        slow(rn.GaussianizationFlow.log_prob, 2, 0),
        slow(draw, 2, 0),
    ],
)
def test_one_artefact_serves_batches_of_every_size(method, num_features, num_contexts):
    pytest.importorskip("flatbuffers")
    flow = flow_of(num_features, context_features=num_contexts)
    call = functools.partial(method, flow)
    columns = [X[:, :num_features], X[:, :num_contexts]][: 1 + num_contexts]
    written = exported(call, *(f"b, {c.shape[1]}" for c in columns)).serialize()
    artefact = export.deserialize(written)
    assert artefact.platforms == EVERYWHERE
    for n in (1, 7):
        assert_same(artefact, call, *(c[:n] for c in columns))


KINDS = {
    "context": (3, 1, {"context_features": 2}),
    "tails, whitened": (3, 1, {"tails": True, "whiten": True}),
    "each column first": (3, 1, {"tails": True, "marginals": True}),
    "clusters": (3, 1, {"clusters": 3}),
    "one feature": (1, 1, {}),
    "many features": (32, 1, {}),
    "logistic": (3, 1, {"family": "logistic"}),
    "bfloat16": (3, 1, {"dtype": jnp.bfloat16}),
    "scanned": (3, 3, {"scan_blocks": True}),
    "a list of many": (3, 9, {"scan_blocks": False}),
}


def check_kind(kind, batch="b", sizes=((1,), (7,))):
    """Rows and contexts of a batch of symbols, such as "a, b"."""
    num_features, num_blocks, options = KINDS[kind]
    flow = flow_of(num_features, num_blocks, **options)
    widths = [num_features, *[2] * ("context_features" in options)]
    call = functools.partial(round_trip, flow)
    artefact = exported(call, *(f"{batch}, {width}" for width in widths))
    rng = np.random.default_rng(1)
    for size in sizes:
        rows = [rng.normal(size=(*size, w)).astype(np.float32) for w in widths]
        assert_same(artefact, call, *rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_flow(kind):
    check_kind(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["context", "tails, whitened", "scanned"])
def test_two_axes_of_a_batch(kind):
    check_kind(kind, "a, b", [(1, 1), (2, 3)])


@pytest.mark.slow
@pytest.mark.x64
def test_double_precision():
    flow = flow_of(param_dtype=jnp.float64)
    call = functools.partial(round_trip, flow)
    artefact = exported(call, "b, 3", dtype=np.float64)
    x = X.astype(np.float64)
    found, wanted = artefact.call(x), call(x)
    assert found[0].dtype == np.float64
    np.testing.assert_allclose(found[4], wanted[4], rtol=1e-12)


@pytest.mark.slow
def test_samples_of_several_symbols_for_each_context():
    flow = flow_of(context_features=2)

    def call(draws, context):
        shape = draws.shape[0]
        return flow.sample_and_log_prob(jax.random.key(0), shape, context)

    artefact = exported(call, "n", "b, 2")
    assert_same(artefact, call, np.zeros(4, np.float32), X[:3, :2])


@pytest.mark.slow
def test_parameters_may_be_an_argument():
    pytest.importorskip("flatbuffers")
    arrays, structure = jax.tree.flatten(flow_of())

    def call(arrays, x):
        return jax.tree.unflatten(structure, arrays).log_prob(x)

    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
    x = jax.ShapeDtypeStruct(export.symbolic_shape("b, 3"), np.float32)
    artefact = export.deserialize(export.export(jax.jit(call))(shapes, x).serialize())
    assert_same(artefact, call, [a + 0.1 for a in arrays], X)


@pytest.mark.slow
def test_gradients_of_many_rows():
    """Scores by the rows, of more points than are solved together elsewhere."""
    flow, rows = flow_of(), np.tile(X, (200, 1))

    def call(x):
        drawn = flow.sample(jax.random.key(0), x.shape[:1])
        return jax.grad(lambda x: flow.log_prob(x).sum())(x), drawn

    assert_same(exported(call, "b, 3"), call, rows)


def test_symbols_that_may_differ_are_refused():
    flow = flow_of(context_features=2)
    with pytest.raises(ValueError, match=r"`context` must have the leading shape of"):
        exported(flow.log_prob, "b, 3", "c, 2")
    with pytest.raises(ValueError, match=r"`x` must have 3 features on its last axis"):
        exported(flow_of().log_prob, "b, d")


def precisions(text):
    """Those of the products in a program's text."""
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert lines
    said = (re.search(r"precision = \[(\w+), \1\]", line) for line in lines)
    return {found[1] if found else "DEFAULT" for found in said}


def on_a_tpu(call, *shapes):
    return exported(call, *shapes, platforms=("tpu",)).mlir_module()


def step(flow, x):
    return jax.grad(lambda flow: -jnp.mean(flow.log_prob(x)))(flow)


CALLS = {"log_prob": rn.GaussianizationFlow.log_prob, "sample": draw, "step": step}


@pytest.mark.parametrize("what", CALLS)
def test_float32_stays_float32_on_tpus(what):
    flow = flow_of(whiten=True)
    text = on_a_tpu(functools.partial(CALLS[what], flow), "b, 3")
    assert precisions(text) == {"HIGHEST"}


@pytest.mark.slow
def test_also_in_a_warm_start_and_in_the_trainer(tmp_path):
    """Every program that is compiled meanwhile is looked at."""
    rows = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    jax.clear_caches()
    jax.config.update("jax_dump_ir_to", str(tmp_path))
    try:
        warm, _ = rn.warm_start(flow_of(), rows, key=jax.random.key(0))
        config = trainers.TrainConfig(num_steps=4, batch_size=64, eval_every=2)
        trainers.fit(warm, rows, config=config, progress=False)
    finally:
        jax.config.update("jax_dump_ir_to", "")
    texts = [path.read_text() for path in tmp_path.rglob("*.mlir")]
    found = [precisions(text) for text in texts if "dot_general" in text]
    assert len(found) > 2
    assert set.union(*found) == {"HIGHEST"}


def lora(*args, **options):
    return nnx.LoRALinear(*args, lora_rank=2, **options)


def half(*args, **options):
    return nnx.Linear(*args, precision="default", **options)


@pytest.mark.parametrize(
    ("make", "options", "wanted"),
    [
        (nnx.Linear, {}, {"HIGHEST"}),
        (lora, {}, {"HIGHEST"}),
        (half, {}, {"HIGHEST", "DEFAULT"}),
        (nnx.Linear, {"precision": "default"}, {"DEFAULT"}),
        (nnx.Linear, {"precision": jax.lax.Precision.HIGH}, {"HIGH"}),
    ],
)
def test_layers_of_the_users_own_follow_unless_they_say(make, options, wanted):
    rngs = nnx.Rngs(0)
    trunk = nnx.Sequential(make(1, 4, rngs=rngs), jnp.tanh)
    layer = rn.MixtureCDFCoupling(2, trunk=trunk, rngs=rngs, **options)
    assert precisions(on_a_tpu(layer, "b, 2")) == wanted


def test_on_cpus_the_precision_changes_no_bit():
    def loss(conditioner, x):
        return jnp.sum(jnp.square(conditioner(x)))

    found, wanted = (
        jax.jit(jax.value_and_grad(loss, (0, 1)))(
            rn.Conditioner(3, 5, precision=precision, rngs=nnx.Rngs(0)), X
        )
        for precision in ("highest", None)
    )
    for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_is_computed_only_where_it_is_asked_for():
    text = on_a_tpu(flow_of(dtype=jnp.bfloat16).log_prob, "b, 3")
    conditioner = [line for line in text.splitlines() if "x4xbf16>" in line]
    assert any("stablehlo.dot_general" in line for line in conditioner)
    assert "bf16" not in on_a_tpu(flow_of().log_prob, "b, 3")


def test_the_precision_is_kept_with_the_model():
    for precision in ("highest", "default"):
        flow = flow_of(precision=precision)
        config = rn.to_config(flow)
        assert ("precision" in str(config)) == (precision != "highest")
        again = rn.from_config(config, rngs=nnx.Rngs(1))
        found = [la.conditioner.precision for la in again.layers[2:]]
        assert found == [precision] * 2
    with pytest.raises(ValueError, match=r"`precision` must be one of .*; got 'half'"):
        flow_of(precision="half")
