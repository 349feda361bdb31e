"""python -m models [--only NAME ...] [--work FOLDER]: train the models that ship, judge them, and write them into the
package.

Each is made by the public commands from its recipe here: `fabrica scan` where it needs real images, `fabrica train` for
a fixed number of steps from a fixed seed, `fabrica evaluate` on images that it has not seen, `fabrica export` to ONNX
with weights in float16. What stands in the work folder already is kept, and a training that was stopped goes on. Real
images lie in $FABRICA_DATA, else in shared/data beside the repository.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fabrica.errors import FabricaError, UsageError
from fabrica.recipe.folder import CARD, RECIPE
from fabrica.recipe.load import load_recipe
from fabrica.runtime import RECORD, ready
from fabrica.runtime.folder import digest, load, save

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FABRICA_DATA", HERE.parent.parent / "shared" / "data")).resolve()
LARGEST = 10.0  # MB of one model
LARGEST_OF_ALL = 40.0
AUDITED = 500  # images at least, in which copies are looked for


@dataclass(frozen=True)
class Made:
    """needs: recipes of models that it works with. scan: the manifest's name, and words of `fabrica scan` after the
    folder, which lies in DATA. judged: words of `fabrica evaluate`."""

    needs: Sequence[str] = ()
    scan: Sequence[str] = ()
    judged: Sequence[str] = ()


CHILDREN = ["children.csv", "cxr_kermany_960/images", "--labels", "cxr_kermany_960/labels.csv"]
MODELS = {
    "chest-text": Made(needs=["chest-text-autoencoder"], judged=["-n", "500", "--guidances", "2", "--curve", ""]),
    "head-t1-ct": Made(),
    "lowdose-ct": Made(judged=["-n", "64"]),
    "radiograph-denoise": Made(scan=CHILDREN, judged=["-n", "16"]),
    "hippocampus": Made(scan=["hippocampus.csv", "mri_hippocampus_msd"]),
    "children-radiographs": Made(
        needs=["children-radiographs-autoencoder"], scan=CHILDREN, judged=["-n", "500", "--curve", ""]
    ),
}


def fabrica(work: Path, *words: object) -> str:
    """What the command says, run in the work folder, so that no path of this machine gets into a recipe."""
    command = [sys.executable, "-m", "fabrica", *map(str, words)]
    return subprocess.run(command, cwd=work, check=True, stdout=subprocess.PIPE, text=True).stdout


def scanned(work: Path, manifest: str, folder: str, *words: str) -> None:
    if (DATA / folder).is_dir():
        places = [str(DATA / word) if (DATA / word).exists() else word for word in words]
        fabrica(work, "scan", DATA / folder, *places, "-o", manifest)
        return
    sys.exit(f"{DATA / folder} is not there; say with FABRICA_DATA where the real images lie, or leave this model out")


def trained(work: Path, name: str) -> None:
    """Trained to its last step, from where it stands."""
    ended = work / f"{name}.ended"
    if not ended.exists():
        begun = (work / name / "recipe.yaml").exists()
        fabrica(work, "train", *(["--resume"] if begun else [HERE / f"{name}.yaml"]), "-o", name)
        ended.touch()


def made(work: Path, name: str) -> Path:
    """A model trained, judged and exported; its exported folder."""
    how = MODELS[name]
    if how.scan and not (work / how.scan[0]).exists():
        scanned(work, *how.scan)
    for each in (*how.needs, name):
        trained(work, each)
    scores, exported = work / f"{name}.scores.txt", work / "exported" / name
    if not scores.exists():
        said = fabrica(work, "evaluate", name, *how.judged, "-o", f"{name}-report")
        scores.write_text(said[: said.rindex("report: ")], encoding="utf-8")
    audited(name, scores.read_text("utf-8"))
    if not exported.exists():
        new = exported.with_name(f"{name}.new")
        shutil.rmtree(new, ignore_errors=True)  # of a run that was stopped
        fabrica(work, "export", name, "--to", "onnx", "--precision", "fp16", "-o", new.relative_to(work))
        told(new, (HERE / f"{name}.md").read_text("utf-8"), scores.read_text("utf-8"))
        new.replace(exported)
    return exported


def audited(name: str, scores: str) -> None:
    """UsageError for a model that draws images and copies more than chance explains, or was looked at for that in too
    few. scores: as `fabrica evaluate` prints them."""
    words = " ".join(scores.split())  # which are broken into lines
    found = re.search(r"copies of training images: (\d+) of (\d+)", words)
    if load_recipe(HERE / f"{name}.yaml").task != "synthesise":
        return
    if not found or int(found[2]) < AUDITED:
        raise UsageError(f"{name} does not ship: copies are to be looked for in {AUDITED} of its images")
    if "more than chance explains" in words:
        raise UsageError(f"{name} does not ship: {found[1]} of {found[2]} images are copies, more than by chance")


def told(exported: Path, limits: str, scores: str) -> None:
    """What only this model's card says: what it was judged by, and what it is not for."""
    record, card = load(exported), exported / CARD
    table = "\n".join(f"    {line}".rstrip() for line in scores.strip().splitlines())
    words = card.read_text("utf-8").replace("FOLDER", load_recipe(exported / RECIPE).name)
    own = f"{words.rstrip()}\n\n## Judged on images it has not seen\n\n{table}\n\n{limits}"
    card.write_text(own, encoding="utf-8")
    save(exported, replace(record, sha256={**record.sha256, CARD: digest(card.read_bytes())}))


def shipped(exported: Path) -> None:
    """Into the package, with the hash of what says how all else hashes."""
    size, name = ready.megabytes(exported), exported.name
    if size > LARGEST:
        raise UsageError(
            f"{name} takes {size:.1f} MB, and a model that ships takes {LARGEST:g} at most; make it smaller"
        )
    shutil.rmtree(ready.HOME / name, ignore_errors=True)
    shutil.copytree(exported, ready.HOME / name)
    sums = {**ready.sums(), name: digest((exported / RECORD).read_bytes())}
    lines = [f"{found}  {each}/{RECORD}\n" for each, found in sorted(sums.items())]
    (ready.HOME / ready.SUMS).write_text("".join(lines), encoding="utf-8")
    print(f"{ready.HOME / name}: {size:.1f} MB", flush=True)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m models", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--work", type=Path, default=Path("runs/models"), help="where trainings lie")
    asked = parser.parse_args(words)
    work: Path = asked.work.resolve()
    refused: list[str] = []
    (work / "exported").mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        try:
            shipped(made(work, name))
        except (FabricaError, subprocess.CalledProcessError) as error:  # the others are made all the same
            refused.append(f"{name}: {error}")
    total = sum(ready.megabytes(ready.HOME / name) for name in ready.sums())
    if total > LARGEST_OF_ALL:
        raise UsageError(f"the models take {total:.1f} MB together, and may take {LARGEST_OF_ALL:g}; leave one out")
    print(f"{len(ready.sums())} models ship, {total:.1f} MB")
    if refused:
        sys.exit("\n".join(refused))


if __name__ == "__main__":
    main()
