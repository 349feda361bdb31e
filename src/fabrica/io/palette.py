"""The colours of labels: told apart with any colour vision, and the same everywhere."""

from __future__ import annotations

# Okabe and Ito 2008, without black, then Tol 2021's muted scheme without the hues that the first has.
COLOURS = (
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


def colour_of(label: int) -> tuple[int, int, int]:
    """The colour of a label from 1 on; they come again after the last."""
    return COLOURS[(label - 1) % len(COLOURS)]
