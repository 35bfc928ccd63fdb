"""Mixtures of Gaussians with full covariances, of some thousand rows, on the host.

Expectation maximisation from k-means, in NumPy: it compiles nothing, and a few rows ask for
many fits. scikit-learn's `GaussianMixture` takes no weights, and its only prior is a ridge: of
few rows each component's covariance has to lean on what they all share.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from rbig_nnx.fit.judges import gain_and_error, judged
from rbig_nnx.fit.mixtures import Block, Place
from rbig_nnx.fit.sample import generator, on_host, row_numbers
from rbig_nnx.math.clusters import ClusterParams
from rbig_nnx.math.probit import LOG_SQRT_2PI

_ROWS = 16_384  # that are fitted, at most
_TRIAL_ROWS = 4_096  # from which the sizes and priors are chosen
_STARTS = 2  # of k-means
_ROUNDS, _TOLERANCE = 100, 1e-4  # nats a row
_LEAST_GAIN = 0.005  # nats a row over no mixture at all
# Pseudo-rows a feature of the covariance that the components share, and variance added.
_PRIORS = ((0.0, 1e-4), (0.0, 1e-2), (0.5, 1e-4), (0.5, 1e-2), (0.5, 0.1), (3.0, 0.1))


class _Gaussians(NamedTuple):
    """Components: u = roots (x − means) is standard normal."""

    log_weights: np.ndarray  # [K]
    means: np.ndarray  # [K, d]
    roots: np.ndarray  # [K, d, d], lower triangular


class _Choice(NamedTuple):
    num_components: int
    shared: float
    ridge: float


def identity(num_components: int, num_features: int) -> ClusterParams:
    """N(0, I), as components that are all the same."""
    k, d = num_components, num_features
    zeros = ((k,), (k, d), (k, d, d), (k, d))
    return ClusterParams(*(np.zeros(shape, np.float32) for shape in zeros))


def fit_clusters(place: Place, num_components: int) -> tuple[str, list[ClusterParams]]:
    """What was done, and a mixture for each chain, of at most `num_components`.

    How many, and how far their covariances lean on the shared one and are blurred, is chosen
    by the rows that judge. The identity where they gain nothing.
    """
    d = place.blocks[0].x.shape[1]
    rng = generator(place.key)
    most = min(num_components, *(block.rows.fit.size for block in place.blocks))
    choice = _Choice(most, 0.0, 1e-4)
    if place.options.holds_out:
        folds = [_fold(block, rng) for block in judged(place.blocks)]
        choice, gain, error = _choose(folds, num_components)
        if gain < max(error, _LEAST_GAIN):
            same = identity(num_components, d)
            return "left as it is", [same for _ in place.blocks]
    fits = []
    for block in place.blocks:
        x, weights = _rows(block.x, block.rows.fit, _ROWS, rng)
        labels = _labels(x, weights, choice.num_components)
        fits.append(_as_regressions(_fit(x, weights, labels, choice), num_components))
    fewer = f" of at most {most}" if choice.num_components < most else ""
    return f"{choice.num_components} clusters{fewer}", fits


def _rows(x, weights, limit, rng) -> tuple[np.ndarray, np.ndarray]:
    """Rows that have weight, [n, d], and their weights, [n], in double precision."""
    weights = on_host(weights).astype(np.float64)
    (at,) = np.nonzero(weights)
    if len(at) > limit:
        at = at[row_numbers(rng, len(at), limit)]
    return on_host(x)[at].astype(np.float64), weights[at]


def _fold(block: Block, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Rows that are fitted and their weights, rows that judge and theirs."""
    return (
        *_rows(block.x, block.rows.fit, _TRIAL_ROWS, rng),
        *_rows(block.x, block.rows.judge, _TRIAL_ROWS, rng),
    )


def _choose(
    folds: Sequence[tuple[np.ndarray, ...]], num_components: int
) -> tuple[_Choice, float, float]:
    """What the rows that judge like best, and its gain over N(0, I) with the error, nats."""
    weights = np.concatenate([fold[3] for fold in folds])
    plain = np.concatenate([_log_normal(fold[2]) for fold in folds])
    least = min(len(fold[0]) for fold in folds)
    sizes = [2**i for i in range(1, num_components.bit_length())]
    sizes = sorted({k for k in (*sizes, num_components) if 2 * k <= least})
    best, most, error = _Choice(1, 0.0, 1e-4), -np.inf, 0.0
    for size in sizes:
        before = most
        labels = [_labels(*fold[:2], size) for fold in folds]
        for shared, ridge in _PRIORS:
            choice = _Choice(size, shared, ridge)
            found = np.concatenate(
                [
                    _log_density(fold[2], _fit(*fold[:2], own, choice))
                    for fold, own in zip(folds, labels, strict=True)
                ]
            )
            gain, noise = gain_and_error(found - plain, weights)
            if gain > most:
                best, most, error = choice, gain, noise
        if most == before:
            break  # more components have gained nothing
    return best, float(most), float(error)


def _labels(x: np.ndarray, weights: np.ndarray, num_components: int) -> np.ndarray:
    """Each row's cluster by k-means, [n]."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    means = KMeans(num_components, n_init=_STARTS, random_state=0)
    # Threads wait for each other by spinning, which on a busy machine takes seconds.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows
        return means.fit(x, sample_weight=weights).labels_


def _fit(
    x: np.ndarray, weights: np.ndarray, labels: np.ndarray, choice: _Choice
) -> _Gaussians:
    """Expectation maximisation from clusters of the rows."""
    shares = np.eye(choice.num_components)[labels]
    found, last = _maximise(x, weights, shares, choice), -np.inf
    for _ in range(_ROUNDS):
        joint = _log_joint(x, found)
        log_density = scipy.special.logsumexp(joint, axis=1)
        mean = np.average(log_density, weights=weights)
        if not mean - last > _TOLERANCE:
            break
        last = mean
        shares = np.exp(joint - log_density[:, None])
        found = _maximise(x, weights, shares, choice)
    return found


def _maximise(x, weights, shares, choice: _Choice) -> _Gaussians:
    """Components of the rows' shares in them, [n, K]."""
    d = x.shape[1]
    masses = shares * (weights / np.mean(weights))[:, None]
    sizes = np.sum(masses, axis=0) + 1e-12
    means = masses.T @ x / sizes[:, None]
    centred = x - means[:, None]
    scatters = np.swapaxes(masses.T[:, :, None] * centred, 1, 2) @ centred
    shared, pseudo = np.sum(scatters, axis=0) / np.sum(sizes), choice.shared * d
    covariances = (scatters + pseudo * shared) / (sizes + pseudo)[:, None, None]
    lower = np.linalg.cholesky(covariances + choice.ridge * np.eye(d))
    # One row of each more: no component is ever without weight.
    log_weights = np.log((sizes + 1) / np.sum(sizes + 1))
    return _Gaussians(log_weights, means, np.linalg.inv(lower))


def _log_joint(x: np.ndarray, found: _Gaussians) -> np.ndarray:
    """Log density of each component times its weight, [n, K]."""
    log_weights, means, roots = found
    u = (x - means[:, None]) @ np.swapaxes(roots, 1, 2)
    heights = log_weights + np.sum(np.log(np.diagonal(roots, axis1=1, axis2=2)), axis=1)
    squares = np.einsum("knd,knd->nk", u, u)
    return heights - 0.5 * squares - x.shape[1] * LOG_SQRT_2PI


def _log_density(x: np.ndarray, found: _Gaussians) -> np.ndarray:
    return scipy.special.logsumexp(_log_joint(x, found), axis=1)


def _log_normal(x: np.ndarray) -> np.ndarray:
    return -0.5 * np.sum(x * x, axis=1) - x.shape[1] * LOG_SQRT_2PI


def _as_regressions(found: _Gaussians, num_components: int) -> ClusterParams:
    """Each feature given those before it; the heaviest components in equal parts to fill up."""
    log_weights, means, roots = found
    scales = 1 / np.diagonal(roots, axis1=1, axis2=2)
    slopes = -np.tril(roots, -1) * scales[:, :, None]
    offsets = means - np.einsum("kij,kj->ki", slopes, means)
    parts = np.ones(len(means), int)
    for _ in range(num_components - len(means)):
        parts[np.argmax(log_weights - np.log(parts))] += 1
    params = log_weights - np.log(parts), offsets, slopes, np.log(scales)
    return ClusterParams(*(np.repeat(p, parts, axis=0) for p in params))
