"""Volumes whose slices lie unevenly, laid on an even grid: for what can hold only an affine."""

from __future__ import annotations

import numpy as np

from fabrica.image import Image

MOST = 4  # times as many slices as there were


def evenly(image: Image) -> Image:
    """The volume (C, D, H, W) with slices at even distances, where origin["positions"] says that they are not; else as
    it is. As fine as its nearest slices, linear between neighbours (labels: the nearer one), with a note."""
    positions = image.origin.get("positions")
    if positions is None or image.data.ndim != 4 or len(positions) != image.data.shape[1]:
        return image
    way = positions[-1] - positions[0]
    at = (positions - positions[0]) @ (way / np.linalg.norm(way))
    count = min(round(at[-1] / np.diff(at).min()) + 1, MOST * len(at))
    wanted = np.linspace(0.0, at[-1], count)
    above = np.clip(np.searchsorted(at, wanted, side="right"), 1, len(at) - 1)
    share = ((wanted - at[above - 1]) / (at[above] - at[above - 1])).astype(np.float32)
    if image.unit == "label":
        share = np.rint(share)
    share = share[:, None, None]
    data = image.data[:, above - 1] * (1 - share) + image.data[:, above] * share
    affine = image.affine.copy()
    affine[:3, 2], affine[:3, 3] = way / (count - 1), positions[0]
    note = f"{len(at)} uneven slices were laid on {count} even ones, {at[-1] / (count - 1):.4g} mm apart"
    origin = {key: value for key, value in image.origin.items() if key != "positions"}
    origin["notes"] = (*origin.get("notes", ()), note)
    return image.with_data(data, affine=affine, origin=origin)
