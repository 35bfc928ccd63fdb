import functools

import numpy as np
import pytest

from trainers.estimators import starts
from trainers.estimators.encoded import EncodedTable, split
from trainers.estimators.fitting import compile_ahead, train_flow
from trainers.estimators.settings import Architecture, settings_for
from trainers.estimators.starts import start
from trainers.placement import compilation


def encoded(columns):
    rows = np.stack(columns, axis=1)
    rows = (rows - rows.mean(0)) / rows.std(0)
    return EncodedTable(rows=rows.astype(np.float32), log_det=np.zeros(len(rows)))


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(3, 600))
    return {
        "normal": encoded(normal[:2]),
        "heavy": encoded([normal[0], rng.standard_t(1.5, size=600)]),
        "one": encoded(normal[2:]),
    }


def layers(table, **options):
    settings = {"num_blocks": 1, "num_components": 4, "hidden": (4,), **options}
    flow, report = start(table, Architecture(**settings), seed=0)
    assert len(report.layers) == len(flow.layers)
    return [type(layer).__name__ for layer in flow.layers]


@pytest.mark.slow
def test_heavy_tails_are_taken_off_where_the_start_gains(tables):
    assert "TailTransform" in layers(tables["heavy"])
    assert "TailTransform" not in layers(tables["normal"])


@pytest.mark.slow
def test_columns_are_mapped_first_where_the_start_gains(tables):
    a, b = np.random.default_rng(1).normal(size=(2, 600))
    skewed = encoded([np.exp(a), np.exp(0.8 * a + 0.6 * b)])
    assert "MixtureCDFMarginal" in layers(skewed, clusters=0)
    assert "MixtureCDFMarginal" not in layers(tables["normal"], clusters=0)


@pytest.fixture(scope="module")
def elliptical():
    """Rows of four features that share one random scale."""
    rng = np.random.default_rng(0)
    return encoded(rng.normal(size=(4, 400)) / np.sqrt(rng.chisquare(2, 400) / 2))


@pytest.mark.slow
def test_a_shared_scale_is_taken_out_where_the_start_gains(tables, elliptical):
    found = layers(elliptical, rotation="pca")
    assert found[:3] == ["Standardize", "Whiten", "RadialTransform"]
    assert "RadialTransform" not in layers(tables["heavy"])
    assert "RadialTransform" not in layers(tables["normal"])


@pytest.mark.slow
def test_layers_are_compared_alone(tables, elliptical):
    def alone(table, **options):
        return starts._alone(table, Architecture(**options), seed=0)

    both = {"tails": True, "marginals": True}
    found = alone(elliptical)
    assert found.radius > found.columns > found.columns - found.gain
    assert alone(elliptical, radial=False)._replace(radius=found.radius) == found
    assert alone(elliptical, whiten=False).radius is None
    assert alone(elliptical, clusters=2).radius is None
    assert alone(elliptical, tails=False).maps == {"marginals": True}
    assert alone(elliptical, tails=False, marginals=True).maps == {}
    found = alone(tables["heavy"])
    assert found.maps == both
    assert found.gain > 0.5
    assert alone(tables["normal"]).gain < 0.01
    assert alone(tables["one"]).maps == {"tails": True}
    # Fewer rows than a marginal's usual components.
    few = alone(elliptical.at(slice(7)), num_components=1)
    assert np.isfinite(few.columns)


def test_likely_layers_are_told_before_they_are_tried(tables, clustered):
    def told(table, **options):
        class Told(Exception):
            pass

        found = []

        def expect(architecture):
            found.append(architecture)
            raise Told

        with pytest.raises(Told):
            start(table, Architecture(**options), seed=0, expect=expect)
        return found[0]

    found = told(tables["heavy"], clusters=0)
    assert (found.tails, found.marginals, found.clusters) == (True, True, 0)
    found = told(clustered, tails=False, marginals=False, radial=False)
    assert (found.tails, found.marginals, found.clusters) == (False, False, 16)


@pytest.fixture(scope="module")
def clustered():
    """Rows of three columns in four clusters."""
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(4, 3))
    return encoded((means[rng.integers(4, size=400)] + rng.normal(size=(400, 3)) / 4).T)


def test_clusters_alone_decide_whether_blocks_are_fitted_behind_them(clustered):
    asked = Architecture(
        num_blocks=1, tails=False, marginals=False, radial=False, clusters=16
    )

    def begin(architecture, **options):
        flow = starts.build_flow(clustered, architecture, seed=0)
        return starts._start(flow, clustered, "pca", seed=0, **options)

    def seen(least):
        names = []
        found = starts._unless_behind(
            begin, asked, least, callback=lambda layer: names.append(layer.name)
        )
        return found is not None, names

    is_found, names = seen(-5.0)
    assert is_found
    assert names[1] == "ClusterTransform"
    assert len(names) > 2
    assert seen(0.0) == (False, ["Standardize"])


def test_how_many_clusters_are_tried(tables, clustered):
    def most(table, **options):
        return starts.most_clusters(table, Architecture(**options))

    assert most(clustered) == 16
    assert most(clustered.at(slice(45))) == 4
    assert most(clustered.at(slice(15))) == most(tables["one"]) == 0
    assert most(clustered, clusters=0) == most(clustered, radial=True) == 0


@pytest.mark.slow
def test_clusters_are_taken_apart_where_the_start_gains(tables, clustered):
    found = layers(clustered)
    assert found[:3] == ["Standardize", "ClusterTransform", "HouseholderRotation"]
    assert "ClusterTransform" not in layers(tables["heavy"])
    assert "ClusterTransform" not in layers(tables["normal"])


@pytest.mark.slow
def test_what_is_asked_for_is_built(tables):
    found = layers(
        tables["heavy"],
        tails=False,
        marginals=False,
        whiten=False,
        radial=False,
        clusters=0,
    )
    assert found[:2] == ["Standardize", "HouseholderRotation"]
    found = layers(
        tables["normal"], tails=True, marginals=True, radial=True, clusters=0
    )
    wanted = ["Standardize", "TailTransform", "MixtureCDFMarginal", "Whiten"]
    assert found[:4] == wanted
    found = layers(
        tables["normal"], tails=False, marginals=False, radial=False, clusters=2
    )
    assert found[:2] == ["Standardize", "ClusterTransform"]
    found = layers(
        tables["normal"],
        tails=False,
        marginals=False,
        radial=False,
        whiten=True,
        clusters=2,
    )
    assert found[:3] == ["Standardize", "Whiten", "ClusterTransform"]


def test_what_was_decided_is_told_with_what_overrides_it(tables):
    asked = {"tails": True, "marginals": False, "radial": False, "clusters": 2}
    settings = {"num_blocks": 1, "num_components": 2, "hidden": (4,)}
    found = Architecture(**settings, **asked, whiten=False)
    names = {name: f"--{name}" for name in (*asked, "whiten")}
    _, report = start(tables["heavy"], found, seed=0)
    actions = {layer.name: layer.action for layer in report.layers}
    assert starts.told(report, 2, names, "{} {}") == (
        f"heavy tails taken off {actions['TailTransform']} (--tails False);"
        " no own maps of columns (--marginals True); not whitened (--whiten True);"
        " no shared scale (--radial True);"
        f" clusters: {actions['ClusterTransform']} (--clusters 0)"
    )


def test_one_column_has_nothing_to_whiten(tables):
    assert "Whiten" not in layers(
        tables["one"], tails=False, marginals=False, radial=False
    )


@pytest.mark.slow
def test_what_is_compiled_ahead_is_what_runs(tables, monkeypatch):
    compilation.forget()
    train, valid = split(tables["normal"], 0.1, 0)
    asked = {"num_steps": 2, "hidden": (4,), "num_components": 2}
    asked |= {"tails": False, "marginals": False, "radial": False, "clusters": 0}
    settings = settings_for(*train.rows.shape, asked=asked)
    expect = functools.partial(compile_ahead, train, valid, settings)
    flow, _ = start(train, settings.architecture, seed=1, expect=expect)
    monkeypatch.setattr(compilation, "Compiled", None)  # nothing more is compiled
    result = train_flow(flow, train, valid, settings.train)
    assert result.stop_reason == "completed"
    compilation.forget()
