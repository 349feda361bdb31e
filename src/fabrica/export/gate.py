"""The gate that a lower precision has to pass: what it loses on held-out images, beside the float32 graph."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from fabrica.codec import Codec
from fabrica.data.body import body, threshold
from fabrica.errors import FabricaError
from fabrica.export.images import Images, Inputs
from fabrica.image import Float32
from fabrica.metrics.segmentation import dice
from fabrica.runtime.folder import Tried
from fabrica.runtime.session import INT8, Session

TIMED = 5  # calls of each, of which the median is taken
REST = 0.02  # seconds before each: threads of the one before look for work for some ms, on cores that the next needs
Answers = Sequence[Float32]


@dataclass(frozen=True)
class Limits:
    """What may be lost against what is true, in dB, in HU and of Dice; and, where nothing is known to be true, in dB of
    the range, how near the float32 graph results have to be."""

    psnr: float = 0.1
    mae: float = 1.0
    dice: float = 0.005
    near: float = 40.0


ALLOWED = Limits()


@dataclass(frozen=True)
class Gate:
    """Held-out images of one graph, what its float32 form answers to them, and what may be lost.

    plain     the float32 graph, and exact, what it answers. half: what a network value of 1 is in the graph's unit;
              None: latents.
    """

    images: Images
    plain: Session
    exact: Answers
    unit: str
    half: float | None
    limits: Limits = ALLOWED

    def judged(
        self, session: Session, megabytes: float, precision: str, ranges: str = "", floats: Sequence[str] = ()
    ) -> Tried:
        """What this precision is like."""
        made = answers(session, self.images)
        scores = [self._scores(each) for each in (self.exact, made)]
        lost = {name: _lost(name, *(each[name] for each in scores)) for name in scores[0]}
        off = float(np.mean([np.abs(one - other).mean() for one, other in zip(made, self.exact, strict=True)]))
        seconds, others = _timed(session, self.plain, self.images.inputs[0])
        return Tried(
            precision=precision,
            ranges=ranges,
            floats=list(floats),
            megabytes=float(f"{megabytes:.3g}"),
            ms=float(f"{1000 * median(seconds):.3g}"),
            faster=float(f"{median(other / own for own, other in zip(seconds, others, strict=True)):.3g}"),
            off=float(f"{off * (self.half or 1.0):.3g}"),
            passed=not self._beyond(lost, made),
            **{name: float(f"{value:.3g}") for name, value in lost.items()},
        )

    def noise(self, session: Session, few: int) -> float:
        """The mean squared difference from the float32 graph, of a few images, in network values."""
        made = [session(*inputs) for inputs in self.images.inputs[:few]]
        return float(np.mean([np.square(one - other).mean() for one, other in zip(made, self.exact, strict=False)]))

    def _scores(self, made: Answers) -> Mapping[str, float]:
        """The figures of the task, higher is better but for "mae"; {} where nothing is known to be true."""
        codec, truths = self.images.codec, self.images.truths
        if codec.kind == "label":
            truths = truths or [_hard(each, codec) for each in self.exact]
            return {"dice": _dice(made, truths, codec)}
        if not truths:
            return {}
        cut = [_middle(one, true.shape) for one, true in zip(made, truths, strict=True)]
        found = {"psnr": float(np.mean([_psnr(one, true) for one, true in zip(cut, truths, strict=True)]))}
        if self.unit == "HU" and self.half:
            each = [_error(one, true, codec) for one, true in zip(cut, truths, strict=True)]
            found["mae"] = self.half * float(np.mean(each))
        return found

    def _beyond(self, lost: Mapping[str, float], made: Answers) -> bool:
        if lost:  # written so that what is not a number does not pass
            return not all(value <= getattr(self.limits, name) for name, value in lost.items())
        span = 2.0 if self.half is not None else float(np.ptp(np.concatenate([each.ravel() for each in self.exact])))
        squares = [np.square(one - other).mean() for one, other in zip(made, self.exact, strict=True)]
        return not np.sqrt(np.mean(squares)) <= span * 10 ** (-self.limits.near / 20)


class NotPassed(FabricaError):
    """A graph that loses more than the gate allows. tried: what was tried of it."""

    def __init__(self, name: str, gate: Gate, tried: Sequence[Tried]) -> None:
        self.tried, last = tried, tried[-1]
        lost = [
            f"{getattr(last, key):.3g} {words}, where {getattr(gate.limits, key):g} is allowed"
            for key, words in (("psnr", "dB of PSNR"), ("mae", gate.unit), ("dice", "of Dice"))
            if (value := getattr(last, key)) is not None and not value <= getattr(gate.limits, key)
        ] or [f"{last.off:.3g} {gate.unit} on average from the float32 graph, more than is allowed"]
        advice = (
            "train it with quantise=int8, or take another --precision"
            if last.precision == INT8
            else "take another --precision"
        )
        super().__init__(
            f"the graph {name} in {last.precision} loses {' and '.join(lost)}, on {len(gate.exact)} held-out images; "
            f"nothing was written: {advice}"
        )


def answers(session: Session, images: Images) -> list[Float32]:
    return [session(*inputs) for inputs in images.inputs]


def table(tried: Sequence[Tried], unit: str) -> list[str]:
    """What was tried, a line each, for the card and the command line; the last one is what was taken."""
    known = [(key, words) for key, words in (("psnr", "dB lost"), ("mae", f"{unit} lost"), ("dice", "Dice lost"))]
    known = [(key, words) for key, words in known if any(getattr(each, key) is not None for each in tried)]
    heads = ["precision", "ranges", "left float", "MB", "ms", "times as fast"]
    heads += [*(words for _, words in known), f"{unit} off", "gate"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for each in tried:
        lost = ["" if (value := getattr(each, key)) is None else f"{value:.3f}" for key, _ in known]
        gate = "" if each.precision == "fp32" else "passed" if each.passed else "not passed"
        row = [each.precision, each.ranges, str(len(each.floats) or ""), f"{each.megabytes:g}", f"{each.ms:g}"]
        row += [f"{each.faster:.2f}", *lost]
        lines.append("| " + " | ".join([*row, f"{each.off:g}", gate]) + " |")
    return lines


def _timed(one: Session, other: Session, inputs: Inputs) -> tuple[list[float], list[float]]:
    """Seconds of each, called in turn, so that the machine's mood is that of both."""
    found: tuple[list[float], list[float]] = [], []
    for _ in range(TIMED):
        for session, own in zip((one, other), found, strict=True):
            time.sleep(REST)
            began = time.perf_counter()
            session(*inputs)
            own.append(time.perf_counter() - began)
    return found


def _lost(name: str, exact: float, made: float) -> float:
    return made - exact if name == "mae" else exact - made


def _psnr(made: Float32, true: Float32) -> float:
    return float(-10 * np.log10(max(np.square((made - true) / 2).mean(dtype=np.float64), 1e-12)))


def _error(made: Float32, true: Float32, codec: Codec) -> float:
    """The mean absolute error inside the body, in network values."""
    inside = body(true[0], threshold(codec))
    return float(np.abs(made - true)[0][:, inside].mean())


def _middle(values: Float32, shape: Sequence[int]) -> Float32:
    """A decoder's image, cut to its size, half at each end."""
    first = [(side - wanted) // 2 for side, wanted in zip(values.shape[2:], shape[2:], strict=True)]
    cut = (slice(at, at + wanted) for at, wanted in zip(first, shape[2:], strict=True))
    return values[(slice(None), slice(None), *cut)]


def _hard(answer: Float32, codec: Codec) -> Float32:
    """Signs of the classes (1, K, *S): of regions each by itself, else that of the largest."""
    if codec.regions:
        return np.where(answer > 0, np.float32(1), np.float32(-1))
    found = np.full_like(answer, -1)
    np.put_along_axis(found, answer.argmax(1, keepdims=True), 1, axis=1)
    return found


def _dice(answers: Answers, truths: Answers, codec: Codec) -> float:
    """The mean over the classes, without the background, each over all images at once: of patches some hold a few
    voxels of a class, of which a single one would decide. Where nobody has said, nothing counts."""
    said = [true[0] != 0 for true in truths]
    drawn, wanted = (
        [
            np.concatenate([signs[0, k][known[k]] > 0 for signs, known in zip(each, said, strict=True)])[None]
            for k in range(0 if codec.regions else 1, truths[0].shape[1])
        ]
        for each in ([_hard(answer, codec) for answer in answers], truths)
    )
    each = [dice(one, other) for one, other in zip(drawn, wanted, strict=True) if one.any() or other.any()]
    return float(np.mean(each)) if each else float("nan")
