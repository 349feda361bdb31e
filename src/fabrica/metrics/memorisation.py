"""Does a generator copy its training images? Nearest neighbours, against held-out real images as the control.

A distance alone says little: a blurred sample is near to everything. So the statistic is the distance to the
nearest training image relative to the mean distance to the neighbours after it (the adaptive threshold of
Carlini et al. 2023, "Extracting training data from diffusion models"), and what counts as too small is
learnt from real images that the generator never saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu, norm

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64

Int = npt.NDArray[np.int64]
Pair = tuple[int, int, float]
Interval = tuple[float, float]

EXACT = 0.01  # a distance below this is the same image: a correlation above 0.99995
FALSE_ALARMS = 0.01
NEIGHBOURS = 50
LEAST_HELD_OUT = 10
_CHUNK = 64

# Side of the working grid, of the fine grid that decides and of the coarse grid that shortlists, by rank.
GRIDS = {2: (64, 32, 16), 3: (32, 16, 8)}


@dataclass(frozen=True, eq=False)
class Audit:
    """What `audit` found.

    copy_rate, copy_interval        share of samples that are copies, with its 95 % Wilson interval.
    control_rate, control_interval  the same for held-out real images, each half judged by a threshold learnt
                                    from the other: what an honest generator scores. Held-out images that
                                    stand in the training set are counted, so a high figure shows a leak.
    false_alarm   probability that a sample of an honest generator is called a copy, by construction.
    threshold     the ratio below which a sample is a copy.
    p_value       one-sided Mann-Whitney test that the ratios of samples lie below those of held-out images.
    copies        indices of the samples that are copies, closest first.
    pairs         (sample i, nearest training image j, distance), closest first; all samples.
    control_pairs the same for held-out images.
    ratios, control_ratios  nearest distance over mean distance to the next neighbours, one an image, (N,).

    Distances are sqrt(2 - 2 r) for the correlation r of two images: 0 the same, 1.41 unrelated.
    """

    copy_rate: float
    copy_interval: Interval
    control_rate: float
    control_interval: Interval
    false_alarm: float
    threshold: float
    p_value: float
    copies: tuple[int, ...]
    pairs: tuple[Pair, ...]
    control_pairs: tuple[Pair, ...]
    ratios: Float64 = field(repr=False)
    control_ratios: Float64 = field(repr=False)

    @property
    def memorised(self) -> bool:
        """Whether there are more copies than false alarms can explain: the two intervals do not meet."""
        return self.copy_interval[0] > max(self.false_alarm, self.control_interval[1])


def audit(
    samples: Float32, train: Float32, heldout: Float32, *, seed: int = 0, false_alarms: float = FALSE_ALARMS
) -> Audit:
    """Search samples (N, C, *S) for copies of train (M, C, *S), with heldout (K, C, *S) as the control.

    Images are shrunk to at most 32 x 32 (16 x 16 x 16) and normalised to zero mean and unit length, so that
    brightness, contrast and fine noise do not hide a copy; mirror images and shifts of one pixel (of at most
    64 x 64) are tried. The threshold is the k-th smallest ratio of the K held-out images with
    k = false_alarms x (K + 1), at least 1: an image exchangeable with them then falls below it with
    probability k / (K + 1), reported as `false_alarm`. Held-out images found in the training set take no
    part in the calibration. A sample identical to a training image is always a copy.

    The held-out images must be drawn like the training images but from other patients. Memory is flat: about
    6 kB a training image beyond the arrays given. Raises UsageError for fewer than 10 held-out images.
    """
    _check(samples, train, heldout)
    search = _Search.over(train)
    index, distance, ratios = search.nearest(samples)
    control_index, control_distance, control_ratios = search.nearest(heldout)

    honest = control_ratios[control_distance > EXACT]
    if len(honest) < LEAST_HELD_OUT:
        raise UsageError(
            f"only {len(honest)} of {len(heldout)} held-out images are not in the training set; "
            f"expected at least {LEAST_HELD_OUT} to calibrate on: check the split"
        )
    threshold, false_alarm = _calibrate(honest, false_alarms)
    copied = (ratios < threshold) | (distance <= EXACT)
    alarms = _cross_checked(control_ratios, control_distance, false_alarms, seed)
    order = np.argsort(distance, kind="stable")
    return Audit(
        copy_rate=float(copied.mean()),
        copy_interval=wilson(int(copied.sum()), len(copied)),
        control_rate=float(alarms.mean()),
        control_interval=wilson(int(alarms.sum()), len(alarms)),
        false_alarm=false_alarm,
        threshold=threshold,
        p_value=float(mannwhitneyu(ratios, honest, alternative="less").pvalue),
        copies=tuple(int(i) for i in order if copied[i]),
        pairs=_pairs(index, distance),
        control_pairs=_pairs(control_index, control_distance),
        ratios=ratios,
        control_ratios=control_ratios,
    )


def _check(samples: Float32, train: Float32, heldout: Float32) -> None:
    shapes = {name: a.shape for name, a in (("samples", samples), ("train", train), ("heldout", heldout))}
    if samples.ndim not in (4, 5) or len({shape[1:] for shape in shapes.values()}) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UsageError(f"image shapes are {found}; expected one (N, C, H, W) or (N, C, D, H, W) size for all")
    if len(heldout) < LEAST_HELD_OUT:
        raise UsageError(
            f"{len(heldout)} held-out images; at least {LEAST_HELD_OUT} are needed as the control, 100 or "
            "more for a false alarm rate of 1 %"
        )
    if len(train) < 4 or len(samples) < 1:
        raise UsageError(f"{len(samples)} samples and {len(train)} training images; at least 1 and 4 are needed")


def wilson(hits: float, n: float, level: float = 0.95) -> Interval:
    """Confidence interval of a share (Wilson 1927)."""
    z = float(norm.ppf(0.5 + level / 2))
    share = hits / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def mean_share(hits: Sequence[int], of: Sequence[int]) -> tuple[float, float, float]:
    """The mean of several shares, however many images each is of, and its 95 % interval (Wilson): that of one share of
    as many images as the mean would vary with, if all shares were alike."""
    share = float(np.mean([right / number for right, number in zip(hits, of, strict=True)]))
    worth = len(of) ** 2 / sum(1 / number for number in of)
    return share, *wilson(share * worth, worth)


def _calibrate(ratios: Float64, false_alarms: float) -> tuple[float, float]:
    """The threshold and the false alarm rate that it has for an image exchangeable with the control."""
    k = max(1, int(false_alarms * (len(ratios) + 1)))
    return float(np.sort(ratios)[k - 1]), k / (len(ratios) + 1)


def _cross_checked(ratios: Float64, distance: Float64, false_alarms: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which held-out images are called copies by a threshold from the half that they are not in."""
    called = distance <= EXACT
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~called))
    halves = np.array_split(order, 2)
    for judged, judges in (halves, halves[::-1]):
        called[judged] = ratios[judged] < _calibrate(ratios[judges], false_alarms)[0]
    return called


def _pairs(index: Int, distance: Float64) -> tuple[Pair, ...]:
    order = np.argsort(distance, kind="stable")
    return tuple((int(i), int(index[i]), float(distance[i])) for i in order)


@dataclass(frozen=True, eq=False)
class _Search:
    """Training images as unit vectors: `coarse` to shortlist by one matrix product, `fine` to decide."""

    coarse: Float32
    fine: Float32
    grids: tuple[int, int, int]
    neighbours: int

    @classmethod
    def over(cls, train: Float32) -> _Search:
        grids = GRIDS[train.ndim - 2]
        parts = [
            (_unit(shrunk(block, grids[2])), _unit(shrunk(block, grids[1])))
            for block in (shrunk(block, grids[0]) for block in _blocks(train))
        ]
        coarse, fine = (np.concatenate(part) for part in zip(*parts, strict=True))
        # Half of a small training set at most, or the neighbours would be the whole of it.
        return cls(coarse, fine, grids, min(NEIGHBOURS, len(train) // 2))

    def nearest(self, images: Float32) -> tuple[Int, Float64, Float64]:
        """Of each image: its nearest training image, the distance, and its ratio to the next ones' mean."""
        found = [self._nearest(block) for block in _blocks(images)]
        index, distance, ratio = (np.concatenate(part) for part in zip(*found, strict=True))
        return index, distance, ratio

    def _nearest(self, images: Float32) -> tuple[Int, Float64, Float64]:
        images = shrunk(images, self.grids[0])
        likeness = _unit(shrunk(images, self.grids[2])) @ self.coarse.T
        mirrored = _unit(shrunk(images[..., ::-1], self.grids[2])) @ self.coarse.T
        np.maximum(likeness, mirrored, out=likeness)
        count = self.neighbours + 1
        listed = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        variants = np.stack([_unit(shrunk(v, self.grids[1])) for v in _variants(images)], axis=1)
        best = np.stack([(v @ self.fine[rows].T).max(0) for v, rows in zip(variants, listed, strict=True)])
        distances = np.sqrt(np.clip(2 - 2 * best.astype(np.float64), 0, None))
        order = np.argsort(distances, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        nearest = np.take_along_axis(listed, order[:, :1], axis=1)[:, 0]
        ratio = distances[:, 0] / np.maximum(distances[:, 1:].mean(1), 1e-6)
        return nearest.astype(np.int64), distances[:, 0], ratio


def _blocks(images: Float32) -> Iterator[Float32]:
    return (images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK))


def _variants(images: Float32) -> Iterator[Float32]:
    """The images and their mirror images, each shifted by -1, 0 or 1 pixel along every axis."""
    axes = images.ndim - 2
    padded = np.pad(images, [(0, 0), (0, 0), *[(1, 1)] * axes], mode="edge")
    for steps in product((0, 1, 2), repeat=axes):
        window = tuple(slice(s, s + n) for s, n in zip(steps, images.shape[2:], strict=True))
        shifted = padded[(slice(None), slice(None), *window)]
        yield shifted
        yield shifted[..., ::-1]


def _unit(images: Float32) -> Float32:
    """Rows (N, features) of zero mean and unit length; a flat image becomes 0, unlike anything."""
    rows = images.reshape(len(images), -1)
    rows = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 1e-4, length, np.inf), dtype=np.float32)


def shrunk(images: Float32, side: int) -> Float32:
    """Images (N, C, *S) with every spatial axis longer than `side` brought to it by area averaging."""
    for axis in range(2, images.ndim):
        if images.shape[axis] > side:
            weights = _area_weights(images.shape[axis], side)
            images = np.moveaxis(np.tensordot(images, weights, axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(images, dtype=np.float32)


def _area_weights(n: int, out: int) -> Float32:
    """(out, n): the share of each source pixel in each of `out` equal stretches of an axis of n pixels."""
    edges = np.arange(out + 1) * (n / out)
    pixels = np.arange(n)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * (out / n), dtype=np.float32)
