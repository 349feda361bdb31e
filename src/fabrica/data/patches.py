"""Patches of cases, drawn and changed at random, each a pure function of seed and position: a resumed run repeats them.

A third of them lies around a voxel of a class, so that what is small is seen (nnU-Net, Isensee et al. 2021). Where a
patch is turned, scaled or bent, it is read so from the case itself: nothing is interpolated twice, and no corner is
empty that the image could fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, map_coordinates, zoom

from fabrica.codec import ABSENT
from fabrica.data.augment import Changes, Int64, stream
from fabrica.data.cases import UNKNOWN, Cases, Uint8
from fabrica.data.dataset import order
from fabrica.data.intensity import changed_values
from fabrica.data.standardise import neighbours
from fabrica.image import Float32, Float64
from fabrica.recipe.plan import Plan

FOREGROUND = 1 / 3  # of the patches lie around a voxel of a class
TURNED, SCALED, BENT = 0.2, 0.2, 0.1  # chances
ANGLE = 30.0  # degrees either way
SIZES = (0.7, 1.4)
KNOT = 24  # voxels between the knots of an elastic deformation
BEND = 2.0  # voxels, the standard deviation of displacements
OTHER = 1  # added to the seed for unlabelled images


@dataclass(frozen=True)
class Patches:
    """Images and label maps at the same place.

    a          the cases. unlabelled: images without label maps, from which a critic learns, too.
    context    neighbouring slices on each side that a network for slices sees (2.5-D).
    """

    a: Cases
    plan: Plan
    context: int = 0
    unlabelled: Cases | None = None
    paired: bool = True

    def __len__(self) -> int:
        return len(self.a)

    @property
    def ids(self) -> Sequence[str]:
        return self.a.ids

    @property
    def notes(self) -> Sequence[str]:
        return tuple(self.a.meta.notes)

    @property
    def beside(self) -> int:
        """How many of the last channels of "a" are of contrasts beside it."""
        return self.a.meta.channels - self.a.meta.channels // self.a.meta.contrasts

    def batch(self, seed: int, positions: Int64, changes: Changes) -> dict[str, npt.NDArray[np.generic]]:
        """ "a" float32 (B, C * (2 context + 1), *P), about [-1, 1], and C channels more of each contrast beside it; "b"
        float32 (B, K, *P): 1 where a voxel is of the
        class, -1 where it is not, 0 where nobody has said; "index" int64 (B,) of the case. With unlabelled images also
        "unlabelled", as a."""
        chosen = order(len(self.a), seed, positions)
        drawn = [self._draw(self.a, int(k), seed, int(at), changes) for k, at in zip(chosen, positions, strict=True)]
        found: dict[str, npt.NDArray[np.generic]] = {
            "a": np.stack([values for values, _ in drawn]),
            "b": np.stack(
                [
                    one_hot(labels, self.plan.channels, self.a.meta.undrawn[int(k)])
                    for k, (_, labels) in zip(chosen, drawn, strict=True)
                    if labels is not None
                ]
            ),
            "index": chosen,
        }
        if self.unlabelled is not None:
            others = order(len(self.unlabelled), seed + OTHER, positions)
            more = [
                self._draw(self.unlabelled, int(k), seed + OTHER, int(at), changes)[0]
                for k, at in zip(others, positions, strict=True)
            ]
            found["unlabelled"] = np.stack(more)
        return found

    def _draw(self, cases: Cases, k: int, seed: int, position: int, changes: Changes) -> tuple[Float32, Uint8 | None]:
        """A patch (C', *P) of case k and its class numbers (*P)."""
        draw = stream(seed, position, 3)
        wanted = self.plan.size
        middle = _middle(cases, k, wanted, draw)
        grid = _grid(self.plan, draw) if changes.augment else None
        values, labels = _read(cases, k, middle, wanted, self.context, grid)
        if not changes.augment:
            return values, labels
        for axis in self.plan.mirror:
            if draw.random() < 0.5:
                values = np.flip(values, 1 + axis)
                labels = None if labels is None else np.flip(labels, axis)
        thick = [axis for axis in range(len(wanted)) if axis not in self.plan.turned]
        return self._changed(cases, k, values, draw, thick), labels

    def _changed(
        self, cases: Cases, k: int, values: Float32, draw: np.random.Generator, thick: Sequence[int]
    ) -> Float32:
        """Grey values changed at random, each contrast for itself; those that case k has not stay absent."""
        each = cases.channels_of(0).stop
        parts = np.split(values, range(len(values) - self.beside, len(values), each))
        gone = cases.meta.absent[k]
        return np.concatenate(
            [part if n in gone else changed_values(part, draw, thick) for n, part in enumerate(parts)]
        )


def one_hot(labels: Uint8, channels: Sequence[Sequence[int]], undrawn: Sequence[int] = ()) -> Float32:
    """Class numbers (*S) as (K, *S): 1 where they are of a channel's classes, else -1, 0 where they are UNKNOWN; in the
    background also of that and of what holds a class that was not drawn: it may be any of these."""
    signs = np.full((len(channels), UNKNOWN + 1), -1, dtype=np.float32)
    signs[:, UNKNOWN] = 0
    for k, own in enumerate(channels):
        signs[k, list(own)] = 1
        if len(undrawn) and {0, *undrawn} & set(own):
            signs[k, 0] = 0
    return np.take(signs, labels, axis=1)


def _middle(cases: Cases, k: int, wanted: Sequence[int], draw: np.random.Generator) -> Float64:
    """Where the patch's middle lies in case k, (D, H, W): around a voxel of a class, or anywhere."""
    size = cases.size(k)
    sides = [*[1] * (3 - len(wanted)), *wanted]
    places = cases.places(k) if draw.random() < FOREGROUND else {}
    if places:
        label = list(places)[int(draw.integers(len(places)))]
        around = places[label][int(draw.integers(len(places[label])))].astype(float)
    else:
        around = np.array([draw.uniform(-0.5, n - 0.5) for n in size])
    # as far inside as it goes; an image that is smaller than the patch lies in its middle
    low = [min(side, n) / 2 - 0.5 for side, n in zip(sides, size, strict=True)]
    high = [n - 1 - edge for n, edge in zip(size, low, strict=True)]
    found: Float64 = np.clip(np.rint(around), low, high)
    return found


@dataclass(frozen=True)
class _Grid:
    """Where the voxels of a patch come from: `matrix` @ (their distance from its middle) + `bend` (dims, *P)."""

    matrix: Float64
    bend: Float32 | None


def _grid(plan: Plan, draw: np.random.Generator) -> _Grid | None:
    """A patch turned, scaled and bent at random, in millimetres; None where it is neither."""
    dims = len(plan.size)
    mm = np.array(plan.spacing or [1.0] * dims)
    turn, scale, bend = (draw.random() < chance for chance in (TURNED, SCALED, BENT))
    matrix = np.eye(dims)
    if turn:
        axes = plan.turned
        planes = [(axes[i], axes[j]) for i in range(len(axes)) for j in range(i + 1, len(axes))]
        for one, other in planes:
            angle = np.deg2rad(draw.uniform(-ANGLE, ANGLE))
            rotation = np.eye(dims)
            rotation[[one, other], [one, other]] = np.cos(angle)
            rotation[one, other], rotation[other, one] = -np.sin(angle), np.sin(angle)
            matrix = rotation @ matrix
        matrix = matrix * mm[None] / mm[:, None]
    if scale:
        factor = np.ones(dims)
        factor[plan.turned] = draw.uniform(*SIZES)
        matrix = matrix / factor
    field = _bent(plan, draw) if bend else None
    return _Grid(matrix, field) if turn or scale or bend else None


def _bent(plan: Plan, draw: np.random.Generator) -> Float32:
    """Smooth displacements (dims, *P) in voxels (Simard et al. 2003), none along thick slices."""
    knots = [-(-n // KNOT) + 3 for n in plan.size]
    field = np.zeros((len(plan.size), *plan.size), dtype=np.float32)
    for axis in plan.turned:
        coarse = draw.standard_normal(knots, dtype=np.float32)
        zooms = [n / k for n, k in zip(plan.size, knots, strict=True)]
        field[axis] = BEND * zoom(coarse, zooms, order=1, mode="nearest", grid_mode=True)
    return field


def _read(
    cases: Cases, k: int, middle: Float64, wanted: Sequence[int], context: int, grid: _Grid | None
) -> tuple[Float32, Uint8 | None]:
    """The patch around a place of case k."""
    dims = len(wanted)
    inner = middle[-dims:]
    corner = inner - (np.array(wanted) - 1) / 2
    first, size = np.floor(corner + 0.5).astype(int), np.array(wanted)
    if grid is not None:
        low, high = _reach(grid, inner, wanted)
        first = np.floor(low).astype(int)
        size = np.ceil(high).astype(int) - first + 1
    if dims == 3:
        values = _padded(cases.image(k, *_inside(first, size, cases.size(k))), first, size, cases.size(k), ABSENT)
        labels = (
            _padded(cases.label(k, *_inside(first, size, cases.size(k)))[None], first, size, cases.size(k), 0)[0]
            if cases.meta.labelled
            else None
        )
    else:
        values, labels = _slices(cases, k, int(middle[0]), first, size, context)
    if grid is None:
        return values, labels
    offset = inner - first
    if grid.bend is None:
        start = offset - grid.matrix @ ((np.array(wanted) - 1) / 2)
        moved = [affine_transform(c, grid.matrix, start, tuple(wanted), order=1, cval=ABSENT) for c in values]
        turned = (
            None if labels is None else affine_transform(labels, grid.matrix, start, tuple(wanted), order=0, cval=0)
        )
        return np.stack(moved), turned
    away = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in wanted], indexing="ij"))
    places = np.tensordot(grid.matrix.astype(np.float32), away, 1) + grid.bend
    places += offset.astype(np.float32).reshape(-1, *[1] * dims)
    moved = [map_coordinates(c, places, order=1, cval=ABSENT) for c in values]
    turned = None if labels is None else map_coordinates(labels, places, order=0, cval=0)
    return np.stack(moved), turned


def _reach(grid: _Grid, middle: Float64, wanted: Sequence[int]) -> tuple[Float64, Float64]:
    """The lowest and highest place that the patch is read from."""
    half = np.abs(grid.matrix) @ ((np.array(wanted) - 1) / 2)
    if grid.bend is not None:
        half = half + np.abs(grid.bend).reshape(len(wanted), -1).max(1)
    return middle - half - 1, middle + half + 1


def _inside(first: Int64, size: Int64, of: Sequence[int]) -> tuple[list[int], list[int]]:
    """The part of a window that lies in an array of this size: its start and its size, at least one voxel."""
    start = [int(np.clip(f, 0, n - 1)) for f, n in zip(first, of, strict=True)]
    stop = [int(np.clip(f + s, k + 1, n)) for f, s, k, n in zip(first, size, start, of, strict=True)]
    return start, [b - a for a, b in zip(start, stop, strict=True)]


def _padded(part: npt.NDArray[np.generic], first: Int64, size: Int64, of: Sequence[int], fill: float) -> Float32:
    """What `_inside` gave (C, *S) as the whole window, `fill` where the image does not reach."""
    out = np.full((len(part), *size), fill, dtype=part.dtype)
    start, had = _inside(first, size, of)
    where = tuple(slice(max(s - f, 0), max(s - f, 0) + h) for s, f, h in zip(start, first, had, strict=True))
    inner = out[:, *where]
    if inner.size:
        inner[...] = part[:, *(slice(n) for n in inner.shape[1:])]
    return out


def _slices(cases: Cases, k: int, plane: int, first: Int64, size: Int64, context: int) -> tuple[Float32, Uint8 | None]:
    """A window (H, W) of one slice, and its neighbours as channels; of what lies beside it, the slice alone."""
    depth, *of = cases.size(k)
    start, had = _inside(first, size, of)
    own = cases.channels_of(0)
    near = {n: cases.image(k, [n, *start], [1, *had])[:, 0] for n in {*neighbours(plane, context, depth)}}
    parts = [near[n][own] for n in neighbours(plane, context, depth)] + [near[plane][own.stop :]]
    values = _padded(np.concatenate(parts), first, size, of, ABSENT)
    if not cases.meta.labelled:
        return values, None
    return values, _padded(cases.label(k, [plane, *start], [1, *had]), first, size, of, 0)[0]
