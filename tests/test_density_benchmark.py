import dataclasses
import json
import re

import numpy as np
import pytest

from benchmarks.density import __main__ as density
from benchmarks.density import data, fits, pages, plan, records, summary
from benchmarks.density.flows import FLOWS, WARM

RANDOM = "rbig-nnx, random"
PEER = "RealNVP, whitened"
TINY = {"table": "moons", "num_rows": 40, "num_test": 100, "seed": 0}
TINY |= {"most_components": 1}


def settings(tmp_path, **options):
    return density.Density(kept=tmp_path / "kept", out=tmp_path / "density", **options)


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    cheap = [fits.Fit(model=model, **TINY) for model in fits.CHEAP]
    flow = fits.Fit(model=RANDOM, seconds=1.0, **TINY)
    assert density.main(settings(tmp_path, models=fits.CHEAP), [*cheap, flow]) == 0
    assert len(json.loads((tmp_path / "density.json").read_text())["rows"]) == 3

    made = []

    def run(fit):
        made.append(fit)
        return fits.run(fit)

    monkeypatch.setattr(records, "run", run)
    for _ in range(2):
        assert density.main(settings(tmp_path), [*cheap, flow]) == 0
        assert made == [flow]
    rows = json.loads((tmp_path / "density.json").read_text())["rows"]
    curve = rows[-1]["curve"]
    assert curve[0][1] == 0
    assert curve[-1][0] <= rows[-1]["seconds_taken"] + 0.01
    assert all(np.isfinite(row["log_prob"]) for row in rows)
    assert rows[-1]["log_prob"] == summary.best_so_far(curve)[-1].test
    assert f"| {RANDOM} |" in (tmp_path / "density.md").read_text()
    for other in ({"seed": 1}, {"seconds": 2.0}, {"num_test": 99}):
        changed = dataclasses.replace(flow, **other)
        assert records.finished(tmp_path / "kept", [changed]) == []


@pytest.mark.slow
def test_a_peer_is_trained_alike_and_its_matrices_decay():
    pytest.importorskip("flowjax", reason="the extra `bench`")
    found = fits.run(fits.Fit(model=PEER, steps=2, **TINY))
    assert [point.step for point in found["curve"]][-1] == 2
    assert np.isfinite(found["log_prob"])
    train = fits.EncodedTable(rows=np.eye(3, dtype="f4"), log_det=np.zeros(3))
    architecture = fits.settings_for(300, 3, asked={}).architecture
    for name in ("spline", "MAF"):
        (layer,) = FLOWS[name](train, architecture, 0).layers
        names = [next(iter(array)) for array in layer.arrays]
        assert names.count("kernel") == names.count("bias") == 2


def record(model, seed, log_prob, table="power", **more):
    fit = fits.Fit(table=table, num_rows=100, num_test=10, model=model, seed=seed)
    other = {"log_prob": log_prob, "seconds_taken": 9.0, "truth": None}
    return dataclasses.asdict(fit) | other | more


def flow_records(model, seed, curve, **more):
    return record(model, seed, curve[-1][-1], seconds=8.0, curve=curve, **more)


# Seconds, step, valid, test: the last evaluation of the warm start is not chosen.
AHEAD = [(2, 0, 0.0, 0.0), (4, 10, 2.0, 2.0), (8, 20, 1.0, 9.0)]
BEHIND = [(1, 0, -1.0, -1.0), (3, 10, 1.0, 1.0), (8, 20, 2.0, 3.0)]
ROWS = [
    row
    for seed in (0, 1)
    for row in (
        record(fits.MIXTURE, seed, 1.5),
        record(fits.DEFAULTS, seed, 1.0 + seed),
        flow_records(WARM, seed, AHEAD) | {"log_prob": 2.0},
        flow_records("spline", seed, BEHIND),
    )
]


def test_means_differences_and_the_seconds_to_a_level():
    (group,) = summary.races(ROWS)
    ours, spline = (group.of(model, seconds=8.0) for model in (WARM, "spline"))
    levels = summary.levels(group, 8.0)
    assert summary.seconds_to(ours, levels["mixture"]) == 4
    assert summary.seconds_to(ours, levels["spline"]) == np.inf
    assert summary.seconds_to(spline, levels["mixture"]) == 8
    difference = summary.over(group.of(fits.DEFAULTS), group.of(fits.MIXTURE))
    assert difference == (0.0, 0.5)
    values = summary.curves(group, 8.0, np.array([1.0, 2.0, 7.0, 8.0]))[WARM]
    np.testing.assert_array_equal(values, [[np.nan, 0, 2, 2]] * 2)


def test_the_pages_and_the_figure_are_made_of_the_json_alone(tmp_path, monkeypatch):
    environment = {"commit": "abc", "device": "cpu", "cores": 2, "form": "full"}
    document = {"environment": environment | {"note": "Shared."}, "rows": ROWS}
    (tmp_path / "density.json").write_text(json.dumps(document))
    page = tmp_path / "page.md"
    empty = "<!-- density:said -->\n<!-- / -->\n"
    page.write_text(f"a\n<!-- density:races -->\nearlier\n<!-- / -->\nb\n{empty}c\n")
    monkeypatch.setattr(density, "PAGES", (page,))
    monkeypatch.setattr(density, "FIGURE", tmp_path / "figure.png")
    for _ in range(2):
        assert density.main(settings(tmp_path, draw=True)) == 0
    assert re.match(r"a\n<!-- density:races -->\n\| power, 100 rows", page.read_text())
    assert "earlier" not in page.read_text()
    assert "\n<!-- / -->\nb\n<!-- density:said -->\nThe full" in page.read_text()
    assert page.read_text().endswith("\n<!-- / -->\nc\n")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    table = (tmp_path / "density.md").read_text()
    assert "| spline | **3.00 ± 0.00** | +1.50 ± 0.00 |" in table
    assert f"| {WARM} | 8 | 20 | 4 | never |" in table
    assert "| +0.000 ± 0.500 | **1.50** | **1.50** |" in table
    assert "Shared." in table


def test_rows_are_dithered_at_their_step_and_densities_are_known():
    rows = np.random.default_rng(0).normal(size=(500, 2))
    rows = np.stack([rows[:, 0].round(1), rows[:, 1].round(6)], axis=1)
    noisy = data.dithered(rows, 0)
    assert np.abs(noisy - rows).max(axis=0) == pytest.approx([0.05, 5e-7], rel=0.02)
    limits = {"Student-t": -7.1031, "moons": -1.32, "sources": None}
    for name, limit in limits.items():
        sample = data.SOURCES[name].draw(200, 20_000, 0)
        assert sample.rows.shape == (200, data.SOURCES[name].num_columns)
        assert np.isfinite(sample.truth)
        np.testing.assert_allclose(sample.test.std(axis=0), 1, atol=0.1)
        if limit is not None:
            assert sample.truth == pytest.approx(limit, abs=0.05)


def test_the_forms_have_every_model_and_no_fit_twice():
    for form in (plan.quick(), plan.rows(), plan.full()):
        assert len(set(form)) == len(form)
        assert [fit.seed for fit in form] == sorted(fit.seed for fit in form)
    models = {*FLOWS, *fits.CHEAP}
    assert {fit.model for fit in plan.full()} == {*models, fits.DEFAULTS}
    assert {fit.model for fit in plan.quick()} == models
    assert {fit.table for fit in plan.rows()} == set(data.SOURCES)
    assert {fit.seed for fit in plan.full()} == set(range(5))
    assert {fit.table for fit in plan.full()} == set(data.SOURCES)
    assert max(f.num_rows for f in plan.full() if f.table == "digits") == 1_000


def test_nothing_measured_makes_no_tables():
    environment = {"form": "full", "commit": "a", "device": "cpu", "cores": 1}
    (said,) = pages.blocks(environment | {"note": ""}, []).values()
    assert said.startswith("The full form, commit a, cpu, 1 core. Held-out")
