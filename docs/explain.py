"""Draw docs/pictures/explain.png: where findings truly lie in chest phantoms, and what a segmenter of lungs looks at.

python docs/explain.py MODEL_FOLDER      a model that outlines the lungs of radiographs
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image as Pillow

import fabrica
from fabrica.evaluation.explanation.lesions import truth
from fabrica.io.contact_sheet import save_picture
from fabrica.io.display import Uint8, signed_colours, to_display
from fabrica.phantoms.chest.chest import FINDINGS, chest

PICTURE = Path(__file__).parent / "pictures" / "explain.png"
SIDE, SEED, PIXELS = 200, 11, 256
SHOWN = ("answer", "over-the-input", "gradients")


def tile(pixels: Uint8) -> Uint8:
    picture = Pillow.fromarray(pixels).convert("RGB").resize((SIDE, SIDE), Pillow.Resampling.BOX)
    return np.pad(np.asarray(picture), [(0, 4), (0, 4), (0, 0)], constant_values=255)


def findings() -> list[list[Uint8]]:
    """The first phantoms of `fabrica explain`, each with its finding, and below how that changes it."""
    above, below = [], []
    for finding in FINDINGS:
        known = truth(finding, 1, 0, PIXELS, stated=False)
        above.append(tile(to_display(chest(7_000_000_000, PIXELS, [finding]).image, (2047.5, 4095))))
        below.append(tile(signed_colours(known.changes[0] / known.changes[0].max())))
    return [above, below]


def looked_at(folder: str) -> list[Uint8]:
    """One radiograph: everywhere, and around one place."""
    model, shown = fabrica.load(folder), []
    image = chest(SEED, 512, ()).image
    image = image.with_data(image.data / 4095 * 255, origin={**image.origin, "range": (0, 255)})
    for choices in ({}, {"at": (150, 170), "radius": 20}):
        with TemporaryDirectory() as out:
            found = fabrica.explain(model, image, out, force=True, **choices)
            stem = found.facts["parts"][0]["stem"]
            shown += [tile(np.asarray(Pillow.open(Path(out) / f"{stem}-{name}.png"))) for name in SHOWN]
    return shown


def main() -> None:
    rows = [*findings(), looked_at(sys.argv[1])]
    save_picture(np.concatenate([np.concatenate(row, axis=1) for row in rows]), PICTURE)


if __name__ == "__main__":
    main()
