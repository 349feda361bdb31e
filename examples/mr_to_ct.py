"""MR to CT: learn from two folders, one of MR and one of CT, and turn an MR into a CT in HU.

    python examples/mr_to_ct.py MR CT -o mr-to-ct

MR and CT hold the same patients, registered, as DICOM series or files; patients are matched by DICOM's PatientID, else
by the names of files and folders. Without folders, heads of phantoms are drawn to try it on. 1,300 steps take 14
minutes on one processor core. Then there are, in mr-to-ct:

    model/                weights, recipe, model card, samples.png (MR, result, CT)
    result/               the first test patient's MR as CT: a DICOM series in HU
    report/report.html    the error in HU over all test patients, beside what needs no model
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fabrica
from fabrica.phantoms.head.head import head
from fabrica.recipe.load import load_recipe

SIZE = 128  # pixels a side that the model sees
PHANTOMS, SLICES = 40, 8  # heads, and slices of each


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a model that turns MR into CT.")
    parser.add_argument("mr", type=Path, nargs="?", help="MR images; none: phantoms")
    parser.add_argument("ct", type=Path, nargs="?", help="CT images of the same patients")
    parser.add_argument("--steps", type=int, default=1300, help="of training")
    parser.add_argument("-o", "--out", type=Path, default=Path("mr-to-ct"))
    options = parser.parse_args(arguments)
    if options.mr and not options.ct:
        parser.error("found a folder of MR alone; give a folder of CT, too")
    out: Path = options.out
    mr, ct = (options.mr, options.ct) if options.mr else draw_heads(out / "phantoms")

    data = out / "data"  # a folder a domain is a layout that `scan` knows
    data.mkdir(parents=True)
    for name, folder in (("MR", mr), ("CT", ct)):
        (data / name).symlink_to(folder.resolve(), target_is_directory=True)
    manifest = fabrica.scan(data)
    manifest.save(out / "manifest.csv")
    print(*manifest.notes, sep="\n")

    sides = [f"data.source={out / 'manifest.csv'}", "data.a=MR", "data.b=CT", "data.slices=all", f"data.size={SIZE}"]
    recipe = load_recipe("strong-head", [*sides, f"train.steps={options.steps}", "train.minutes=0"])
    fabrica.train(recipe, out / "model", say=print)  # few patients are trained otherwise than many, and it says so

    model = fabrica.load(out / "model")
    row = manifest.select("test", domain="MR").rows[0]
    image = fabrica.read(manifest.file(row), row.frame)
    print(*model.out_of_distribution(image), sep="\n")  # why it should not be translated, if anything speaks against it
    made = model.apply(image).result
    fabrica.write(made, out / "result", as_="dicom", translated=True, model=model.name, model_hash=model.hash)

    report = fabrica.evaluate(model, out=out / "report")
    print(f"see {out / 'model' / 'samples.png'} and {report.page}")


def draw_heads(folder: Path) -> tuple[Path, Path]:
    """Phantoms as DICOM series, MR/PATIENT and CT/PATIENT."""
    for seed in range(PHANTOMS):
        drawn = head(seed, SIZE, SLICES, contrasts=["T1", "CT"])
        for contrast, modality in (("T1", "MR"), ("CT", "CT")):
            fabrica.write(drawn.images[contrast], folder / modality / f"head-{seed:03d}", as_="dicom")
    return folder / "MR", folder / "CT"


if __name__ == "__main__":
    main()
