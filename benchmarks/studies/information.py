"""Mutual information beside its truth: python -m benchmarks.studies.information.

Of the halves of D columns, whose truth has a closed form: Gaussian pairs, these cubed, which
leaves the information as it is, and a Student-t. Ours is of normal scores, which leave it as it
is too: the joint density and those of the halves, on the rows that each of five fits leaves
out, by warm starts without training, of which a tenth of the rows chooses with or without a
radius, and with `--trained` by `FlowDensity` on the first of the five. Beside it the formula
for Gaussians and k nearest neighbours (Kraskov et al., Estimating mutual information, 2004, by
npeet_plus), both of the columns and of their normal scores.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import npeet_plus
import numpy as np
import scipy.special
import scipy.stats
import tyro
from flax import nnx
from rich.console import Console
from sklearn.model_selection import KFold

import rbig_nnx as rn
import trainers

_FOLDS = 5
_FREEDOM = 3  # of the Student-t
_NEIGHBOURS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the comparison."""

    widths: tuple[int, ...] = (2, 4, 16)
    sizes: tuple[int, ...] = (500, 2_000, 20_000)
    seeds: int = 5
    cases: tuple[str, ...] = ("Gaussian", "cubed", "Student-t")
    folds: int = _FOLDS  # of the five, that are fitted
    trained: bool = False


def covariance(d: int) -> np.ndarray:
    """Column i of the first half goes with column i of the second: .8, .5, .8, ..."""
    half = d // 2
    shared = np.diag(np.resize([0.8, 0.5], half))
    return np.block([[np.eye(half), shared], [shared, np.eye(half)]])


def gaussian(n: int, d: int, seed: int) -> np.ndarray:
    """Rows of N(0, `covariance`)."""
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(np.zeros(d), covariance(d), n)


def student_t(n: int, d: int, seed: int) -> np.ndarray:
    """The same over the root of one χ² for each row."""
    squares = np.random.default_rng(seed + 1_000).chisquare(_FREEDOM, (n, 1))
    return gaussian(n, d, seed) / np.sqrt(squares / _FREEDOM)


def truth_gaussian(d: int) -> float:
    """−½ log det of the correlations, nats."""
    return -0.5 * np.linalg.slogdet(covariance(d))[1]


def truth_student_t(d: int) -> float:
    """That, and what the common radius tells, nats."""

    def entropy(width: int) -> float:
        shape = np.zeros(width), np.eye(width)
        return float(scipy.stats.multivariate_t(*shape, df=_FREEDOM).entropy())

    return truth_gaussian(d) + 2 * entropy(d // 2) - entropy(d)


CASES: dict[str, tuple[Callable, Callable]] = {
    "Gaussian": (gaussian, truth_gaussian),
    "cubed": (lambda *size: gaussian(*size) ** 3, truth_gaussian),
    "Student-t": (student_t, truth_student_t),
}


def normal_scores(x: np.ndarray) -> np.ndarray:
    """Each column's ranks as quantiles of N(0, 1)."""
    ranks = scipy.stats.rankdata(x, axis=0) / (len(x) + 1)
    return scipy.special.ndtri(ranks)


def by_formula(x: np.ndarray) -> float:
    """Were the rows Gaussian."""
    half = x.shape[1] // 2
    c = np.corrcoef(x, rowvar=False)
    parts = (c[:half, :half], c[half:, half:], c)
    signs = (0.5, 0.5, -0.5)
    dets = [np.linalg.slogdet(np.atleast_2d(part))[1] for part in parts]
    return float(np.dot(signs, dets))


def by_neighbours(x: np.ndarray) -> float:
    """Kraskov's first estimate, of columns in standard deviations."""
    x, half = (x - x.mean(0)) / x.std(0), x.shape[1] // 2
    return npeet_plus.mi(x[:, :half], x[:, half:], k=_NEIGHBOURS, base=np.e)


def by_flows(x: np.ndarray, seed: int, folds: int = _FOLDS) -> tuple[float, float]:
    """Ours by warm starts, with its standard error."""
    return _by_densities(x, seed, _started, folds=folds)


def by_training(x: np.ndarray, seed: int) -> tuple[float, float]:
    """Ours by `FlowDensity` with its defaults, on one part of five."""
    return _by_densities(x, seed, _trained, folds=1)


def _by_densities(
    x: np.ndarray, seed: int, fit: Callable, *, folds: int
) -> tuple[float, float]:
    half, found = x.shape[1] // 2, []
    parts = KFold(_FOLDS, shuffle=True, random_state=seed).split(x)
    for train, test in itertools.islice(parts, folds):
        columns = x, x[:, :half], x[:, half:]
        densities = [fit(part[train], seed) for part in columns]
        rows = columns[1][test], columns[2][test]
        measure = rn.information.mutual_information
        found.append(measure(*densities, *rows, standard_error=True))
    means, errors = np.asarray(found).T
    return float(means.mean()), float(np.sqrt(np.sum(errors**2)) / folds)


def _started(x: np.ndarray, seed: int) -> rn.GaussianizationFlow:
    d, tenth = x.shape[1], len(x) // 10

    flows = []
    for radial in (False, True)[: min(d, 2)]:
        shape = {"whiten": d > 1, "radial": radial, "rngs": nnx.Rngs(seed)}
        flow = rn.diagonal_flow(d, 4 if d > 1 else 1, **shape)
        options = {"key": jax.random.key(seed), "rotation": "auto"}
        flows.append(rn.warm_start(flow, x[tenth:], **options)[0])
    return max(flows, key=lambda flow: float(flow.log_prob(x[:tenth]).mean()))


def _trained(x: np.ndarray, seed: int) -> rn.information.Density:
    return trainers.FlowDensity(random_state=seed).fit(x).table_


OURS, TRAINED, KSG = "ours", "trained", "KSG"
RIVALS: dict[str, Callable[[np.ndarray], float]] = {
    "Gaussian": by_formula,
    "of scores": lambda x: by_formula(normal_scores(x)),
    KSG: by_neighbours,
    "of scores ": lambda x: by_neighbours(normal_scores(x)),
}


class Errors(NamedTuple):
    """Of one estimate over seeds: estimate minus truth, nats."""

    mean: float
    standard_error: float
    seconds: float
    within: int  # seeds within two of their own standard errors, where there are such


def measure(
    case: str, n: int, d: int, *, seeds: int, folds: int, trained: bool
) -> dict[str, Errors]:
    """Each way's errors."""
    draw, truth = CASES[case]
    samples = [draw(n, d, seed) for seed in range(seeds)]

    def errors(estimate: Callable[[np.ndarray, int], tuple[float, float]]) -> Errors:
        began = time.perf_counter()
        found = np.array([estimate(x, seed) for seed, x in enumerate(samples)])
        seconds = (time.perf_counter() - began) / seeds
        off = found[:, 0] - truth(d)
        error = np.std(off, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
        within = np.sum(np.abs(off) <= 2 * found[:, 1])
        return Errors(off.mean(), error, seconds, within)

    rows = {OURS: errors(lambda x, seed: by_flows(normal_scores(x), seed, folds))}
    if trained:
        rows[TRAINED] = errors(lambda x, seed: by_training(normal_scores(x), seed))
    for name, rival in RIVALS.items():
        rows[name] = errors(lambda x, seed, rival=rival: (rival(x), np.nan))  # noqa: ARG005
    return rows


def main(settings: Settings) -> None:
    """Prints the table, a row as it is done."""
    ours = (OURS, TRAINED) if settings.trained else (OURS,)
    columns = (*ours, *RIVALS, *(f"{way} within 2 SE" for way in ours), "s of each")
    console = Console(width=200)
    console.print("| case | D | rows | truth |", " | ".join(columns), "|")
    for case in settings.cases:
        for d, n in itertools.product(settings.widths, settings.sizes):
            rows = measure(
                *(case, n, d),
                seeds=settings.seeds,
                folds=settings.folds,
                trained=settings.trained,
            )
            cells = [f"{e.mean:+.3f} ± {e.standard_error:.3f}" for e in rows.values()]
            cells += [f"{rows[way].within} of {settings.seeds}" for way in ours]
            timed = (*ours, KSG)
            cells += [", ".join(f"{rows[way].seconds:.1f}" for way in timed)]
            first = f"| {case} | {d} | {n:,} | {CASES[case][1](d):.3f} |"
            console.print(first, " | ".join(cells), "|")


if __name__ == "__main__":
    main(tyro.cli(Settings))
