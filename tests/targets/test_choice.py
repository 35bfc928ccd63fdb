"""Which flows are fitted, and what belongs to each."""

import jax
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.targets.models import (
    Pair,
    Plain,
    X,
    assert_same,
    coupling,
    diagonal,
    warm,
)


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
