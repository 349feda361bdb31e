"""How far apart two sets of images lie, measured on their features, and how sure one may be of it.

Every function takes features (N, D), float64, one row an image; a is the real set and b the synthetic one
where it matters. Frechet distances are biased upward by small N: read them beside `floor` at the same N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr, svdvals

from fabrica.errors import UsageError
from fabrica.image import Float64

Score = Callable[[Float64, Float64], float]

# Frechet distance needs about this many images per feature: its bias is then near 10 % of the total variance.
IMAGES_PER_DIMENSION = 5


def _checked(features: Float64, name: str, at_least: int) -> Float64:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise UsageError(f"{name} features have shape {features.shape}; expected (N, D), one row an image")
    if len(features) < at_least:
        raise UsageError(f"{name} set has {len(features)} images; this score needs at least {at_least}")
    if not np.isfinite(features).all():
        raise UsageError(f"{name} features hold NaN or infinity; look for broken images in that set")
    return features


def _pair(a: Float64, b: Float64, at_least: int) -> tuple[Float64, Float64]:
    a, b = _checked(a, "first", at_least), _checked(b, "second", at_least)
    if a.shape[1] != b.shape[1]:
        raise UsageError(f"features have {a.shape[1]} and {b.shape[1]} dimensions; use one extractor for both")
    return a, b


def frechet(a: Float64, b: Float64) -> float:
    """Squared Frechet distance of two Gaussians fitted to a (N, D) and b (M, D). 0 is best.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)): Dowson & Landau 1982, eq. 16; as FID Heusel et al. 2017.
    With S = R^T R from a QR of the centred rows, tr (S1 S2)^(1/2) is the nuclear norm of R1 R2^T. That takes
    no matrix root, squares no condition number, and holds for N < D, where covariances are singular. The
    covariances are the plain unbiased ones; nothing is shrunk.
    """
    a, b = _pair(a, b, at_least=2)
    mean_a, mean_b = a.mean(0), b.mean(0)
    return _frechet_from_roots(mean_a, _triangle(a - mean_a), mean_b, _triangle(b - mean_b))


def frechet_from_moments(mean_a: Float64, cov_a: Float64, mean_b: Float64, cov_b: Float64) -> float:
    """As `frechet`, from means (D,) and covariances (D, D): for published reference statistics."""
    return _frechet_from_roots(mean_a, _root(cov_a), mean_b, _root(cov_b))


def _triangle(centred: Float64) -> Float64:
    """R with R^T R the covariance of the centred rows (N, D)."""
    return np.asarray(qr(centred / np.sqrt(len(centred) - 1), mode="r")[0])[: min(centred.shape)]


def _root(covariance: Float64) -> Float64:
    values, vectors = np.linalg.eigh(covariance)
    root: Float64 = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    return root


def _frechet_from_roots(mean_a: Float64, root_a: Float64, mean_b: Float64, root_b: Float64) -> float:
    traces = float((root_a**2).sum() + (root_b**2).sum())
    overlap = float(svdvals(root_a @ root_b.T).sum())
    gap = mean_a - mean_b
    return max(0.0, float(gap @ gap) + traces - 2 * overlap)


def kid(a: Float64, b: Float64, *, subsets: int = 50, subset_size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Kernel distance: squared MMD, kernel (x.y/D + 1)^3, unbiased (Binkowski et al. 2018, eq. 4).

    Returns (mean, sd) over random subsets drawn without replacement from a (N, D) and b (M, D); N and M may
    differ. A subset takes at most half of its set, so that sd means something for small sets too. The mean
    is near 0, of either sign, when the two distributions are equal.
    """
    a, b = _pair(a, b, at_least=4)
    rng = np.random.default_rng(seed)
    size_a, size_b = min(subset_size, len(a) // 2), min(subset_size, len(b) // 2)
    values = [
        _mmd(a[rng.choice(len(a), size_a, replace=False)], b[rng.choice(len(b), size_b, replace=False)])
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def _mmd(x: Float64, y: Float64) -> float:
    def kernel(p: Float64, q: Float64) -> Float64:
        base: Float64 = p @ q.T / p.shape[1] + 1
        return base * base * base

    def off_diagonal_mean(p: Float64) -> float:
        k = kernel(p, p)
        return float((k.sum() - np.trace(k)) / (len(p) * (len(p) - 1)))

    return off_diagonal_mean(x) + off_diagonal_mean(y) - 2 * float(kernel(x, y).mean())


def _squared_distances(x: Float64, y: Float64) -> Float64:
    squares: Float64 = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * (x @ y.T)
    return np.clip(squares, 0, None)


def _ball_radii(x: Float64, k: int) -> Float64:
    """Squared distance of each row to its k-th nearest other row."""
    radii = [np.partition(_squared_distances(x[i : i + 1024], x), k, axis=1)[:, k] for i in range(0, len(x), 1024)]
    return np.concatenate(radii)


def prdc(real: Float64, fake: Float64, k: int = 5, *, drop: float = 0.05) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    real (N, D), fake (M, D); balls reach the k-th nearest neighbour of the same set. All but density lie in
    0 to 1, higher is better; density may exceed 1. The widest `drop` of the balls is left out of precision
    (real balls) and recall (fake balls): a few odd images have balls so wide that pure noise falls inside
    them. Density and coverage are robust to that by construction and keep every ball.
    """
    real, fake = _pair(real, fake, at_least=k + 1)
    real_radii, fake_radii = _ball_radii(real, k), _ball_radii(fake, k)
    kept_real = real_radii <= np.quantile(real_radii, 1 - drop)
    kept_fake = fake_radii <= np.quantile(fake_radii, 1 - drop)
    precise, density = 0, 0
    covered = np.zeros(len(real), dtype=bool)
    recalled = np.zeros(len(real), dtype=bool)
    for start in range(0, len(fake), 1024):
        block = slice(start, start + 1024)
        squares = _squared_distances(real, fake[block])
        inside = squares <= real_radii[:, None]
        precise += int(inside[kept_real].any(0).sum())
        density += int(inside.sum())
        covered |= inside.any(1)
        recalled |= ((squares <= fake_radii[block]) & kept_fake[block]).any(1)
    return {
        "precision": precise / len(fake),
        "recall": float(recalled.mean()),
        "density": density / (k * len(fake)),
        "coverage": float(covered.mean()),
    }


def bootstrap(
    fn: Score,
    a: Float64,
    b: Float64,
    n: int = 200,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float, float]:
    """(value, low, high) of fn(a, b) for a (N, D) and b (M, D), resampling images.

    The interval says how far the score would move with other images at the SAME N. The common percentile
    bootstrap fails here: rows drawn twice raise a Frechet distance, so all resamples lie above the value.
    Instead each of n resamples takes a random half of a and of b without replacement, which for a smooth
    score has just the spread of the whole sample (delete-half jackknife, Shao & Wu 1989); the larger bias
    of halves is removed by centring the resamples on their own mean. Between two equal distributions, where
    the spread falls faster than 1/sqrt(N), the interval is too wide: it errs on the safe side. The small-N
    bias of the value itself stays in: compare it with `floor` at the same N. The interval is cut to `bounds`.
    """
    a, b = _pair(a, b, at_least=4)
    value = fn(a, b)
    rng = np.random.default_rng(seed)
    halves = np.array([fn(_half(a, rng), _half(b, rng)) for _ in range(n)])
    tail = (1 - level) / 2
    low, high = value + np.quantile(halves - halves.mean(), [tail, 1 - tail])
    return value, max(float(low), bounds[0]), min(float(high), bounds[1])


def _half(rows: Float64, rng: np.random.Generator) -> Float64:
    return rows[rng.permutation(len(rows))[: len(rows) // 2]]


@dataclass(frozen=True)
class Floor:
    """What a score says of two sets of n real images: no generator can be told from real below it.

    value, low, high  mean and interval over random disjoint pairs of sets.
    n                 images in each set; smaller than asked for when there were too few.
    note              why n is smaller than asked for, else "".
    """

    value: float
    low: float
    high: float
    n: int
    note: str = ""


def floor(
    real: Float64, n: int, *, fn: Score = frechet, repeats: int = 20, seed: int = 0, level: float = 0.95
) -> Floor:
    """fn between two disjoint random sets of n rows of real (N, D), `repeats` times.

    With fewer than 2 n real images it is taken at N // 2, where a Frechet distance is higher; `note` says so.
    The repeats share images, so the interval shows the spread of the draw and is a little too narrow.
    """
    real = _checked(real, "real", at_least=4)
    used = min(n, len(real) // 2)
    note = ""
    if used < n:
        note = (
            f"the floor is measured at {used} images, not {n}: there are only {len(real)} real ones; "
            "at equal N it would be lower"
        )
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        order = rng.permutation(len(real))
        values.append(fn(real[order[:used]], real[order[used : 2 * used]]))
    tail = (1 - level) / 2
    low, high = (float(q) for q in np.quantile(values, [tail, 1 - tail]))
    return Floor(float(np.mean(values)), low, high, used, note)


def enough(n: int, dims: int) -> str | None:
    """A warning sentence when n images are too few for a Frechet distance in `dims` dimensions, else None."""
    needed = IMAGES_PER_DIMENSION * dims
    if n >= needed:
        return None
    rank = " and the covariance is singular" if n <= dims else ""
    return (
        f"{n} images are few for a Frechet distance in {dims} dimensions{rank}: up to about "
        f"{dims**2 / (2 * n):.0f} of it is bias (standardised features; less where they are correlated); "
        f"use at least {needed} images, or compare only with the floor at the same N"
    )
