"""What a source gives of one image, and the names of its sides."""

from __future__ import annotations

from dataclasses import dataclass

from fabrica.image import Image

PHANTOM = "phantom:"


AUXILIARY = "auxiliary:"  # before the name of a contrast beside a: a side like "a" and "b"


UNLABELLED = "unlabelled"  # a side, too: images of a that have no pair


ALL = "all"  # a split: every image, whatever its split


NO_PICTURES = ("dose", "segmentation", "structures", "presentation", "report", "video", "raw", "mask")  # kinds of rows


MASK = "mask"  # a side, too: the label maps that images are told


# far from the seeds of phantoms written to a folder, and from one another
FIRST_SEED = {"train": 1_000_000_000, "val": 2_000_000_000, "test": 3_000_000_000}


@dataclass(frozen=True)
class Sample:
    """One source image with what is said of it. absent: there is none, and the image is empty, on the grid it would
    have. about: see `fabrica.data.metadata.ABOUT`."""

    id: str
    image: Image
    label: str = ""
    text: str = ""
    modality: str = ""
    absent: bool = False
    about: tuple[str, ...] = ()
