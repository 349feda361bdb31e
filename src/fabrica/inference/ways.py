"""The way of a trained model, of what its recipe asked and its training found, whatever runs its networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fabrica.inference.tiling import Net
from fabrica.inference.translation import Way
from fabrica.inference.translator import known_direction
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe


def way_of(
    recipe: Recipe, found: Found, directions: Sequence[str], net: Callable[[str], Net], direction: str, *, local: bool
) -> Way:
    """One direction of a model that translates, restores or segments; UsageError for one that it does not go.

    directions   that it goes; net: of each, what runs its network. local: see `Way`.
    """
    data = found.data(recipe.data)
    direction = known_direction(recipe.name, direction, directions, data)
    sides = (found.fingerprint_a, codec_of(found.codec)), (found.fingerprint_b, codec_of(found.codec_b))
    (source, from_codec), (target, to_codec) = sides if direction == "a2b" else sides[::-1]
    other = "b2a" if direction == "a2b" else "a2b"
    return Way(
        net(direction),
        from_codec,
        to_codec,
        data,
        source,
        target.modality,
        restores=data.one_scale,
        local=local,
        auxiliary=tuple(codec_of(codec) for codec in found.codecs_auxiliary),
        model=recipe.name,
        direction=direction,
        held_out=found.held_out(direction),
        back=net(other) if other in directions else None,
        labels=found.plan.label_names,
        mirror=found.plan.mirror,
        largest=found.largest,
    )
