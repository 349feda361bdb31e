"""A trained translator put to work on one image, whatever runs its network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fabrica.data.resolution import scale
from fabrica.errors import UsageError, did_you_mean
from fabrica.image import Image
from fabrica.inference.test_time import with_mirrors, with_uncertainty, with_way_back
from fabrica.inference.translation import Way, enlarged, translated
from fabrica.progress import Count
from fabrica.recipe.schema import DataConfig


class Translates(Protocol):
    """A trained model that translates or restores: its name, the hash of its weights, and the ways that it goes."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    def way(self, direction: str = "a2b") -> Way: ...


@dataclass(frozen=True)
class Deployed:
    """A trained model of ways that are there already."""

    name: str
    hash: str
    ways: Mapping[str, Way]

    def way(self, direction: str = "a2b") -> Way:
        """UsageError for one that it does not go."""
        data = next(iter(self.ways.values())).data
        return self.ways[known_direction(self.name, direction, self.ways, data)]


def known_direction(model: str, direction: str, ways: Iterable[str], data: DataConfig) -> str:
    """ "a2b" or "b2a", of either or of the names of the sides, "T1-CT"; UsageError for one that the model does not
    go."""
    directions = tuple(ways)
    named = {f"{data.a}-{data.b}": "a2b", f"{data.b}-{data.a}": "b2a"}
    found = named.get(direction, direction)
    if found not in directions:
        known = [f"{way} ({name})" for name, way in named.items() if way in directions]
        raise UsageError(
            f"model {model} goes {' and '.join(known)}; found direction {direction!r}"
            f"{did_you_mean(direction, [*directions, *named])}"
        )
    return found


@dataclass(frozen=True)
class Applied:
    """The result, and the maps asked for, each on the grid of the image."""

    result: Image
    uncertainty: Image | None = None
    round_trip: Image | None = None


def apply(
    image: Image,
    way: Way,
    *,
    auxiliary: Mapping[str, Image] | None = None,
    contrast: str = "",
    uncertainty: bool = False,
    round_trip: bool = False,
    mirror: bool = False,
    overlap: float = 0.5,
    batch: int = 0,
    progress: Count | None = None,
) -> Applied:
    """The image (C, H, W) or (C, D, H, W) translated or restored, in physical units, on its own grid; of a model that
    adds resolution, on one as much finer.

    auxiliary    other contrasts of the same patient by name, {"T2": ...}, for a model that sees some beside the image;
                 laid on its grid. Those that are not there it does without.
    contrast     of models that segment: which of the contrasts that it sees the image is, where it is not the first;
                 that one may stand in `auxiliary`, or is missing. The result lies on the image's grid.
    uncertainty  also a map of the standard deviation of the answers to slightly changed images, in the result's unit:
                 see `fabrica.inference.test_time.with_uncertainty`.
    round_trip   also a map of |image - there and back|, in the image's unit, for models that go both ways.
    mirror       the mean over the mirrored image, too, of models that segment: twice as slow.
    overlap, batch   of windows: see `fabrica.inference.tiling.windowed`.

    Whether the image is like those in training is not asked here: see `fabrica.inference.refusal`. Raises UsageError.
    """
    number = contrast_number(way, contrast)
    check_auxiliary(way, auxiliary or {}, contrast)
    own, *others = ((auxiliary or {}).get(name) for name in (way.data.a, *way.data.auxiliary))
    finer = scale(way.data.degrade)
    if finer > 1 and not image.origin.get("degraded"):
        image = enlarged(image, finer)
    net, maps = way.net, []
    if mirror:
        if not way.mirror:
            raise UsageError(f"model {way.model} was not trained on mirrored images; leave mirror out")
        net = with_mirrors(net, way.mirror)
    if uncertainty:
        net, maps = with_uncertainty(net, way.source.reach, way.target), [way.target]
    if round_trip:
        if way.back is None:
            raise UsageError(f"model {way.model} goes {way.direction} alone: it has no way back; leave round_trip out")
        net, maps = with_way_back(net, way.back), [*maps, way.source]
    asked = replace(way, net=net, maps=maps)
    choices: dict[str, Any] = {"overlap": overlap, "batch": batch, "progress": progress}
    found = iter(translated(image, asked, auxiliary=others, own=own, contrast=number, **choices))
    return Applied(next(found), next(found) if uncertainty else None, next(found) if round_trip else None)


def check_auxiliary(way: Way, names: Iterable[str], contrast: str = "") -> None:
    """UsageError for a contrast that the model does not see beside the image, which is `contrast` itself."""
    known = contrasts_beside(way.data.a, way.data.auxiliary, contrast)
    for name in names:
        if not way.data.auxiliary:
            raise UsageError(f"model {way.model} sees one image, and nothing beside it; leave {name!r} out")
        if name not in known:
            raise UsageError(f"model {way.model} sees no {name!r} beside the image{did_you_mean(name, known)}")


def contrasts_beside(first: str, auxiliary: Sequence[str], contrast: str = "") -> list[str]:
    """The contrasts that a model of side a `first` and these auxiliary ones sees beside the image, which is `contrast`
    itself; "": the first."""
    known = [first, *auxiliary] if auxiliary else []
    return [name for name in known if name != (contrast or first)]


def contrast_number(way: Way, contrast: str) -> int:
    """Which of the contrasts that the model sees this is, 0 for side a and for ""; UsageError for one that it does not
    see, and for models that need side a."""
    known = [way.data.a, *way.data.auxiliary]
    if contrast in ("", way.data.a):
        return 0
    if contrast not in known:
        raise UsageError(f"model {way.model} sees {', '.join(known)}; found contrast {contrast!r}")
    if not way.labels:
        raise UsageError(f"model {way.model} makes {way.name}, and needs the image itself; leave contrast out")
    return known.index(contrast)
