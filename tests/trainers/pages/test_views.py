import numpy as np
import pandas as pd

from trainers.pages.views import dependence, most_dependent, views
from trainers.tables.door import as_frame
from trainers.tables.schema import Schema


def table(n=400, seed=0):
    random = np.random.default_rng(seed)
    color = random.choice(["red", "green", "blue"], n, p=[0.6, 0.3, 0.1])
    return pd.DataFrame(
        {
            "price": np.exp(2 * random.normal(size=n)),
            "color": color,
            "count": random.poisson(200, n),
            "grade": random.integers(1, 5, n),
            "linked": (color == "red") + 0.1 * random.normal(size=n),
            "day": np.datetime64("2024-01-01") + random.integers(0, 300, n),
        }
    )


def viewed(n=400):
    frame = as_frame(table(n))
    return {
        v.name: v for v in views(Schema.of(frame).kept, frame, as_frame(table(n, 1)))
    }


def test_every_kind_has_the_axis_that_honours_it():
    found = viewed()
    assert found["price"].log
    assert np.ptp(found["price"].data) > 2
    assert set(found["color"].levels) == {"red", "green", "blue"}
    assert found["grade"].levels == ("1", "2", "3", "4")
    widths = np.diff(found["count"].edges)
    np.testing.assert_allclose(widths, np.round(widths))  # whole cells of the grid
    assert found["day"].text(found["day"].data[0]).startswith("2024-")
    for view in found.values():
        assert 0.98 < view.shares(view.data).sum() <= 1
        assert 0.9 < view.shares(view.drawn).sum() <= 1


def test_shares_of_levels_are_those_of_the_words():
    view = viewed()["color"]
    expected = table()["color"].value_counts(normalize=True)
    shares = dict(zip(view.levels, view.shares(view.data), strict=True))
    assert shares == {name: expected[name] for name in view.levels}


def test_what_depends_is_chosen():
    found = viewed()
    linked = dependence(found["color"], found["linked"])
    assert linked > 0.4
    assert dependence(found["color"], found["count"]) < 0.1
    chosen = most_dependent(list(found.values()), 2)
    assert [v.name for v in chosen] == ["color", "linked"]
    assert most_dependent(chosen, 5) == chosen
