"""The colours of labels: told apart with any colour vision, and the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

RGB = tuple[int, int, int]

# Okabe and Ito 2008, without black, then Tol 2021's muted scheme without the hues that the first has.
COLOURS: tuple[RGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (136, 34, 85),
    (153, 153, 51),
    (51, 34, 136),
    (221, 204, 119),
    (68, 170, 153),
    (170, 68, 153),
    (17, 119, 51),
    (136, 204, 238),
    (204, 102, 119),
)
"""RGB, 0 to 255."""

NAMED: dict[str, RGB] = {  # as atlases of anatomy print them, by a word of a name
    "artery": (214, 39, 40),
    "aorta": (214, 39, 40),
    "vein": (31, 87, 200),
    "cava": (31, 87, 200),
    "nerve": (255, 215, 0),
    "bone": (238, 224, 190),
    "skull": (238, 224, 190),
    "gallbladder": (76, 145, 65),
}


def colour_of(label: int) -> RGB:
    """The colour of a label from 1 on; they come again after the last."""
    return COLOURS[(label - 1) % len(COLOURS)]


def colours(names: Mapping[int, str]) -> dict[int, RGB]:
    """The colour of each label of a map that shows these: of what atlases print in a colour of its own that one, where
    no other label has it, of others by number."""
    found: dict[int, RGB] = {}
    for number, name in names.items():
        named = [NAMED[word] for word in re.findall(r"[a-z]+", name.lower()) if word in NAMED]
        own = named[0] if named else colour_of(number)
        found[number] = own if own not in found.values() else colour_of(number)
    return found


def hexed(colour: RGB) -> str:
    """As pages and matplotlib read it, "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
