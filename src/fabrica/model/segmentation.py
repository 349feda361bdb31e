"""Segmentation: label maps of images, by a trained model and by one in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from fabrica.data.augment import AS_THEY_ARE, Int64
from fabrica.data.cases import UNKNOWN, Uint8
from fabrica.data.dataset import Dataset, evenly
from fabrica.data.patches import Patches
from fabrica.data.standardise import neighbours
from fabrica.image import Float32
from fabrica.inference.test_time import with_uncertainty
from fabrica.inference.tiling import whole
from fabrica.inference.translation import Way, largest_only
from fabrica.io.palette import RGB, colours
from fabrica.methods.segment import Segment
from fabrica.metrics.patients import interval, known_mean
from fabrica.metrics.segmentation import Labels, dice
from fabrica.model.task import SHOWN
from fabrica.model.translation import TranslationModel
from fabrica.recipe import card
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.found import Found, HeldOutError
from fabrica.recipe.schema import Recipe

JUDGED = 32  # held-out images that say how good a segmenter is
NOBODY = -1  # a label number where nobody has said
DOUBTED = 8  # of these, that say how uncertain it usually is


@dataclass(frozen=True)
class SegmentationModel(TranslationModel):
    """A trained model that segments."""

    use = "segments images; use it with: fabrica apply {folder} IN -o OUT"
    method: Segment

    @property
    def label_names(self) -> dict[int, str]:
        """What the numbers in its label maps are called, without the background."""
        return self.found.plan.label_names


class Segmentation:
    """What is asked of a method that segments while it trains, and of its model."""

    model = SegmentationModel
    verb = "segments"
    evaluation = "fabrica.evaluation.segmentation.evaluate"
    next = "apply {folder} IN -o OUT"
    compares = False
    diverse = False

    def card(self, recipe: Recipe, found: Found, method: Segment) -> card.CardPart:
        return card.segmentation(recipe, found)

    def preview(self, method: Segment, recipe: Recipe, found: Found, heldout: Patches, device: torch.device) -> Uint8:
        """Held-out patches, each with its label map and the answer laid over it."""
        chosen = evenly(len(heldout), SHOWN)
        batch, codec = heldout.batch(0, chosen, AS_THEY_ARE), codec_of(found.codec_b)
        shades = colours({number: name for number, (name, _) in found.plan.judged.items()})
        tiles = []
        with torch.no_grad():
            for a, b in zip(batch["a"], batch["b"], strict=True):
                made = method.translate(torch.from_numpy(a[None]).to(device), "a2b")[0].float().cpu().numpy()
                plain = a[: len(a) - heldout.beside]
                tiles.append(_overlaid(plain, codec.decode(b)[0], codec.decode(made)[0], shades))
        columns = 2 if len(tiles) > 1 else 1
        rows = [
            np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles) // columns * columns, columns)
        ]
        return np.concatenate(rows)

    def paired(self, heldout: Patches) -> bool:
        return True

    def judged(self, heldout: Patches) -> Dataset:
        raise NotImplementedError("label maps are judged by their loss alone")

    def maker(
        self, recipe: Recipe, heldout: Patches, chosen: Int64, device: torch.device
    ) -> Callable[[Segment], Float32]:
        raise NotImplementedError("label maps are judged by their loss alone")

    def before_keeping(self, method: Segment, data: Patches, feed: object) -> None:
        """Nothing."""

    def concluded(
        self, found: Found, opened: Callable[[], SegmentationModel], data: Patches, heldout: Patches
    ) -> Found:
        """How well held-out images are segmented, of which labels the largest piece alone is better, and how uncertain
        the model is at most."""
        way = opened().way()
        plain, largest, doubts = [], [], []
        owned = list(found.plan.owned.values())
        numbers = [] if found.plan.regions else list(found.plan.owned)  # a piece of a region may be one of another
        for k in evenly(len(heldout), JUDGED):
            made, doubt = _answered(way, heldout, int(k))
            known = np.array([*found.plan.numbers, *[NOBODY] * (UNKNOWN + 1 - len(found.plan.numbers))])
            truth = known[heldout.a.label(int(k))]
            undrawn = [found.plan.numbers[c] for c in heldout.a.meta.undrawn[int(k)]]  # nobody has said: no false alarm
            made[np.isin(made, undrawn)] = 0
            plain.append([dice(np.isin(made, own), np.isin(truth, own)) for own in owned])
            cleaned = largest_only(made[None].copy(), numbers)[0]
            largest.append([dice(np.isin(cleaned, own), np.isin(truth, own)) for own in owned])
            doubts += [float(doubt[made > 0].mean())] if doubt is not None and (made > 0).any() else []
        means = [known_mean(np.array(each), 0) for each in (plain, largest)]
        chosen = [n for n, one, other in zip(numbers, *means, strict=False) if other > one + 1e-4]
        best = np.where([n in chosen for n in found.plan.judged], np.array(largest), np.array(plain))
        each = known_mean(best, 1)
        each = each[np.isfinite(each)]
        at = interval(each) if len(each) > 1 else None
        error = HeldOutError(
            "dice",
            error=float(f"{each.mean():.5g}") if len(each) else 0.0,
            images=len(plain),
            cases=len(each),
            low=float(f"{at.low:.4g}") if at else None,
            high=float(f"{at.high:.4g}") if at else None,
        )
        seen = replace(found.fingerprint_a, uncertainty=round(max(doubts, default=0.0), 5))
        return replace(found, largest=chosen, held_out_b=error, fingerprint_a=seen)


def _answered(way: Way, heldout: Patches, k: int) -> tuple[Labels, Float32 | None]:
    """Label numbers (D, H, W) of a whole held-out case at the plan's spacing; of the first ones the uncertainty."""
    net = with_uncertainty(way.net, target=way.target) if k < DOUBTED else way.net
    image, window = heldout.a.image(k), heldout.plan.size
    if len(window) == 3:
        answers = whole(net, image, window)
    else:
        depth, own = image.shape[1], heldout.a.channels_of(0).stop
        near = [
            np.concatenate([*(image[:own, n] for n in neighbours(z, heldout.context, depth)), image[own:, z]])
            for z in range(depth)
        ]
        answers = np.stack([whole(net, values, window) for values in near], axis=1)
    classes = way.target.classes
    made = way.target.decode(answers[:classes])[0].astype(np.int32)
    return made, answers[classes] if len(answers) > classes else None


def _overlaid(image: Float32, truth: Float32, made: Float32, shades: Mapping[int, RGB]) -> Uint8:
    """A patch (C, *S), the middle slice of what is labelled: as it is, with the drawn map, with the made one."""
    middle = image.shape[0] // 2
    plane = image[middle]
    if plane.ndim == 3:
        k = int((truth > 0).sum((1, 2)).argmax())
        plane, truth, made = plane[k, ::-1], truth[k, ::-1], made[k, ::-1]
    grey = np.clip((plane + 1) * 127.5, 0, 255).astype(np.uint8)
    tiles = [np.stack([grey] * 3, -1)]
    for labels in (truth, made):
        tile = tiles[0].copy()
        for number, shade in shades.items():
            tile[labels == number] = tile[labels == number] // 2 + np.array(shade, dtype=np.uint8) // 2
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)
