"""python -m benchmarks.pairs [MINUTES]: a first training on one's own pairs, low-dose and full-dose CT as NIfTI.

Three real CT of the trunk (TotalSegmentator's reference files, Apache-2.0) in ../shared/data or $FABRICA_DATA, cut into
slabs: two patients to train, the third to choose the weights and to test, each with pixels of about 1 mm. INPUT is
TARGET after `low-dose`. Nothing in the files says that they hold HU. Trained is what a newcomer types:

    fabrica train nafnet-lowdose data.a=input data.b=target data.degrade=[] --data pairs.csv

Scored is PSNR in the abdomen's window, of slices of the test slab, beside that of what came in.
"""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import zoom

import fabrica
from benchmarks.kept import keep
from fabrica import io
from fabrica.data.degrade import degraded
from fabrica.data.manifest import Manifest
from fabrica.data.scan import scan
from fabrica.image import Float32, Image
from fabrica.io.contact_sheet import save_picture
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FABRICA_DATA", HERE.parents[1] / "shared" / "data")) / "ct_mr_totalsegmentator"
KEPT = HERE / "real" / "pairs.json"
# file, how many times its pixels are made finer, every which slice is taken, photons a ray (fewer for the smaller body,
# so that all have about as much noise), splits of its slabs from the first slice
PATIENTS: tuple[tuple[str, float, int, float, tuple[str, ...]], ...] = (
    ("example_ct.nii.gz", 3.0, 2, 5e5, ("train", "train", "train")),
    ("ct_aorta_cropped_1p5mm.nii.gz", 1.5, 2, 5e4, ("train", "train")),
    ("example_ct_dicom", 1.0, 1, 3e6, ("val", "test")),
)
RECIPE, CHANGES = "nafnet-lowdose", ["data.a=input", "data.b=target", "data.degrade=[]"]
ABDOMEN = (-160.0, 240.0)


def write_pairs(folder: Path) -> Path:
    """INPUT and TARGET of all slabs, and their manifest, whose path is returned."""
    splits = {}
    for side in ("INPUT", "TARGET"):
        (folder / side).mkdir(parents=True)
    for seed, (name, finer, step, photons, parts) in enumerate(PATIENTS):
        image = _finer(io.read(DATA / name), finer, step)
        for k, (slab, split) in enumerate(zip(_slabs(image, len(parts)), parts, strict=True)):
            worse = degraded(slab, [{"name": "low-dose", "dose": 0.25, "photons": photons}], 100 * seed + k)
            for side, each in (("INPUT", worse), ("TARGET", slab)):
                values = np.rint(each.data[0]).astype(np.int16).T
                nibabel.save(nibabel.Nifti1Image(values, each.affine), folder / side / f"p{seed}{k}.nii.gz")
            splits[f"p{seed}{k}"] = split
    manifest = scan(folder)
    for row in manifest.rows:
        row.patient = Path(row.path).name.removesuffix(".nii.gz")
        row.split = splits[row.patient]
    manifest.save(folder / "pairs.csv")
    return folder / "pairs.csv"


def _finer(image: Image, finer: float, step: int) -> Image:
    """A volume with smaller pixels in the axial plane, in HU; of its slices every `step`-th."""
    values = zoom(image.data[0, ::step], (1, finer, finer), order=1, grid_mode=True, mode="nearest")
    affine = image.affine @ np.diag([1 / finer, 1 / finer, step, 1])
    return Image(values[None].astype(np.float32), affine, "HU", {"modality": "CT"})


def _slabs(image: Image, count: int) -> list[Image]:
    """Equal parts of a volume along its first array axis, which is z in all three."""
    edges = np.linspace(0, image.size[0], count + 1).astype(int)
    found = []
    for low, high in pairwise(edges):
        affine = image.affine.copy()
        affine[:, 3] += affine[:, 2] * low
        found.append(image.with_data(np.ascontiguousarray(image.data[:, low:high]), affine=affine))
    return found


def psnr(made: Float32, truth: Float32) -> float:
    """dB in the abdomen's window, the mean over axial slices (C, D, H, W)."""
    low, high = ABDOMEN
    error = (np.clip(made, low, high) - np.clip(truth, low, high)).astype(np.float64)
    return float(np.mean(10 * np.log10((high - low) ** 2 / (error**2).mean((0, 2, 3)))))


def main(minutes: float = 5.0, pictures: Path | None = None) -> dict[str, float | str]:
    """Figures by name; where the data are not there, why there are none."""
    if not DATA.is_dir():
        return {"skipped": f"no CT in {DATA}; set FABRICA_DATA to where ct_mr_totalsegmentator lies"}
    with tempfile.TemporaryDirectory() as temporary:
        table = write_pairs(Path(temporary) / "pairs")
        changes = [*CHANGES, f"data.source={table}", f"train.minutes={minutes:g}"]
        folder = train(load_recipe(RECIPE, changes), Path(temporary) / "run", warn=print)
        model, steps = fabrica.load(folder), read_log(folder / "log.csv")[-1]["step"]
        found: dict[str, float | str] = {"minutes": minutes, "trained on": "5 slabs of 2 patients", "steps": steps}
        (row,) = (row for row in Manifest.load(table).rows if row.split == "test" and row.domain == "input")
        given = io.read(table.parent / row.path)
        truth = io.read(table.parent / row.path.replace("INPUT", "TARGET"))
        made = model.apply(given).result
        found |= {"PSNR of the input, dB": psnr(given.data, truth.data)}
        found |= {"PSNR of the result, dB": psnr(made.data, truth.data)}
        bone = truth.data > 700
        found |= {
            "largest value in the result, HU": float(made.data.max()),
            "in the truth, HU": float(truth.data.max()),
        }
        found |= {"bias in bone above 700 HU": float((made.data - truth.data)[bone].mean()) if bone.any() else 0.0}
        found |= {f"codec {side}": f"{c.kind} [{c.low:g}, {c.high:g}] {c.unit}"
                  for side, c in (("a", model.codec), ("b", model.codec_b))}  # fmt: skip
        if pictures:
            _picture([image.data for image in (given, made, truth)], pictures)
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in found.items()}


def _picture(volumes: list[Float32], path: Path) -> None:
    """The middle slice of each volume side by side, in the abdomen's window."""
    low, high = ABDOMEN
    tiles = [np.clip((v[0, v.shape[1] // 2] - low) / (high - low), 0, 1) for v in volumes]
    save_picture(np.rint(255 * np.concatenate(tiles, axis=1)).astype(np.uint8), path)


if __name__ == "__main__":
    scores = main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    for key, value in scores.items():
        print(f"   {key:<46}{value}")
    if "skipped" not in scores:
        keep(KEPT, os.environ.get("PAIRS_AS", "now"), scores)
