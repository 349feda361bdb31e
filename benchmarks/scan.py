"""python -m benchmarks.scan [BEFORE]: files/s of `fabrica scan`, of an older checkout BEFORE and of dcm2niix, on the
same DICOM files; and the scan's peak memory at 1,000 and 100,000 files.

The files are phantoms under headers of real scanners where `../shared/data/dicom_scanners` lies beside the checkout
(else under plain ones), a fifth of them with private elements of hundreds of kilobytes, as Siemens writes them. All
three read them from the page cache, in turn, three times each; medians count. dcm2niix converts what Fabrica indexes
(and decodes, to find damaged files and copies): it is the yardstick of the field, not a rival.

dcm2niix is found on the PATH (`pip install dcm2niix`); FABRICA_BENCH_FILES says how many files (5,200).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from fabrica.phantoms import head

FILES = int(os.environ.get("FABRICA_BENCH_FILES", "5200"))
SLICES, SIZE, TIMES = 100, 256, 3
PRIVATE = 300_000  # bytes of a large private element
SCANNERS = Path(os.environ.get("FABRICA_DATA", Path(__file__).parents[2] / "shared" / "data")) / "dicom_scanners"
REAL = {  # a series of single slices each, the first with large headers of its own
    "siemens_pd_t2": True,
    "siemens_decubitus_t1": True,
    "canon_classic_dti": False,
    "ge_fmri": False,
    "philips_classic_dti": False,
    "siemens_ct_gantry_tilt": False,
}
UID, DEPTH, NUMBER = "2.25.99999999999999", "+00000.00", "99999"  # of one length each: replaced in the written bytes


def headers() -> Iterator[tuple[str, Dataset, bool]]:
    """(name, header without pixels, whether private elements are large): real ones, then a plain one."""
    for name, large in REAL.items():
        if (SCANNERS / name / "dicom").is_dir():
            path = min(p for p in (SCANNERS / name / "dicom").iterdir() if p.is_file())
            yield name, pydicom.dcmread(path, stop_before_pixels=True), large
    plain = Dataset()
    plain.SOPClassUID, plain.Modality, plain.Manufacturer = MRImageStorage, "MR", "Fabrica"
    plain.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    yield "plain", plain, False


def template(header: Dataset, series: str, size: int, private: int) -> bytes:
    """A whole file up to its pixels, as bytes with the place holders."""
    dataset = Dataset()
    dataset.update(header)
    dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = "2.25.77" + series
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "2.25.88" + series, UID
    dataset.PatientID = dataset.PatientName = f"P{series}"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, NUMBER
    dataset.ImagePositionPatient = ["-100", "-100", DEPTH]
    dataset.ImageOrientationPatient, dataset.PixelSpacing, dataset.SliceThickness = [1, 0, 0, 0, 1, 0], [1, 1], 2
    for keyword in ("SpacingBetweenSlices", "SliceLocation", "GantryDetectorTilt"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    if private:
        rng = np.random.default_rng(0)
        block = dataset.private_block(0x0029, "FABRICA BENCHMARK", create=True)
        block.add_new(0x10, "OB", rng.integers(0, 256, private, np.uint8).tobytes())
    dataset.PixelData = b""
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, UID
    out = BytesIO()
    with warnings.catch_warnings():  # of irregular values in real headers
        warnings.simplefilter("ignore")
        dataset.save_as(out, enforce_file_format=True)
    data = out.getvalue()
    assert data.endswith(b"OW\0\0\0\0\0\0") and data.count(UID.encode()) == 2 and data.count(DEPTH.encode()) == 1
    return data[:-4]


def series(folder: Path, data: bytes, number: int, pixels: list[bytes]) -> None:
    """A file a slice, in hashed order."""
    folder.mkdir(parents=True)
    for k, slice_ in enumerate(pixels):
        uid = f"{UID[:5]}{number:07d}{k:07d}".ljust(len(UID), "1")
        file = data.replace(UID.encode(), uid.encode()).replace(DEPTH.encode(), f"{2 * k:+09.2f}".encode())
        file = file.replace(NUMBER.encode(), f"{k + 1:05d}".encode())
        name = f"{(7919 * k) % len(pixels):05d}.dcm"
        (folder / name).write_bytes(file + len(slice_).to_bytes(4, "little") + slice_)


def write(folder: Path, files: int = FILES, size: int = SIZE) -> dict[str, int]:
    """Series of SLICES files; returns the number of files by header and how many have large private elements."""
    known = list(headers())
    counts: dict[str, int] = {}
    drawn = head(0, size, contrasts=["T1"], slices=10).images["T1"].data[0]
    drawn = drawn * (2500 / float(drawn.max()))
    for number in range(files // SLICES):
        large = number % 5 == 0
        choice = [item for item in known if item[2]] if large else [item for item in known if not item[2]]
        name, header, _ = (choice or known)[(number // 5 if large else number) % len(choice or known)]
        shifts = [drawn[k % len(drawn)] + 10 * k + number for k in range(SLICES)]  # no two slices are alike
        scaled = np.clip(np.roll(np.stack(shifts), number, axis=2), 0, 4095).astype("<u2")
        data = template(header, f"{number:06d}", size, PRIVATE if large else 0)
        series(folder / f"p{number:04d}", data, number, [part.tobytes() for part in scaled])
        for key in (name, *(["large private elements"] if large else [])):
            counts[key] = counts.get(key, 0) + SLICES
    return counts


def small(folder: Path, files: int) -> None:
    """Series of 100 slices of 8 x 8 pixels."""
    rng = np.random.default_rng(0)
    plain = list(headers())[-1][1]
    for number in range(files // SLICES):
        data = template(plain, f"{number:06d}", 8, 0)
        pixels = rng.integers(0, 4096, (SLICES, 64)).astype("<u2")
        series(folder / f"p{number:05d}", data, number, [part.tobytes() for part in pixels])


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds by the clock, and of processors: user and system, of the command and its children."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ends with {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fabrica(checkout: Path | None, *arguments: str) -> tuple[list[str], dict[str, str]]:
    source = str((checkout or Path(__file__).parents[1]) / "src")
    return [sys.executable, "-m", "fabrica", *arguments], {**os.environ, "PYTHONPATH": source}


def peak(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(MiB, seconds): the most memory that a command and its children had at once, their shared pages counted once."""
    began, most = time.perf_counter(), 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, sum(_resident(pid) for pid in _family(process.pid)))
            time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ends with {process.returncode}")
    return most / 1024, time.perf_counter() - began


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _resident(pid: int) -> float:
    """Proportional set size in kB; 0 of a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith("Pss:")), 0.0)


def speed(before: Path | None, files: int = FILES) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        counts = write(home / "files", files)
        total = sum(1 for path in (home / "files").rglob("*.dcm") if path.read_bytes())  # and warms the page cache
        scan = ("scan", str(home / "files"), "-o", str(home / "manifest.csv"))
        ways = {"ours": fabrica(None, *scan)}
        if before:
            ways["before"] = fabrica(before, *scan)
        if converter := shutil.which("dcm2niix"):
            out = home / "nifti"
            ways["dcm2niix"] = [converter, "-z", "n", "-b", "y", "-o", str(out), str(home / "files")], dict(os.environ)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        processor: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(TIMES):
            for way, (command, environment) in ways.items():
                (home / "nifti").mkdir()
                clock, used = timed(command, environment)
                seconds[way].append(round(clock, 2))
                processor[way].append(round(used, 2))
                shutil.rmtree(home / "nifti")
        with (home / "manifest.csv").open() as file:
            rows = sum(1 for _ in file) - 1
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    return {
        "files": total,
        "headers": counts,
        "rows": rows,
        "seconds": seconds,
        "processor_seconds": processor,
        "files_per_s": {way: round(total / found, 1) for way, found in medians.items()},
        "times_as_fast_as": {way: round(found / medians["ours"], 2) for way, found in medians.items() if way != "ours"},
        "cores": len(os.sched_getaffinity(0)),
    }


def memory(few: int = 1000, many: int = 100_000) -> dict[str, Any]:
    found = {}
    for files in (few, many):
        with tempfile.TemporaryDirectory() as name:
            small(Path(name) / "files", files)
            mib, seconds = peak(*fabrica(None, "scan", f"{name}/files", "-o", f"{name}/manifest.csv"))
        found[files] = {"peak_mib": round(mib, 1), "seconds": round(seconds, 1)}
    return {**found, "ratio": round(found[many]["peak_mib"] / found[few]["peak_mib"], 3)}


if __name__ == "__main__":
    older = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    results = Path(__file__).parent / "real" / "scan.json"
    kept = {"speed": speed(older), "memory": memory()}
    print(json.dumps(kept, indent=2))
    results.write_text(json.dumps(kept, indent=2) + "\n")
