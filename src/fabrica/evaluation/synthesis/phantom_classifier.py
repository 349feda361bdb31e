"""A reader of phantom chests: a small network that says from pixels alone what is found, and how often it is right.

It learns from phantoms drawn for it, whose truth is known, and sits an exam on others. It judges generators that are
trained on the same phantoms; of real radiographs it knows nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, mse_loss, pad

from fabrica import phantoms
from fabrica.data.manifest_cache import cache_home
from fabrica.errors import UsageError
from fabrica.evaluation.synthesis import phantom_findings
from fabrica.evaluation.synthesis.phantom_findings import FINDINGS, Int, examples, facts, numbered
from fabrica.image import Float32, Float64
from fabrica.io.atomic import atomic
from fabrica.progress import Progress

TRUSTED = 0.97
RATIO = "heart_thorax_ratio"
SEEDS = {"learn": 4_000_000_000, "exam": 4_500_000_000}
CELL = 4  # pixels a side of a cell of the map of nodules
BATCH, RATE, WEIGHT_DECAY = 64, 2e-3, 0.05
POOLED = 4  # a side of the coarse grid that most findings are read from


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, eq=False)
class PhantomClassifier:
    """Reads radiographs of `size` pixels a side.

    accuracy  finding -> the mean over its values of the share of unseen phantoms read right: guessing scores one over
              the number of values, however rare some are.
    error     the mean absolute error of the heart-thorax ratio on them.
    """

    size: int
    network: nn.Module
    accuracy: dict[str, float]
    error: float

    @property
    def trusted(self) -> tuple[str, ...]:
        """The findings that can be read at this size: those with an accuracy of at least TRUSTED."""
        return tuple(name for name, share in self.accuracy.items() if share >= TRUSTED)

    def read(self, images: Float32) -> dict[str, Int]:
        """images (N, 1, size, size) in [-1, 1], as the phantoms' 0 to 4095 are coded -> finding -> int64 (N,), places
        in the finding's `values`.

        Raises UsageError for other shapes and for values that are not finite."""
        self._check(images)
        out = _answers(self.network, torch.from_numpy(images))
        return {name: out[name].argmax(1).numpy() for name in FINDINGS}

    def ratios(self, images: Float32) -> Float64:
        """images as above -> the heart-thorax ratio, float64 (N,)."""
        self._check(images)
        ratios: Float64 = _answers(self.network, torch.from_numpy(images))[RATIO].numpy().astype(np.float64)
        return ratios

    def _check(self, images: Float32) -> None:
        if images.ndim != 4 or images.shape[1:] != (1, self.size, self.size) or images.dtype != np.float32:
            raise UsageError(
                f"images are {images.dtype} of shape {images.shape}; this reader takes float32 "
                f"(N, 1, {self.size}, {self.size}) in [-1, 1]"
            )
        if not np.isfinite(images).all():
            raise UsageError("some images hold values that are not finite numbers")


def readable(size: int) -> bool:
    """Whether there is a reader of radiographs of so many pixels a side."""
    return size % 8 == 0 and size >= 32


def classifier(
    size: int, *, count: int = 5000, exam: int = 1000, epochs: int = 12, tell: Progress = quiet
) -> PhantomClassifier:
    """The reader of this size, from the cache, or trained on `count` phantoms and examined on `exam` others.

    The first time 64 takes seven minutes of one core, half of them for drawing, and 96 about thirteen. At
    both, presence and side of everything but nodules are read right in 99 of 100 phantoms and more; nodules, one to six
    pixels wide, hardly better than by guessing. Raises UsageError for sizes that are no multiple of 8.
    """
    if not readable(size):
        raise UsageError(f"no reader of size {size}; expected a multiple of 8 from 32 on, e.g. 64 or 96")
    told = hashlib.sha256(f"{size} {count} {exam} {epochs}".encode())
    for code in (Path(__file__), Path(phantom_findings.__file__), *sorted(Path(phantoms.__path__[0]).rglob("*.py"))):
        told.update(code.read_bytes())
    kept = cache_home() / "readers" / f"chest-{size}-{told.hexdigest()[:16]}.safetensors"
    if not kept.is_file():
        network = _trained(size, count, epochs, tell)
        accuracy, error = _examined(network, size, exam, tell)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic(kept) as temporary:
            exam_said = {"accuracy": json.dumps(accuracy), "error": json.dumps(error)}
            save_file(network.state_dict(), temporary, exam_said)
    network = _Network(size)
    with safe_open(kept, "pt") as file:
        network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118  (no mapping)
        exam_said = file.metadata()
    return PhantomClassifier(size, network.eval(), json.loads(exam_said["accuracy"]), json.loads(exam_said["error"]))


class _Network(nn.Module):
    """images (B, 1, S, S) -> finding -> logits (B, values), RATIO -> (B,), "where" -> logits (B, cells + 1).

    Nodules are a few pixels wide and are looked for in every cell of the image; the last of the cells is "nowhere"."""

    def __init__(self, size: int, width: int = 32) -> None:
        super().__init__()
        self.cells = size // CELL
        wide, widest = 2 * width, 3 * width
        self.fine = nn.Sequential(
            nn.PixelUnshuffle(2), _layer(4, width), _layer(width, width), _layer(width, wide, 2), _layer(wide, wide)
        )
        self.coarse = nn.Sequential(_layer(wide, widest, 2), _layer(widest, widest))
        self.map = nn.Sequential(_layer(wide + widest, wide), nn.Conv2d(wide, 1, 1))
        self.nowhere = nn.Parameter(torch.tensor([4.0]))
        self.place = nn.Sequential(nn.Linear(3, 16), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(POOLED)
        seen = widest * (POOLED**2 + 1) + 16
        self.heads = nn.ModuleList(nn.Linear(seen, len(finding.values)) for finding in FINDINGS.values())
        self.ratio = nn.Linear(seen, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        grown = interpolate(coarse, size=fine.shape[2:], mode="nearest")
        where = self.map(torch.cat([fine, grown], 1)).flatten(1).float()
        there = where.logsumexp(1, keepdim=True)
        row, column = self._middle(where.softmax(1))
        nodule = self.place(torch.stack([(there - self.nowhere).sigmoid().squeeze(1), row, column], 1))
        seen = torch.cat([self.pool(coarse).flatten(1), coarse.amax((2, 3)), nodule], 1)
        out = {name: head(seen).float() for name, head in zip(FINDINGS, self.heads, strict=True)}
        nowhere = self.nowhere.expand(len(x), 1)
        out["nodule"] = torch.cat([nowhere, there], 1)
        out["where"] = torch.cat([where, nowhere], 1)
        out[RATIO] = 0.5 + 0.1 * self.ratio(seen).squeeze(1).float()
        return out

    def _middle(self, chances: Tensor) -> tuple[Tensor, Tensor]:
        """Mean row and column, 0 to 1, of chances (B, cells) in the map."""
        grid = chances.view(-1, self.cells, self.cells)
        at = (torch.arange(self.cells, device=chances.device) + 0.5) / self.cells
        return grid.sum(2) @ at, grid.sum(1) @ at


def _layer(before: int, after: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _trained(size: int, count: int, epochs: int, tell: Progress) -> _Network:
    """Cross-entropy of every finding with weights that make its values equally important; the same weights and order
    every time."""
    images, labels, places = _drawn("learn", count, size, tell)
    answers = {name: torch.from_numpy(value) for name, value in numbered([facts(one) for one in labels]).items()}
    ratios = torch.tensor([float(str(one[RATIO])) for one in labels])
    weights = {name: _weights(value, len(FINDINGS[name].values)) for name, value in answers.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _Network(size)
    rng = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * max(1, count // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.15)
    for step in range(steps):
        chosen = torch.randint(count, (BATCH,), generator=rng)
        seen, shift = _changed(images[chosen], rng)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(seen)
        loss = cross_entropy(out["where"], _cells(places[chosen] + shift, size))
        loss = loss + 100 * mse_loss(out[RATIO], ratios[chosen])
        for name, answer in answers.items():
            if name != "nodule":  # "where" teaches it
                loss = loss + cross_entropy(out[name], answer[chosen], weights[name], ignore_index=-1)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
        tell("teaching the reader", step + 1, steps)
    return network.eval()


def _drawn(which: str, count: int, size: int, tell: Progress) -> tuple[Tensor, list[phantom_findings.Labels], Tensor]:
    """`examples`, a hundred at a time."""
    parts = []
    for start in range(0, count, 100):
        parts.append(examples(SEEDS[which] + start, min(100, count - start), size))
        tell(f"drawing phantoms to {which}", min(start + 100, count), count)
    images, labels, places = zip(*parts, strict=True)
    return (
        torch.from_numpy(np.concatenate(images)),
        [one for part in labels for one in part],
        torch.from_numpy(np.concatenate(places)),
    )


def _changed(images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The images a little moved, brighter or darker, blurred or noisy, since generators are not exact; and by how many
    rows and columns they moved, (2,)."""
    size, far = images.shape[-1], CELL
    shift = torch.randint(-far, far + 1, (2,), generator=rng)
    top, left = (far - shift).tolist()
    moved = pad(images, (far, far, far, far), mode="replicate")[:, :, top : top + size, left : left + size]
    one = (len(images), 1, 1, 1)
    gain, offset, grain = (torch.rand(one, generator=rng) for _ in range(3))
    noise = torch.randn(images.shape, generator=rng)
    return moved * (0.85 + 0.3 * gain) + 0.2 * (offset - 0.5) + 0.04 * grain * noise, shift


def _cells(places: Tensor, size: int) -> Tensor:
    """(B, 2) pixels -> (B,) cells; outside of the image, without a nodule, the last one."""
    row, column = (places // CELL).unbind(1)
    cells = size // CELL
    inside = (places.min(1).values >= 0) & (places.max(1).values < size)
    return torch.where(inside, row * cells + column, cells * cells)


def _weights(answer: Tensor, values: int) -> Tensor:
    counts = torch.bincount(answer[answer >= 0], minlength=values).clamp(min=1).float()
    return (1 / counts) / (1 / counts).mean()


def _examined(network: nn.Module, size: int, count: int, tell: Progress) -> tuple[dict[str, float], float]:
    """Accuracy by finding, and the error of the ratio, on phantoms the network has not seen."""
    images, labels, _ = _drawn("exam", count, size, tell)
    out = _answers(network, images)
    accuracy = {}
    for name, truth in numbered([facts(one) for one in labels]).items():
        read = out[name].argmax(1).numpy()
        accuracy[name] = float(np.mean([np.mean(read[truth == k] == k) for k in np.unique(truth[truth >= 0])]))
    ratios = np.array([float(str(one[RATIO])) for one in labels])
    return accuracy, float(np.abs(out[RATIO].numpy() - ratios).mean())


@torch.no_grad()
def _answers(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    parts = [network(images[start : start + 128]) for start in range(0, len(images), 128)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
