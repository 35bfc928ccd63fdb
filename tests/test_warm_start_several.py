"""Models with several flows, ensembles, and flows behind an encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
import trainers
from rbig_nnx.targets import choice
from rbig_nnx.targets import rows as target_rows

KEY = jax.random.key(1)
X = (np.random.default_rng(0).normal(size=(300, 2)) ** 3).astype(np.float32)


def diagonal(d=2, seed=0):
    return rn.diagonal_flow(d, 1, num_components=2, rngs=nnx.Rngs(seed))


def coupling(rngs=None, **options):
    options = {"num_components": 2, "hidden": (4,), **options}
    return rn.coupling_flow(2, 1, rngs=rngs or nnx.Rngs(0), **options)


def ensemble(make, *members):
    for _ in members:
        make = nnx.vmap(make)
    return make(nnx.Rngs(0).split(members))


def warm(model, x=X, **options):
    return rn.warm_start(model, x, key=KEY, **{"holdout": 0.0, **options})


def leaves(model):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))


def assert_same(one, two):
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


class Pair(nnx.Module):
    def __init__(self, a=None, b=None):
        self.a, self.b = a or diagonal(), b or diagonal(seed=1)


class Plain(nnx.Module, pytree=False):
    """With a list of Python's, and itself as a part."""

    def __init__(self, flow, other):
        self.flow, self.more, self.myself = flow, [other], self


# Which flows, and the rows of each.


@pytest.mark.parametrize(
    ("holder", "names"),
    [
        (Pair, ["a", "b"]),
        (lambda a, b: [a, b], ["0", "1"]),
        (lambda a, b: {"a": a, "more": [b]}, ["a", "more.0"]),
        (lambda a, b: nnx.Dict(a=nnx.List([a, b])), ["a.0", "a.1"]),
        (lambda a, b: Plain(a, b), ["flow", "more.0"]),
    ],
)
def test_every_flow_of_a_model_starts_as_it_would_alone(holder, names):
    a, b = diagonal(), diagonal(seed=1)
    told = []
    started, report = warm(holder(a, b), callback=told.append)
    assert_same(
        nnx.List(jax.tree.leaves(started, is_leaf=is_flow)), both := alone(a, b)
    )
    assert list(report.flows) == names
    assert tuple(told) == report.layers
    assert [part.log_prob for part in report.flows.values()] == [
        warm(flow)[1].log_prob for flow in (a, b)
    ]
    assert len(both) == 2


def is_flow(value):
    return isinstance(value, rn.GaussianizationFlow)


def alone(*flows):
    return nnx.List([warm(flow)[0] for flow in flows])


def test_a_report_of_several_prints_a_line_for_each():
    _, report = warm(Pair())
    lines = [line for line in str(report).splitlines() if line.startswith("│")]
    assert [line.split()[1] for line in lines] == ["a", "b"]
    assert "MixtureCDFMarginal" in str(report.flows["b"])
    assert report.seconds >= report.flows["b"].seconds > 0
    with pytest.raises(ValueError, match=r"ask report.flows\['a'\].log_prob"):
        _ = report.log_prob
    _, report = warm(nnx.Dict(head=diagonal()))
    assert report.log_prob == report.flows["head"].log_prob


class Shared(nnx.Module):
    def __init__(self):
        self.a = diagonal()
        self.more = nnx.Dict(b=self.a, c=diagonal(seed=1))


def test_a_flow_that_is_reached_by_two_paths_is_fitted_once():
    started, report = warm(Shared())
    assert list(report.flows) == ["a", "more.c"]
    assert started.a is started.more["b"]
    assert_same(started.a, warm(diagonal())[0])
    other, report = warm(Shared(), flows="more.b")
    assert list(report.flows) == ["a"]
    assert_same(other.a, started.a)
    assert_same(other.more["c"], Shared().more["c"])


@pytest.mark.parametrize(
    ("flows", "names"),
    [
        ("a", ["a"]),
        ("more.*", ["more.b", "more.c"]),
        (["more.c", "a"], ["more.c", "a"]),
        (nnx.PathContains("more"), ["more.b", "more.c"]),
        (lambda path, flow: flow.num_features == 1, ["more.c"]),
        (..., ["a", "more.b", "more.c"]),
    ],
)
def test_flows_are_chosen_by_path_or_filter(flows, names):
    model = nnx.Dict(a=diagonal(), more=nnx.Dict(b=diagonal(seed=1), c=diagonal(1)))
    x = {name: X[:, : 1 if name == "more.c" else 2] for name in names}
    started, report = warm(model, x, flows=flows)
    assert list(report.flows) == names
    for name in {"a", "more.b", "more.c"} - set(names):
        assert_same(at(started, name), at(model, name))


def at(model, name):
    for part in name.split("."):
        model = model[part]
    return model


def test_each_flow_has_its_own_rows_context_and_weights():
    model = Pair(b=coupling(context_features=1))
    context = np.linspace(0, 1, 300)[:, None] ** 2
    weights = np.arange(300) % 3
    started, _ = warm(
        model, {"b": X[::-1], "*": X}, context=context, weights={"a": weights}
    )
    assert_same(started.a, warm(diagonal(), weights=weights)[0])
    assert_same(started.b, warm(model.b, X[::-1], context=context)[0])
    again, _ = warm(model, {"b": X[::-1]}, context={"b": context})
    assert_same(again.b, started.b)
    assert_same(again.a, model.a)


# Rows that the model makes.


class Encoded(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(5, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.second = nnx.Linear(3, 2, rngs=rngs)
        self.sizes = nnx.Variable(jnp.zeros(2))
        self.head = diagonal()
        self.next = coupling(rngs, context_features=2)

    def encode(self, inputs):
        return self.second(self.drop(self.norm(nnx.tanh(self.first(inputs)))))


def encoded(sizes=None):
    def encode(model, inputs):
        if sizes is not None:
            sizes.append(len(inputs))
        return model.encode(inputs)

    return encode


def test_a_flow_is_fitted_to_what_an_encoder_in_evaluation_mode_gives(monkeypatch):
    monkeypatch.setattr(target_rows, "_ROWS", 128)
    model = Encoded(nnx.Rngs(0))
    inputs = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    sizes = []
    started, report = warm(model, inputs, flows={"head": encoded(sizes)})
    assert sizes == [128, 128, 44]
    assert list(report.flows) == ["head"]
    assert not model.drop.deterministic  # as they were
    assert not started.drop.deterministic
    model.eval()
    rows = model.encode(inputs)
    np.testing.assert_allclose(
        started.head.layers[0].mean[...], rows.mean(0), atol=1e-5
    )
    score = warm(model.head, rows)[0].log_prob(rows).mean()
    np.testing.assert_allclose(started.head.log_prob(rows).mean(), score, atol=1e-3)
    assert_same(started.norm, model.norm)


def test_a_function_gives_a_context_too_and_knows_the_flows_before():
    model = Encoded(nnx.Rngs(0))
    batch = {"y": X, "inputs": np.tile(X, (1, 3))[:, :5]}

    def latent(model, batch):
        z, _ = model.head.forward_and_log_det(batch["y"])
        return z, model.encode(batch["inputs"])

    reads = {"head": lambda _, batch: batch["y"], "next": latent}
    started, _ = warm(model, batch, flows=reads)
    model.eval()
    head, _ = warm(model.head)
    context = model.encode(batch["inputs"])
    z, _ = head.forward_and_log_det(X)
    assert_same(started.head, head)
    assert_same(started.next, warm(model.next, np.asarray(z), context=context)[0])


def test_arrays_of_different_numbers_of_rows_are_read_at_once(monkeypatch):
    monkeypatch.setattr(target_rows, "_ROWS", 128)
    x = {"a": X, "b": X[:200]}
    target = choice.Target(diagonal(), [()], lambda _, x: (x["b"], x["a"]), x)
    found = target_rows.read(target, diagonal())
    np.testing.assert_array_equal(found.x, X[:200])
    np.testing.assert_array_equal(found.context, X)


# Ensembles.


def test_members_of_an_ensemble_start_from_samples_of_their_own():
    model = ensemble(coupling, 3)
    before = [np.array(a) for a in leaves(model)]
    started, report = warm(model)
    assert list(report.flows) == ["[0]", "[1]", "[2]"]
    assert rn.output_kernel_magnitudes(started) == (0.0, 0.0)
    means = nnx.vmap(lambda flow: flow.log_prob(X).mean())(started)
    single = warm(coupling())[0].log_prob(X).mean()
    np.testing.assert_allclose(means, single, atol=0.15)
    assert len(np.unique(means)) == 3
    for a, b in zip(before, leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same(started, warm(model)[0])
    trunk = model.layers[2].conditioner.trunk
    assert_same(started.layers[2].conditioner.trunk, trunk)


@pytest.mark.slow
def test_an_ensemble_trains_by_the_mean_loss_of_its_members():
    started, _ = warm(ensemble(coupling, 3))

    def loss_fn(model, batch, key):
        del key
        return -nnx.vmap(lambda flow: flow.log_prob(batch))(model).mean(axis=0)

    config = trainers.TrainConfig(num_steps=8, batch_size=64, eval_every=4)
    result = trainers.fit(started, X, loss_fn=loss_fn, config=config, progress=False)
    assert result.history["train"][-1] > result.history["train"][0]
    scores = nnx.vmap(lambda flow: flow.log_prob(X).mean())(result.model)
    assert scores.shape == (3,)
    assert len(np.unique(scores)) == 3


class Head(nnx.Module):
    """A whole model that becomes an ensemble: every member has its own encoder."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(2, 2, rngs=rngs)
        self.flow = rn.diagonal_flow(2, 1, num_components=2, rngs=rngs)


def test_members_may_have_their_own_rows_as_those_of_their_own_encoders(monkeypatch):
    monkeypatch.setattr(target_rows, "_ROWS", 128)
    x = np.tanh(X)

    def encode(model, x):
        return nnx.vmap(lambda model: model.encoder(x))(model)

    started, report = warm(ensemble(Head, 2), x, flows={"flow": encode})
    assert list(report.flows) == ["flow[0]", "flow[1]"]
    rows = nnx.vmap(lambda model: model.encoder(x))(started)
    means = started.flow.layers[0].mean[...]
    np.testing.assert_allclose(means, rows.mean(axis=1), atol=0.3)
    assert np.abs(means[0] - means[1]).max() > 0.01
    again, _ = warm(ensemble(Head, 2).flow, np.asarray(rows))
    np.testing.assert_allclose(again.layers[0].mean[...], means, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"or \[2\] and then those for each; got shape"
    ):
        warm(again, np.stack([x, x, x]))
    # One encoder before an ensemble of flows gives all members the same rows.
    model = nnx.Dict(
        encoder=nnx.Linear(2, 2, rngs=nnx.Rngs(0)), flow=ensemble(coupling, 2)
    )
    reads = {"flow": lambda model, x: model["encoder"](x)}
    started, _ = warm(model, x, flows=reads)
    other, _ = warm(model["flow"], np.asarray(model["encoder"](x)))
    for a, b in zip(leaves(started["flow"]), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_members_of_members_start_too():
    started, report = warm(ensemble(coupling, 2, 3))
    assert list(report.flows)[:4] == ["[0, 0]", "[0, 1]", "[0, 2]", "[1, 0]"]
    means = nnx.vmap(nnx.vmap(lambda flow: flow.log_prob(X).mean()))(started)
    single = warm(coupling())[0].log_prob(X).mean()
    np.testing.assert_allclose(means, single, atol=0.15)


def everything(rngs):
    """A flow with every kind of layer, and a network that keeps statistics and draws."""
    options = {"num_components": 2, "context_features": 1, "rngs": rngs}
    trunk = nnx.Sequential(
        nnx.Linear(2, 4, rngs=rngs),
        nnx.BatchNorm(4, rngs=rngs),
        nnx.Dropout(0.5, rngs=rngs),
    )
    other = [
        rn.MixtureCDFCoupling(2, trunk=trunk, **options),
        rn.MixtureCDFCoupling(2, mask=(False, True), hidden=(4,), **options),
    ]
    scanned = rn.coupling_flow(
        2, 2, whiten=True, tails=True, scan_blocks=True, hidden=(4,), **options
    )
    few = rn.HouseholderRotation(2, num_reflections=1, rngs=rngs)
    return rn.GaussianizationFlow([*scanned.layers, few, *other])


@pytest.mark.slow
@pytest.mark.parametrize("rotation", ["pca", "auto"])
def test_members_can_all_that_one_flow_can(rotation):
    rows, context = np.tile(X, (2, 1)), np.arange(600.0)[:, None]
    options = {
        "context": context,
        "weights": 1.0 + np.arange(600) % 2,
        "rotation": rotation,
        "holdout": 0.1,
        "max_rows": 400,
    }
    single, one = warm(everything(nnx.Rngs(0)), rows, **options)
    started, report = warm(ensemble(everything, 2), rows, **options)
    for part in report.flows.values():
        assert [la.name for la in part.layers] == [la.name for la in one.layers]
    assert rn.output_kernel_magnitudes(started) == (0.0,) * 6
    single.eval()
    started.eval()
    score = nnx.vmap(lambda flow: flow.log_prob(rows, context).mean())
    want = single.log_prob(rows, context).mean()
    np.testing.assert_allclose(score(started), want, atol=0.2)
    means = started.layers[-2].conditioner.trunk.layers[1].mean[...]
    assert np.abs(means[0] - means[1]).max() > 0  # their own statistics


def test_kernels_of_an_ensemble_count_by_coupling():
    model = ensemble(lambda rngs: coupling(rngs, scan_blocks=True), 5)
    kernel = model.layers[1].layers[1].conditioner.out.kernel
    kernel[...] = kernel[...].at[3].set(-7.0)
    found = rn.output_kernel_magnitudes(model)
    assert len(found) == 2
    assert found[0] == 7.0
    assert found[1] < 7.0


# What is refused.


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), X, {}, "contain a GaussianizationFlow; got"),
        (Pair, X, {"flows": "c"}, r"`flows` must match .*'c' matches none of 'a', 'b'"),
        (Pair, X, {"flows": ["a", "c"]}, "'c' matches none of 'a', 'b'"),
        (diagonal, X, {"flows": "a"}, r"matches none of '' \(the model itself\)"),
        (Pair, X, {"flows": nnx.PathContains("c")}, "PathContains.* matches none of"),
        (Pair, X, {"flows": []}, "must name at least one flow"),
        (Pair, X, {"flows": 3}, "`flows` must be a path such as .*; got int"),
        (Pair, X, {"flows": diagonal()}, "got GaussianizationFlow"),
        (Pair, X, {"flows": {"a": X}}, r"`flows` must map paths .*`x`: {'a': rows}"),
        (Pair, X, {"flows": {"a": lambda m, x: (x, x, x)}}, r"\(rows, context\); got 3"),
        (Pair, X, {"flows": {"a": lambda m, x: x[:, :1]}}, r"must be \[rows, 2\]"),
        (Pair, {"c": X}, {}, "`x` must match .*'c' matches none of 'a', 'b'"),
        (Pair, {"a": X}, {"flows": ["a", "b"]}, "`x` must hold rows .*; got none of 'b'"),
        (Pair, {"a": X, "*": X, "b": X}, {}, "`x` must name each flow once; 'b' matches"),
        (Pair, X, {"weights": {"c": X[:, 0]}}, "`weights` must match a flow"),
        (Pair, {"a": X, "b": X[:, :1]}, {}, "flow 'b': `x` must be"),
        (Pair, X, {"context": X}, "flow 'a': `context` must be None"),
        (Shared, {"a": X, "more.b": X}, {}, "'more.b' matches only 'a', which an earlier"),
    ],
)  # fmt: skip
def test_what_names_no_flow_or_no_rows_is_refused(model, x, options, message):
    model = model if isinstance(model, nnx.Module) else model()
    with pytest.raises(ValueError, match=message):
        warm(model, x, **options)


def test_flows_that_share_a_layer_are_refused_together():
    a, b = diagonal(), diagonal(seed=1)
    b.layers[1] = a.layers[1]
    with pytest.raises(ValueError, match="'a' and 'b' share the latter's layer 1"):
        warm(Pair(a, b))


@pytest.mark.parametrize(
    ("out_axes", "message"),
    [
        (1, "on the first axis of every variable; got variables stacked by"),
        (nnx.StateAxes({rn.Frozen: None, ...: 0}), r"beside one of shape \(2,\)"),
    ],
)
def test_members_that_are_not_on_the_first_axis_are_refused(out_axes, message):
    model = nnx.vmap(coupling, out_axes=out_axes)(nnx.Rngs(0).split(3))
    with pytest.raises(ValueError, match=message):
        warm(model)


def test_members_need_a_backend_that_takes_weights():
    with pytest.raises(ValueError, match="`backend` must be 'jax' for the members"):
        warm(ensemble(coupling, 2), backend="sklearn")


@pytest.mark.parametrize(
    ("transform", "args", "name"),
    [
        (jax.jit, lambda: (diagonal(), X), "model"),
        (nnx.jit, lambda: (diagonal(), X), "model"),
        (functools.partial(jax.jit, static_argnums=0), lambda: (None, X), "x"),
        (functools.partial(jax.jit, static_argnums=(0, 1)), lambda: (None, None), "model"),
        (functools.partial(jax.vmap, in_axes=(None, 0)), lambda: (None, X[None]), "x"),
        (functools.partial(jax.grad, argnums=1), lambda: (None, X), "x"),
    ],
)  # fmt: skip
def test_within_a_transform_it_says_to_go_outside(transform, args, name):
    outside = diagonal()

    def start(model, x):
        model = model or outside
        return warm(model, X if x is None else x)[0].log_prob(X).mean()

    message = f"`{name}` must not be traced: .* outside of jax.jit, vmap"
    with pytest.raises(ValueError, match=message):
        transform(start)(*args())
