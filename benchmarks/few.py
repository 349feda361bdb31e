"""python -m benchmarks few, or python -m benchmarks.few [--arms default|tried|ends] [--minutes N] [--seeds N]
[--pictures FOLDER]: translators that learn from few patients, in the same minutes: each recipe as it stands against
what it chooses for few pairs ("default"); one choice undone at a time ("tried"); more patients, until the choice makes
no difference ("ends").

**Heads.** Seven real patients, rebuilt as phantoms: 123 pairs of 8-bit slices of MR and windowed CT, 128 x 128, of one
MR scanner, of which one patient chooses the weights; three more are judged, each of another scanner, whose field,
contrast, sharpness, bias and noise differ. MR has the grey window that somebody chose for the patient; in that of CT
the skull is white. CT was taken at another time: it lies one to three pixels off and a little turned, which nobody has
told, and shows a head rest. So no translator comes near an error of 0, and one that draws every edge where the MR has
it is not the best.

**Radiographs.** 77 real ones of 43 patients and their lung masks (V7's, of the Hannover set), in ../shared/data or
$FABRICA_DATA; split by patient.

Scored in the picture as it comes out of the model, in grey levels of 255: mean absolute error, PSNR, SSIM; and the
error in the body. Means over slices; what stands in brackets is the spread of patients' means.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from scipy.ndimage import affine_transform, gaussian_filter

import fabrica
from benchmarks.kept import keep, machine
from fabrica import io
from fabrica.data.body import body
from fabrica.data.manifest import Manifest, Row
from fabrica.data.scan import scan
from fabrica.data.split import assign
from fabrica.image import Float32, Image
from fabrica.io.contact_sheet import Uint8, save_picture
from fabrica.metrics.paired import compare
from fabrica.phantoms import mri
from fabrica.phantoms.head.head import head
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

HERE = Path(__file__).parent
LUNGS = Path(os.environ.get("FABRICA_DATA", HERE.parents[1] / "shared" / "data")) / "cxr_hannover_lung_masks"
KEPT = HERE / "real" / "few.json"
MINUTES, SEEDS = 4.0, 2
AS_IT_STANDS = "few.patients=0 few.pairs=0"
ALWAYS = "few.patients=1000000"
UNMOVED = "data.flip=false data.jitter=0 data.turn=0 data.zoom=0 data.bend=0 data.apart=0"
Arms = list[tuple[str, str, str]]  # title, recipe, changes
DEFAULT: Arms = [
    (f"{name}, {how}", name, changes)
    for name in ("pix2pix-head", "strong-head")
    for how, changes in (("as it stands", AS_IT_STANDS), ("for few pairs", ""))
]
TRIED: Arms = [
    (f"for few pairs, {title}", "pix2pix-head", changes)
    for title, changes in (
        ("as chosen", ""),
        ("pairs as they are", f"{UNMOVED} data.scanner=0"),
        ("not moved", UNMOVED),
        ("one scanner", "data.scanner=0"),
        ("not bent", "data.bend=0"),
        ("sides not moved apart", "data.apart=0"),
        ("L1 alone", "method.ssim=0"),
        ("a weak critic", "method.adversarial=0.1"),
        ("the paper's critic", "method.adversarial=1"),
        ("registration", "method.registration=10"),
        ("the paper's U-Net", "method.network=unet method.width=32 method.levels=7"),
        ("U-Net++", "method.network=unet++"),
        ("twice as wide", "method.width=32"),
        ("half as wide", "method.width=8"),
        ("weights not averaged", "train.ema=0"),
        ("the last weights", "train.keep=last"),
        ("not mirrored", "method.mirror=false"),
    )
]
# what is chosen for heads, on what leaves more open than it tells: no critic and no noise draw the mean radiograph
LUNG: Arms = [
    ("pix2pix-xray", "pix2pix-xray", ""),
    ("pix2pix-xray, without critic and noise", "pix2pix-xray",
     "method.adversarial=0 method.noise=0 method.l1=100 method.ssim=30 data.zoom=0.12"),
]  # fmt: skip
ENDS: Arms = [
    (f"pix2pix-head, {how}", "pix2pix-head", changes)
    for how, changes in (("as it stands", AS_IT_STANDS), ("as for few pairs", ALWAYS))
]
SIZE = 128
TRAINED = (18, 18, 18, 18, 17, 17, 17)  # slices of each patient: 123
HELD_OUT = (18, 18, 18)
DRAWN = 30  # slices of a phantom, of which some from the base of the skull to the vertex are taken
WINDOW = (-20.0, 100.0)  # HU
OFF = (1.0, 3.0)  # pixels by which CT lies beside MR
TURNED = 1.0  # degrees, at most
SLOPE, BLUR, NOISE = 0.35, (0.3, 0.9), (0.01, 0.05)  # of a held-out scanner: see `_other`
REST = 300.0  # HU of the head rest
LEVELS = (0.0, 255.0)
FIGURES = {"mae": "MAE", "psnr": "PSNR, dB", "ssim": "SSIM", "inside": "MAE in the body"}


def write_heads(folder: Path, seed: int = 0, times: int = 1) -> Path:
    """Pictures mr/P_SLICE.png and ct/P_SLICE.png and their manifest, whose path is returned; of so many times seven
    patients."""
    trained = TRAINED * times
    splits = {}
    for side in ("mr", "ct"):
        (folder / side).mkdir(parents=True)
    for k, count in enumerate((*HELD_OUT, *trained)):
        held_out, patient = k < len(HELD_OUT), f"p{k:03d}"
        splits[patient] = "test" if held_out else "val" if (k - len(HELD_OUT)) % len(TRAINED) == 0 else "train"
        pairs = patient_of(10_000 * seed + 7000 + k, "B" if held_out else "A", count, np.random.default_rng([seed, k]))
        for side, pictures in zip(("mr", "ct"), pairs, strict=True):
            for number, picture in enumerate(pictures):
                save_picture(picture, folder / side / f"{patient}_{number:02d}.png")
    manifest = scan(folder)
    for row in manifest.rows:
        row.patient = Path(row.path).name[:4]
        row.split = splits[row.patient]
    manifest.save(folder / "pairs.csv")
    return folder / "pairs.csv"


def patient_of(seed: int, scanner: str, count: int, rng: np.random.Generator) -> tuple[Uint8, Uint8]:
    """MR and CT (slices, H, W) as pictures."""
    drawn = head(seed, SIZE, DRAWN, contrasts=["T1", "CT"], scanner=scanner)
    first = (DRAWN - count) // 2 + 2
    mr, ct = (drawn.images[name].data[0, first : first + count] for name in ("T1", "CT"))
    mr = _other(mr, rng) if scanner == "B" else mr
    white = float(np.percentile(mr, 99.5) * rng.uniform(0.75, 1.1))
    return _grey(mr, 0.0, white), _grey(_moved(_on_rest(ct, rng), rng), *WINDOW)


def _other(mr: Float32, rng: np.random.Generator) -> Float32:
    """MR as one more scanner would have it: brighter by up to SLOPE towards one side, where its coil lies, blurred by
    pixels, with noise in both parts of the complex signal, a share of white."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in mr.shape[1:]), indexing="ij")
    way = rng.uniform(0, 2 * np.pi)
    near = 1 + np.float32(rng.uniform(0.3, 1) * SLOPE) * (np.float32(np.cos(way)) * x + np.float32(np.sin(way)) * y)
    wide = rng.uniform(*BLUR)
    sigma = rng.uniform(*NOISE) * float(np.percentile(mr, 99.5))
    return mri.rician(gaussian_filter(mr * near, (0, wide, wide)), sigma, rng)


def _on_rest(ct: Float32, rng: np.random.Generator) -> Float32:
    """CT with the head rest under it: an arc of two pixels, a little below the skin."""
    y, x = np.meshgrid(*map(np.arange, ct.shape[1:]), indexing="ij")
    lowest = np.nonzero((ct > -500).any((0, 2)))[0].max() + rng.uniform(2, 5)
    radius = rng.uniform(60, 90)
    far = np.hypot(y - (lowest - radius), x - SIZE / 2)
    arc = (np.abs(far - radius) < 1.2) & (y > lowest - 0.35 * radius)
    return np.where(arc & (ct < -500), np.float32(REST), ct)


def _moved(volume: Float32, rng: np.random.Generator) -> Float32:
    """All slices of a patient beside where they should be, each a little more or less."""
    angle, way = np.deg2rad(rng.uniform(-TURNED, TURNED)), rng.uniform(0, 2 * np.pi)
    off = rng.uniform(*OFF) * np.array([np.sin(way), np.cos(way)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(volume.shape[1:]) - 1) / 2
    moved = []
    for plane in volume:
        start = centre - turn @ centre + off + rng.normal(0, 0.3, 2)
        moved.append(affine_transform(plane, turn, start, order=1, mode="constant", cval=-1000.0))
    return np.stack(moved).astype(np.float32)


def _grey(values: Float32, low: float, high: float) -> Uint8:
    return np.rint(255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8)


def write_lungs(folder: Path, seed: int = 0) -> Path:
    """The manifest of the radiographs and their masks, whose path is returned."""
    with (LUNGS / "pairs.csv").open() as file:
        told = list(csv.DictReader(file))
    splits = assign({each["patient_id"] for each in told}, (0.7, 0.1, 0.2), seed)
    rows = []
    for each in told:
        name, patient = each["image_id"], each["patient_id"]
        image, mask = LUNGS / "images" / f"{name}.jpg", LUNGS / "masks" / f"{name}.png"
        rows.append(Row(name, patient, str(image), split=splits[patient], modality="CR", mask=str(mask)))
    folder.mkdir(parents=True)
    Manifest(rows, folder).save(folder / "lungs.csv")
    return folder / "lungs.csv"


def judged(folder: Path, table: Path, a: str, b: str) -> tuple[dict[str, float], list[Uint8]]:
    """Figures over the test split, and every sixth slice as source, result and truth beside each other."""
    model = fabrica.load(folder, device="cpu")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    shown = []
    for patient, source, truth in _pairs(table, a, b):
        made = model.apply(source).result
        wanted = truth.data
        result = np.clip(np.rint(made.data), *LEVELS)
        scores = compare(result, wanted, LEVELS)
        inside = body(wanted / 127.5 - 1, -0.9)
        for name in ("mae", "psnr", "ssim"):
            found[patient][name].append(scores[name])
        found[patient]["inside"].append(float(np.abs(result - wanted)[0][inside].mean()))
        if sum(map(len, (own["mae"] for own in found.values()))) % 6 == 1:
            shown.append(np.concatenate([_shown(each) for each in (source.data, result, wanted)], axis=1))
    means = {name: np.mean([v for own in found.values() for v in own[name]]) for name in FIGURES}
    means["spread"] = np.std([np.mean(own["mae"]) for own in found.values()])
    return {name: float(value) for name, value in means.items()}, shown


def _pairs(table: Path, a: str, b: str) -> Iterator[tuple[str, Image, Image]]:
    """Patient, source and truth of the test split, in what the network sees as data.size."""
    rows = [row for row in Manifest.load(table).rows if row.split == "test"]
    if a == "mask":
        for row in rows:
            yield row.patient, io.read_mask(Path(row.mask)), io.read(Path(row.path))
        return
    for row in rows:
        if row.domain == a:
            other = table.parent / row.path.replace(a, b, 1)
            yield row.patient, io.read(table.parent / row.path), io.read(other)


def _shown(values: Float32) -> Uint8:
    small: Uint8 = np.asarray(Pillow.fromarray(_grey(values[0], float(values.min()), float(max(values.max(), 1)))))
    step = max(1, min(small.shape) // SIZE)
    return small[::step, ::step][:SIZE, :SIZE]


def trained(
    kind: str, arm: tuple[str, str, str], minutes: float, seed: int, times: int = 1, pictures: Path | None = None
) -> dict[str, float]:
    """The figures of one training."""
    title, name, changes = arm
    sides = "data.a=mr data.b=ct" if kind == "heads" else ""
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        table = write_heads(data, seed, times) if kind == "heads" else write_lungs(data, seed)
        asked = f"{sides} data.source={table} train.minutes={minutes:g} seed={seed} {changes}".split()
        folder = train(load_recipe(name, asked), Path(temporary) / "run", warn=print, say=print)
        scores, shown = judged(folder, table, *(("mr", "ct") if kind == "heads" else ("mask", "image")))
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            save_picture(np.concatenate(shown), pictures / f"{title}.png".replace(", ", "-").replace(" ", "-"))
        return scores | {"steps": read_log(folder / "log.csv")[-1]["step"]}


def compared(
    kind: str, arms: Arms, minutes: float, seeds: int, times: int = 1, pictures: Path | None = None
) -> dict[str, float | str]:
    """Each arm's figures in words, and its error as a share of the first one's; seed by seed: arms alternate."""
    runs: dict[str, list[dict[str, float]]] = {title: [] for title, *_ in arms}
    for seed in range(seeds):
        for arm in arms:
            runs[arm[0]].append(trained(kind, arm, minutes, seed, times, None if seed else pictures))
            print(f"   seed {seed}, {arm[0]}: {runs[arm[0]][-1]}", flush=True)
    found: dict[str, float | str] = {}
    patients = f"{len(TRAINED) * times} patients" if kind == "heads" else "radiographs"
    means = {title: {key: float(np.mean([run[key] for run in own])) for key in own[0]} for title, own in runs.items()}
    first = next(iter(means.values()))
    for title, own in means.items():
        told = ", ".join(f"{name} {own[key]:.3f}" for key, name in FIGURES.items())
        share = f"{own['mae'] / first['mae']:.3f} of the first's MAE"
        found[f"{patients}, {title}"] = f"{told} [{own['spread']:.2f}]; {share}; {own['steps']:.0f} steps"
    return found


def main(
    arms: str = "default", minutes: float = MINUTES, seeds: int = SEEDS, pictures: Path | None = None
) -> dict[str, float | str]:
    """Figures by name."""
    found: dict[str, float | str] = {"minutes": minutes, "seeds": seeds, "machine": machine()}
    if arms == "tried":
        return found | compared("heads", TRIED, minutes, seeds, pictures=pictures)
    if arms == "ends":
        return found | {k: v for n in (1, 4, 16) for k, v in compared("heads", ENDS, minutes, seeds, n).items()}
    found |= compared("heads", DEFAULT, minutes, seeds, pictures=pictures)
    if not LUNGS.is_dir():
        return found | {"radiographs": f"skipped: nothing in {LUNGS}; set FABRICA_DATA to where it lies"}
    return found | compared("radiographs", LUNG, minutes, seeds, pictures=pictures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--arms", choices=("default", "tried", "ends"), default="default")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    scores = main(asked.arms, asked.minutes, asked.seeds, asked.pictures)
    for key, value in scores.items():
        print(f"   {key:<60}{value}")
    keep(KEPT, f"{os.environ.get('FEW_AS', 'now')}, {asked.arms}", scores)
