"""What all tests share: few threads, a cache, phantoms drawn once, and a translator that changes nothing."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fabrica.cli.importing import importing

if TYPE_CHECKING:  # what distributes the tests imports this file too, and needs nothing that takes seconds to import
    from fabrica.codec import Codec
    from fabrica.model.model import Model
    from fabrica.recipe.found import Fingerprint


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What all tests import is set aside from the garbage collector, which would look through it all the time."""
    with importing():
        return (yield)


@pytest.fixture(autouse=True, scope="session")
def nothing_waits() -> Iterator[None]:
    """Files are not flushed to the disk, which no test here could see and which takes as long as a twentieth of all
    of them, and the garbage collector looks less often at what PyTorch and MONAI leave behind, another twentieth."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, *before[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    gc.set_threshold(*before)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """OMP_NUM_THREADS threads each, also of the processes that tests start; more than there are cores wait for one
    another. Numbers that depend on how sums are shared are compared within one process or between equal ones."""
    import torch

    home = tmp_path_factory.getbasetemp()  # of all processes that share the tests, the folder around theirs
    cache = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "cache"
    os.environ["FABRICA_CACHE"] = str(cache)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    share = max(1, min(2, len(os.sched_getaffinity(0)) // workers))
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(share))))


@pytest.fixture(autouse=True, scope="session")
def phantoms_drawn_once(own_cache: None) -> Iterator[None]:
    """Data sets of phantoms, folders of them, and what the report of a model that reads text draws, and nothing else,
    take from memory, or from a file of another worker, what was drawn before with the same arguments: to draw them is
    most of a training of two steps. That they are the same each time, the tests of phantoms show, which draw for
    themselves. Their voxels cannot be written, so no test changes another's."""
    from fabrica.data import embedded
    from fabrica.data.sources import Source
    from fabrica.evaluation.synthesis import phantom_findings
    from fabrica.phantoms.chest.chest import Chest, chest
    from fabrica.phantoms.head.head import Head, head

    folder = Path(os.environ["FABRICA_CACHE"]).parent / "phantoms"
    folder.mkdir(exist_ok=True)
    known: dict[str, Chest | Head] = {}

    def once(drawing: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*arguments: Any, **choices: Any) -> Chest | Head:
            key = repr((drawing.__name__, arguments, choices))
            if key not in known:
                file = folder / hashlib.sha256(key.encode()).hexdigest()
                found = pickle.loads(file.read_bytes()) if file.exists() else drawing(*arguments, **choices)
                if not file.exists():
                    own = file.with_suffix(f".{os.getpid()}")
                    own.write_bytes(pickle.dumps(found))
                    own.rename(file)
                known[key] = found
                images = (
                    found.images.values() if isinstance(found, Head) else (found.image, found.organs, found.lesions)
                )
                for image in images:
                    image.data.setflags(write=False)
            return known[key]

        return drawn

    def remembering(draw: Callable[..., Any]) -> Callable[..., Any]:
        def remembered(*arguments: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                for drawing in (chest, head):
                    patch.setattr(sys.modules[drawing.__module__], drawing.__name__, once(drawing))
                return draw(*arguments)

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        for place, name in ((Source, "_draw"), (embedded, "_chest"), (embedded, "_head")):
            patch.setattr(place, name, remembering(getattr(place, name)))
        patch.setattr(phantom_findings, "chest", once(chest))
        yield


@pytest.fixture(scope="module")
def few_asked() -> Iterator[None]:
    """Four held-out images say how uncertain a translator usually is, and one a segmenter, and not sixteen and eight,
    each of which is done ten times. For modules in which nothing depends on how many they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabrica.model.translation.ASKED", 4)
        patch.setattr("fabrica.model.segmentation.DOUBTED", 1)
        yield


@pytest.fixture(scope="module")
def few_held_out() -> Iterator[None]:
    """Sources of phantoms hold out 16, and not 64, which take longer to draw and to judge than a training of two
    steps. For modules in which nothing depends on how many they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fabrica.data.sources.HELD_OUT", 16)
        yield


@pytest.fixture
def unchanged() -> Callable[..., Model]:
    """(codec, codec_b, seen, **data) -> a model like any other but for its network, which gives back what it gets."""
    return unchanged_model


def unchanged_model(
    codec: Codec | None = None, codec_b: Codec | None = None, seen: Fingerprint | None = None, **data: Any
) -> Model:
    from dataclasses import replace
    from pathlib import Path

    import torch
    from torch import nn

    from fabrica.codec import Codec
    from fabrica.methods import build
    from fabrica.model.translation import TranslationModel
    from fabrica.recipe.codecs import codec_config
    from fabrica.recipe.found import Fingerprint, Found
    from fabrica.recipe.schema import DataConfig, Recipe, TrainConfig

    class Middle(nn.Module):
        """Of neighbouring slices, the one in the middle."""

        def __init__(self, channel: int) -> None:
            super().__init__()
            self.channel = channel

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, self.channel : self.channel + 1]

    hu = Codec("window", -1024.0, 3071.0, "HU")
    values: dict[str, Any] = {"a": "MR", "b": "CT", "paired": True, "size": [32, 32], "fit": "exact", **data}
    recipe = Recipe(
        name="unchanged",
        method={"name": "pix2pix", "network": "residual", "width": 4, "levels": 2, "adversarial": 0},
        data=DataConfig(**values),
        train=TrainConfig(precision="fp32"),
    )
    method = build(recipe)
    method.generator = Middle(recipe.data.context)
    found = replace(
        Found.asked(recipe),
        codec=codec_config(codec or hu),
        codec_b=codec_config(codec_b or hu),
        fingerprint_a=seen or Fingerprint(),
        fingerprint_b=Fingerprint("CT"),
    )
    return TranslationModel(Path("unchanged"), recipe, found, method, torch.device("cpu"), "0" * 12)
