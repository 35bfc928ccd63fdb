import numpy as np
import pytest

from trainers.command.steps import verdict

MIXTURE = "Gaussian mixture, 4 components"


def report(difference, noise=0.1, n=400, **more):
    random = np.random.default_rng(0)
    mixture = random.normal(size=n)
    flow = mixture + difference + noise * random.normal(size=n)
    scores = {
        "Gaussian": mixture - 1,
        MIXTURE: mixture,
        verdict.START: flow,
        verdict.TRAINED: flow,
    }
    rows = {"train": 8 * n, "valid": n, "test": n}
    about = {"rows": rows, "columns": ["a", "b"], "best_step": 100, "last_step": 200}
    return verdict.judged(scores, MIXTURE) | about | more


def test_figures_have_errors_and_differences_are_paired():
    found = report(0.5)
    over = found["over_mixture"][verdict.TRAINED]
    assert over["mean"] == pytest.approx(0.5, abs=0.02)
    assert over["standard_error"] == pytest.approx(0.1 / 20, rel=0.1)
    assert found["standard_error"][MIXTURE] == pytest.approx(1 / 20, rel=0.1)
    assert found["over_mixture"]["Gaussian"]["mean"] == pytest.approx(-1)
    assert MIXTURE not in found["over_mixture"]
    assert verdict.mean_and_error([1.0]) == (1.0, None)
    assert verdict.mean_and_error([1.0, -np.inf]) == (None, None)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.5, "the flow is better than the Gaussian mixture of 4 components, by 0."),
        (-0.5, "the flow is worse than the Gaussian mixture of 4 components, by 0."),
        (0.0, "is not distinguishable from the Gaussian mixture of 4 components"),
    ],
)
def test_the_verdict_is_a_sentence(difference, words):
    first, *others = verdict.sentences(report(difference))
    assert words in first
    assert first.startswith("On 400 test rows")
    assert any("Try " in line for line in others) == (difference < 0)


def test_what_else_is_said():
    assert "step 0" in verdict.sentences(report(0.5, best_step=0))[-1]
    ended = report(0.5, best_step=200, stop_reason="completed")
    assert "--train.num-steps" in verdict.sentences(ended)[-1]
    assert "More test rows" in verdict.sentences(report(0.0, n=50))[1]
    assert "by the rows" in verdict.sentences(report(0.5, choice="by the rows"))
    bad = report(-np.inf)
    assert "cannot be compared" in verdict.sentences(bad)[0]


def test_units_by_column():
    columns = [
        {"column": "a", "log_p": "a density per unit"},
        {"column": "q", "log_p": "a mass"},
        {"column": "b", "log_p": "a density per unit"},
        {"column": "id", "log_p": ""},
    ]
    assert verdict.units(columns) == (
        "log p in nats per row: a density per unit of a, b; a mass of q."
    )
    columns = [{"column": str(i), "log_p": "a mass"} for i in range(13)]
    assert verdict.units(columns) == "log p in nats per row: a mass of 13 columns."
