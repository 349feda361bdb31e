"""A restored image drawn for the page: before, after, the best classic, the truth; where each errs; and a part near.

Pixels are enlarged by whole numbers, without smoothing: blur and noise of what is near are those of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter, uniform_filter

from fabrica.codec import Codec, Limits
from fabrica.evaluation.translation.accuracy import Scored
from fabrica.evaluation.translation.cases import Case
from fabrica.evaluation.translation.classical_filters import ClassicalFilters
from fabrica.image import Bools, Image
from fabrica.io.display import tones
from fabrica.report.charts import png_uri, shown
from fabrica.report.pictures import (
    SOFT,
    WIDE,
    Bytes,
    Legend,
    Picture,
    difference_scale,
    enlarged,
    error,
    error_legend,
    middle_plane,
    shades,
    uncertainty,
    uncertainty_legend,
)
from fabrica.report.scores import BESIDE

NEAR = (48, 96)  # pixels a side of what is shown near
RIM = 4  # pixels: the skin is the sharpest edge of all, and tells little
FINE, COARSE = 1.0, 2.0  # pixels: structure is what lies between two blurs; finer is noise
FRAME, THIN = (255, 176, 0), 200  # the frame's colour, and how many times its width the picture is wide
Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Restoring:
    """What stands beside the model. best: the classic with the highest mean PSNR over the test images."""

    filters: ClassicalFilters
    best: str

    @property
    def shown(self) -> list[str]:
        """The classics in the pictures."""
        return list(dict.fromkeys([self.best, *(["bicubic"] if "bicubic" in self.filters.chosen else [])]))


def pictures(case: Case, result: Image, doubt: Image | None, beside: Restoring) -> list[Picture]:
    """Rows of one test image, as many columns as versions: whole (of CT also soft tissue), less the truth, near."""
    given, truth = case.images["a"], case.images["b"]
    versions = {"before": given, "after": result}
    versions |= {BESIDE[key]: truth.with_data(beside.filters.answer(given, key)) for key in beside.shown}
    versions["truth"] = truth
    target, ct = beside.filters.way.target, truth.unit == "HU"
    plane = middle_plane(truth)
    inside = middle_plane(truth.with_data(case.body[None].astype(np.float32))).data[0] > 0
    near = busiest(tones(plane.data[:1], shades(truth, SOFT)), inside)
    found = _row(versions, shades(truth, WIDE), "", near)
    if ct:
        found += _row(versions, shades(truth, SOFT), ", soft tissue")
    for column, (name, image) in enumerate(list(versions.items())[:-1], start=1):
        most = difference_scale(target)
        found.append(error(image, truth, case.body, most, f"{name} less truth", column, whole=True))
    if doubt is not None:
        found.append(uncertainty(doubt, difference_scale(target) / 2, len(versions), whole=True))
    return found + _row({k: _cut(v, near) for k, v in versions.items()}, shades(truth, SOFT), ", near")


def _row(versions: Mapping[str, Image], limits: Limits, said: str, box: Box | None = None) -> list[Picture]:
    """A picture each on one scale of greys; of the truth with a frame around `box`."""
    found = []
    for column, (name, image) in enumerate(versions.items(), start=1):
        plane = middle_plane(image)
        pixels = tones(plane.data, limits)
        if box and name == "truth":
            pixels = _framed(pixels, box)
        found.append(Picture(png_uri(enlarged(pixels, plane, whole=True)), name + said, column))
    return found


def _framed(pixels: Bytes, box: Box) -> Bytes:
    colour = pixels.copy() if pixels.ndim == 3 else pixels[..., None].repeat(3, -1)
    width = 1 + max(pixels.shape) // THIN
    inner = tuple(slice(side.start + width, side.stop - width) for side in box)
    kept = colour[inner].copy()
    colour[box] = FRAME
    colour[inner] = kept
    return colour


def _cut(image: Image, box: Box) -> Image:
    """A part of the middle plane; where it lies in mm is not kept, only its spacing."""
    plane = middle_plane(image)
    return plane.with_data(plane.data[:, *box])


def busiest(tones: Bytes, inside: Bools) -> Box:
    """The square of NEAR pixels with the most structure (H, W) inside the body.

    Structure is the energy of a difference of Gaussians on greys as they are displayed."""
    side = min(NEAR[1], max(NEAR[0], max(inside.shape) // 4), max(1, max(inside.shape) // 2), *inside.shape)
    greys = tones.astype(np.float32)
    deep = binary_erosion(inside, iterations=RIM)
    band = (gaussian_filter(greys, FINE) - gaussian_filter(greys, COARSE)) ** 2 * (deep if deep.any() else inside)
    starts = [n - side + 1 for n in inside.shape]
    half = side // 2
    # uniform_filter centres a window of `side` pixels at index k on k - side // 2 ... ; only whole windows count
    sums = uniform_filter(band, side, mode="constant")[half : half + starts[0], half : half + starts[1]]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return slice(int(row), int(row) + side), slice(int(column), int(column) + side)


def legends(target: Codec) -> list[Legend]:
    most = difference_scale(target)
    return [error_legend("less truth", target, most), uncertainty_legend(target, most / 2)]


def how(target: Codec, volumes: bool) -> str:
    """What the greys mean."""
    if target.unit == "HU":
        said = (
            f"Black is −{-WIDE[0]:g} HU, white is {WIDE[1]:g} HU; soft tissue and near: −{-SOFT[0]:g} to {SOFT[1]:g} HU"
        )
    else:
        said = "Black and white are percentiles 0.5 and 99.5 of the true image, for all versions of it"
    near = (
        "Near: the square with the most structure in the body, framed in the truth, pixel by pixel; whole images are "
        "shrunk to the page, which hides noise"
    )
    return ". ".join([said, near, *(["Of volumes the middle axial slice is shown"] if volumes else [])]) + "."


def facts(scored: Scored, place: int, beside: Restoring) -> Sequence[tuple[str, str]]:
    """PSNR and SSIM of one test image, before, after and by the classics shown."""
    found = []
    for key in ("identity", "result", *beside.shown):
        psnr, ssim = (float(scored.of[key][metric][place]) for metric in ("psnr", "ssim"))
        name = {"identity": "before", "result": "after"}.get(key) or BESIDE[key]
        # thin volumes have no SSIM, and what equals the truth no finite PSNR
        said = [f"{shown(psnr)} dB"] * bool(np.isfinite(psnr)) + [f"SSIM {shown(ssim)}"] * bool(np.isfinite(ssim))
        found.append((name, ", ".join(said) or "equal"))
    return found
