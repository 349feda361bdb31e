"""Restoration without learning, to stand beside a model that restores: each filter as strong as is best for it.

Bilateral filter (Tomasi & Manduchi 1998), non-local means (Buades et al. 2005), total variation (Rudin et al. 1992,
solved after Chambolle 2004), Wiener's filter against a known blur (Hunt 1973), bicubic interpolation (Keys 1981); all
by scikit-image. BM3D is left out: its licence forbids commercial use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.restoration import denoise_bilateral, denoise_nl_means, denoise_tv_chambolle
from skimage.restoration import wiener as deconvolved
from skimage.transform import resize

from fabrica.codec import Limits
from fabrica.data.degrade import complete
from fabrica.data.resolution import scale
from fabrica.evaluation.translation.cases import Cases
from fabrica.geometry import as_seen
from fabrica.image import Bools, Float32, Image
from fabrica.inference.translation import Way
from fabrica.progress import Progress

TUNED = 8  # images
PART = 256  # pixels a side of the middle part of each that strengths are tried on
START, LEAST, MOST = -5, -20, 0  # strengths are powers of two: a share of the window
SPREADS = (1.0, 2.0)  # pixels, of the bilateral filter
TV_EPS, TV_STEPS = 1e-5, 500  # scikit-image's 2e-4 stops well short of the minimum where noise is weak

Filter = Callable[[Float32], Float32]  # (H, W) in [0, 1] to the same


@dataclass(frozen=True)
class ClassicalFilter:
    """A filter, and its strength in words; `factor` as in `Classics`."""

    filter: Filter
    said: str
    factor: int

    def restored(self, plane: Float32) -> Float32:
        """One plane (H, W) in [0, 1]. A downsampled one is filtered as small as it was, then interpolated."""
        small = self.filter(np.ascontiguousarray(plane[:: self.factor, :: self.factor]))
        return small if self.factor == 1 else enlarged(small, self.factor, plane.shape)


Maker = Callable[[float], ClassicalFilter]  # of a strength


@dataclass(frozen=True, eq=False)
class ClassicalFilters:
    """What stands beside a model that restores.

    chosen     by the keys of `fabrica.report.scores.BESIDE`: "bilateral", "nlm", "tv", "wiener" of blurred and
               "bicubic" of downsampled images.
    factor     by how much the images were downsampled in the axial plane, their pixels repeated to the old size; or 1.
    tuned_on   where the strengths were tried, in words.
    note       what is to be warned of.
    """

    way: Way
    chosen: Mapping[str, ClassicalFilter]
    factor: int
    tuned_on: str
    note: str = ""

    def answers(self, given: Image) -> dict[str, Float32]:
        """ "identity", what came in, and what each classic makes of it: (C, *S) in the image's unit."""
        return {"identity": self.unchanged(given)} | {key: self.answer(given, key) for key in self.chosen}

    def answer(self, given: Image, key: str) -> Float32:
        limits = self.way.target.limits(given.data)
        made = np.empty_like(given.data)
        planes, results = (_planes(data, given) for data in (_unit(given.data, self.way, limits), made))
        for c, k in np.ndindex(*planes.shape[:2]):
            results[c, k] = self.chosen[key].restored(planes[c, k])
        return self.way.target.decode(2 * made - 1, limits)

    def unchanged(self, given: Image) -> Float32:
        """The image within the window in which the classics see it."""
        limits = self.way.target.limits(given.data)
        return np.clip(given.data, *limits)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plane that strengths are tried on: before and truth (H, W) in [0, 1], the body in it."""

    before: Float32
    truth: Float32
    inside: Bools

    def psnr(self, classic: ClassicalFilter) -> float:
        error = (classic.restored(self.before) - self.truth)[self.inside]
        return float(-10 * np.log10(max(float((error.astype(np.float64) ** 2).mean()), 1e-12)))


def bilateral(plane: Float32, strength: float, spread: float) -> Float32:
    """strength: the grey difference across which little is averaged; spread in pixels."""
    return _plain(denoise_bilateral(plane, sigma_color=strength, sigma_spatial=spread, mode="edge"))


def nlm(plane: Float32, strength: float) -> Float32:
    """strength: the noise's standard deviation, as it is taken to be."""
    found = denoise_nl_means(plane, patch_size=5, patch_distance=6, h=0.8 * strength, sigma=strength, fast_mode=True)
    return _plain(found)


def tv(plane: Float32, strength: float) -> Float32:
    """strength: the weight of total variation beside the squared error."""
    return _plain(denoise_tv_chambolle(plane, weight=strength, eps=TV_EPS, max_num_iter=TV_STEPS))


def wiener(plane: Float32, strength: float, blur: float) -> Float32:
    """Against a Gaussian blur of so many pixels; strength: the weight of the result's Laplacian beside the error."""
    side = 2 * math.ceil(4 * blur) + 1
    spot = np.zeros((side, side))
    spot[side // 2, side // 2] = 1
    padded = np.pad(plane, side, mode="symmetric")  # frequencies know no border
    found = deconvolved(padded, gaussian_filter(spot, blur), strength, clip=False)
    return _plain(found[side:-side, side:-side])


def same(plane: Float32) -> Float32:
    return plane


def enlarged(small: Float32, factor: int, size: Sequence[int]) -> Float32:
    """Bicubic interpolation (h, w) -> (H, W) of pixels that are areas; size may cut the last ones."""
    whole = resize(small, [n * factor for n in small.shape], order=3, mode="edge", anti_aliasing=False)
    return _plain(whole[: size[0], : size[1]])


def _plain(plane: Float32) -> Float32:
    return np.clip(plane, 0, 1).astype(np.float32)


def blurred(steps: Sequence[Mapping[str, Any]]) -> float:
    """The standard deviation of all the steps' Gaussian blur in pixels of the small image; 0: none."""
    variance = 0.0
    for step in steps:
        variance += float(complete(step)["sigma"]) ** 2 if step["name"] == "blur" else 0.0
        variance /= scale([step]) ** 2
    return math.sqrt(variance)


def tuned(way: Way, steps: Sequence[Mapping[str, Any]], cases: Cases, split: str, tell: Progress) -> ClassicalFilters:
    """Every classic that fits these steps, with the strength whose mean PSNR in the body is best over these images."""
    factor, blur = scale(steps), blurred(steps)
    trials = [_trial(case.images["a"], case.images["b"], case.body, way, factor) for case in cases.read()]
    candidates = {
        "bilateral": [partial(_bilateral, spread=spread, factor=factor) for spread in SPREADS],
        "nlm": [partial(_nlm, factor=factor)],
        "tv": [partial(_tv, factor=factor)],
    }
    if blur:
        candidates["wiener"] = [partial(_wiener, blur=blur, factor=factor)]
    chosen = {}
    for done, (key, makers) in enumerate(candidates.items(), start=1):
        chosen[key] = _best(makers, trials)
        tell("tuning the classics", done, len(candidates))
    if factor > 1:
        chosen["bicubic"] = ClassicalFilter(same, f"times {factor}", factor)
    side = min(PART, max(trials[0].truth.shape))
    return ClassicalFilters(way, chosen, factor, f"the middle {side} pixels of {len(trials)} {split} images")


def _best(makers: Sequence[Maker], trials: Sequence[Candidate]) -> ClassicalFilter:
    """Of these filters the one that is best over all trials, each at its own best strength."""

    def psnr(classic: ClassicalFilter) -> float:
        return float(np.mean([trial.psnr(classic) for trial in trials]))

    found = []
    for maker in makers:
        power = climbed(lambda power, maker=maker: psnr(maker(2.0**power)))  # type: ignore[misc]
        found.append(maker(2.0**power))
    return max(found, key=psnr)


def climbed(score: Callable[[float], float]) -> float:
    """The exponent from LEAST to MOST, in steps of 1 and at last of 1/2, from which `score` falls on both sides."""
    known = lru_cache(maxsize=None)(score)
    at = float(START)
    for step in (1.0, 0.5):
        while (best := max((p for p in (at, at - step, at + step) if LEAST <= p <= MOST), key=known)) != at:
            at = best
    return at


def _bilateral(strength: float, spread: float, factor: int) -> ClassicalFilter:
    said = f"σ of grey {strength:.2g} of the window, of place {spread:g} pixels"
    return ClassicalFilter(partial(bilateral, strength=strength, spread=spread), said, factor)


def _nlm(strength: float, factor: int) -> ClassicalFilter:
    said = f"σ {strength:.2g} of the window, h 0.8 σ, patches of 5 among 13 pixels"
    return ClassicalFilter(partial(nlm, strength=strength), said, factor)


def _tv(strength: float, factor: int) -> ClassicalFilter:
    return ClassicalFilter(partial(tv, strength=strength), f"weight {strength:.2g} of the window", factor)


def _wiener(strength: float, blur: float, factor: int) -> ClassicalFilter:
    said = f"blur of {blur:.3g} pixels, balance {strength:.2g}"
    return ClassicalFilter(partial(wiener, strength=strength, blur=blur), said, factor)


def _trial(before: Image, truth: Image, body: Bools, way: Way, factor: int) -> Candidate:
    """The middle part of the middle slice, first channel."""
    limits = way.target.limits(before.data)
    worse, better = (_planes(_unit(image.data, way, limits), before)[0] for image in (before, truth))
    inside = _planes(body[None].astype(np.float32), before)[0] > 0
    middle = len(better) // 2
    cut = tuple(_cut(n, factor) for n in better.shape[1:])
    part = inside[middle][cut]
    return Candidate(worse[middle][cut], better[middle][cut], part if part.any() else np.ones_like(part))


def _cut(side: int, factor: int) -> slice:
    """The middle PART pixels, from where a pixel of the small image begins."""
    start = max(0, side - PART) // 2 // factor * factor
    return slice(start, start + PART)


def _unit(data: Float32, way: Way, limits: Limits) -> Float32:
    """Physical values in [0, 1] of the window."""
    return (replace(way.target, clip=True).scaled(data, limits) + np.float32(1)) / np.float32(2)


def _planes(data: Float32, image: Image) -> Float32:
    """A view of values (C, *S) of the image as slices (C, D, H, W), turned as `fabrica.data.degrade` does."""
    return data[:, None] if len(image.size) == 2 else as_seen(data, image.affine, "LPS")
