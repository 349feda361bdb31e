"""What values between layers range over, seen on training images: by three measures, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.export.images import Images
from fabrica.export.quiet import silent
from fabrica.image import Float32
from fabrica.runtime.onnx import imported

RANGES = ("min-max", "percentile", "entropy")
CUT = 1e-4  # the share of values that "percentile" leaves out, half at each end
BINS, LEVELS = 2048, 128  # of a histogram, and what "entropy" makes of them
ENOUGH = 100  # values a bin, for "entropy": of fewer, chance makes what is wide look unlike itself
LOOKED = 2**16  # values of a tensor and image that are counted, evenly spread; smallest and largest are of all

Float64 = npt.NDArray[np.float64]


@dataclass
class Histogram:
    """How often values other than 0 lie where: `counts` of BINS bins from -reach to reach. Where values lie beyond,
    reach doubles and bins are joined in pairs, so that no value has to be seen again."""

    low: float = float("inf")
    high: float = float("-inf")
    reach: float = 2.0**-20
    counts: Float64 = field(default_factory=lambda: np.zeros(BINS))

    def add(self, values: Float32) -> None:
        if not values.size:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        while max(-self.low, self.high) > self.reach and np.isfinite(self.reach):
            joined = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([np.zeros(BINS // 4), joined, np.zeros(BINS // 4)])
            self.reach *= 2
        some = values.ravel()[:: max(values.size // LOOKED, 1) | 1]  # odd, or it would keep to some columns
        some = some[some != 0]  # 8 bits have 0 itself; what a ReLU leaves of it would outweigh all else
        places = ((some / self.reach + 1) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def range(self, how: str) -> tuple[float, float]:
        """What 8 bits are to range over, by one of RANGES."""
        if not self.counts.any():
            return self.low, self.high
        edges = np.linspace(-self.reach, self.reach, BINS + 1)
        if how == "percentile":
            below = np.cumsum(self.counts) / self.counts.sum()
            first, last = np.searchsorted(below, [CUT / 2, 1 - CUT / 2])
            return max(self.low, float(edges[first])), min(self.high, float(edges[min(last + 1, BINS)]))
        if how == "entropy":
            counts = self.counts
            while len(counts) > 2 * LEVELS and counts.sum() < ENOUGH * len(counts):
                counts = counts.reshape(-1, 2).sum(1)
            most = nearest(counts) * 2 * self.reach / len(counts)
            return max(self.low, -most), min(self.high, most)
        return self.low, self.high


def nearest(counts: Float64) -> int:
    """Of a histogram around 0, how many bins on each side tell most of it when they are given LEVELS levels and what
    lies beyond is cut off to them: the smallest divergence of Kullback and Leibler (Migacz 2017, 8-bit inference with
    TensorRT)."""
    middle, best, found = len(counts) // 2, float("inf"), len(counts) // 2
    for half in range(LEVELS // 2, middle + 1, max(len(counts) // (2 * LEVELS), 1)):
        window = counts[middle - half : middle + half]
        p = window.copy()
        p[0] += counts[: middle - half].sum()
        p[-1] += counts[middle + half :].sum()
        firsts = np.arange(LEVELS) * 2 * half // LEVELS
        inside = np.diff([*firsts, 2 * half])
        filled = np.add.reduceat((p > 0).astype(np.float64), firsts)
        level = np.add.reduceat(window, firsts) / np.maximum(filled, 1)
        q = np.where(p > 0, np.repeat(level, inside), 0)
        total_p, total_q = p.sum(), q.sum()
        if not total_q:
            continue
        known = p > 0
        shares = np.maximum(q[known] / total_q, 1e-12)
        divergence = float(np.sum(p[known] / total_p * np.log(p[known] / total_p / shares)))
        if divergence < best:
            best, found = divergence, half
    return found


def seen(graph: bytes, names: Sequence[str], images: Images, operators: Sequence[str]) -> dict[str, Any]:
    """By each of RANGES, what each tensor of these ONNX operators ranges over on these images, as ONNX Runtime's
    quantiser takes it. names: of the graph's inputs."""
    imported()
    import onnx
    import onnxruntime.quantization as quantization
    from onnxruntime.quantization.calibrate import TensorsData

    with TemporaryDirectory() as temporary, silent():
        path = Path(temporary) / "graph.onnx"
        path.write_bytes(onnx.shape_inference.infer_shapes(onnx.load_from_string(graph)).SerializeToString())
        calibrator = quantization.create_calibrator(
            path, list(operators), str(Path(temporary) / "with-outputs.onnx"), quantization.CalibrationMethod.Percentile
        )  # of which only the graph with all these tensors as outputs is used
        session, tensors = calibrator.infer_session, sorted(calibrator.tensors_to_calibrate)
        found = {tensor: Histogram() for tensor in tensors}
        inputs = {each.name for each in session.get_inputs()}
        asked = [each for each in tensors if each not in inputs]
        for values in images.inputs:  # one by one: all tensors of all images at once would be gigabytes
            given = dict(zip(names, values, strict=True))
            answers = dict(zip(asked, session.run(asked, given), strict=True))
            for tensor in tensors:
                found[tensor].add(np.asarray(answers.get(tensor, given.get(tensor))))
    return {
        how: TensorsData(
            quantization.CalibrationMethod.MinMax,
            {tensor: tuple(np.array(own.range(how), dtype=np.float32)) for tensor, own in found.items()},
        )
        for how in RANGES
    }
