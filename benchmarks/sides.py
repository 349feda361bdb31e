"""Two checkouts of Fabrica, driven by the command line alone: nothing here knows where a module lies.

Each has a folder with a copy of its source, so that neither edits nor byte code disturb, and a cache of its own. Paths
in commands are relative to that folder, so alike.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import resource
import runpy
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

HERE = Path(__file__).parents[1]
DICOM = "phantoms/dicom/chest.dcm"  # lies in the folder of each
PRELOADED = ["torch", "monai.networks.nets", "lightning_fabric", "omegaconf", "rich.progress", "typer"]


@dataclass(frozen=True)
class Side:
    """A checkout, and the folder in which its commands run."""

    checkout: Path
    home: Path
    state: str  # its commit, "-dirty" where files differ from it

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.home / "src"), "FABRICA_CACHE": str(self.home / "cache")}

    def forked(self, words: list[str]) -> tuple[str, dict[str, float]]:
        """(error or "", seconds) of `python -m fabrica WORDS`, in a fork of what has imported PRELOADED."""
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_fabrica, args=(self.environment, self.home, words, theirs))
        process.start()
        theirs.close()
        process.join()
        clocks: dict[str, float] = ours.recv() if ours.poll() else {}
        return (_ended(process.exitcode, self.said.read_text()) if process.exitcode else ""), clocks

    def started(self, words: list[str]) -> tuple[str, dict[str, float]]:
        """The same in a process of its own."""
        command = [sys.executable, "-m", "fabrica", *words]
        environment = {**os.environ, **self.environment}
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        with self.said.open("w") as said:
            done = subprocess.run(command, env=environment, cwd=self.home, stdout=said, stderr=said, check=False)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        error = _ended(done.returncode, self.said.read_text()) if done.returncode else ""
        return error, {"seconds": seconds, "processor_seconds": used}

    @property
    def said(self) -> Path:
        return self.home / "said.txt"


def _fabrica(environment: dict[str, str], home: Path, words: list[str], clocks: Connection) -> None:
    """What a fork does. Raises SystemExit as the command line does."""
    os.environ.update(environment)
    os.chdir(home)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.path.insert(0, environment["PYTHONPATH"])
    found = importlib.util.find_spec("fabrica")
    if found is None or not Path(str(found.origin)).is_relative_to(environment["PYTHONPATH"]):
        sys.exit(f"fabrica is {found and found.origin}; expected that of {environment['PYTHONPATH']}")
    sys.argv = ["fabrica", *words]
    began, before = time.perf_counter(), time.process_time()
    try:
        runpy.run_module("fabrica", run_name="__main__", alter_sys=True)
    finally:
        clocks.send({"seconds": time.perf_counter() - began, "processor_seconds": time.process_time() - before})


def _ended(code: int | None, said: str) -> str:
    return f"ends with {code}: {(said.strip().splitlines() or ['nothing said'])[-1][-300:]}"


def sides(before: Path, folder: Path) -> tuple[Side, Side]:
    """Both, each with the same DICOM file. They inherit one core and no GPU."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    before = before.resolve()
    found = Side(before, folder / "before", _commit(before)), Side(HERE, folder / "now", _commit(HERE))
    for side in found:
        if not (side.checkout / "src" / "fabrica").is_dir():
            sys.exit(f"{side.checkout} is no checkout of Fabrica: it has no src/fabrica")
        (side.home / DICOM).parent.mkdir(parents=True)
        shutil.copytree(side.checkout / "src", side.home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    words = ["phantom", "chest", "-n", "1", "--size", "64", "-o", "drawn"]
    if error := found[0].forked(words)[0]:
        sys.exit(f"{before}: fabrica {' '.join(words)} {error}")
    radiograph(found[0].home / "drawn" / "images" / "chest-0.png", found[0].home / DICOM)
    shutil.copy(found[0].home / DICOM, found[1].home / DICOM)
    return found


def _commit(checkout: Path) -> str:
    git = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "no commit"


def radiograph(png: Path, out: Path) -> None:
    """A picture of a chest phantom as the DICOM file that a digital X-ray system would have written."""
    with Picture.open(png) as picture:
        pixels = np.asarray(picture).astype("<u2")
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = DigitalXRayImageStorageForPresentation, "DX"
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = (f"2.25.{k}" for k in (101, 102, 103))
    dataset.PatientID, dataset.BodyPartExamined = "PHANTOM", "CHEST"
    dataset.ImageType, dataset.PresentationIntentType = ["ORIGINAL", "PRIMARY"], "FOR PRESENTATION"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = dataset.ImagerPixelSpacing = [360 / len(pixels)] * 2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(out, enforce_file_format=True)
