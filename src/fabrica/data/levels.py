"""Grey levels of images that were made, held within those of images that were learned from.

Landmarks of the histogram as of Nyúl, Udupa and Zhang (New variants of a method of MRI scale standardization, IEEE TMI
2000), percentiles of an image's values, and a map that is linear between them. Many collections were windowed, so that
in each image the same share is black or white; a network that draws pixel by pixel of noise gets that nearly right.
"""

from __future__ import annotations

import numpy as np

from fabrica.image import Float32, Float64

LANDMARKS = (0, 1, 2, 5, 10, 25, 50, 75, 90, 95, 98, 99, 100)  # percentiles
USUAL = (1, 99)  # percentiles of a landmark over the images: what lies beyond is not usual
FEWEST = 100  # images that say what is


def landmarks(images: Float32) -> Float64:
    """Of each of the images (N, C, *S) the landmarks of its values, (N, len(LANDMARKS))."""
    values = images.reshape(len(images), -1)
    return np.asarray(np.percentile(values, LANDMARKS, axis=1, method="nearest").T, dtype=np.float64)


def usual(found: Float64) -> list[list[float]]:
    """The lowest and the highest that is usual of each landmark, from those of images (N, len(LANDMARKS)); [] of fewer
    than FEWEST."""
    if len(found) < FEWEST:
        return []
    return [[float(value) for value in each] for each in np.percentile(found, USUAL, axis=0)]


def held(images: Float32, levels: list[list[float]]) -> Float32:
    """Images (N, C, *S) whose landmarks are brought to the nearest that is usual, what lies between them with them; []:
    the images as they are, and so is each that is usual."""
    if not levels:
        return images
    made = np.array(images, dtype=np.float32)
    own = landmarks(images)
    wanted = np.clip(own, *np.array(levels))
    for k in np.flatnonzero((own != wanted).any(1)):
        points = np.unique(own[k])  # of an image with much black several landmarks are the same, and stay so
        choices = (wanted[k, own[k] == point] for point in points)
        to = [some[np.abs(some - point).argmin()] for some, point in zip(choices, points, strict=True)]
        made[k] = np.interp(images[k], points, np.maximum.accumulate(to))
    return made
