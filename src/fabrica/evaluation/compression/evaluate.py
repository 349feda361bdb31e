"""Judge an autoencoder: what encoder and decoder leave of held-out images, beside the images themselves.

Beside it stands what as many numbers keep without a network: the image shrunk and enlarged again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fabrica import __version__
from fabrica.errors import UsageError
from fabrica.evaluation.real_images import open_sets
from fabrica.evaluation.set_scores import DISTANCES, LEAST_JUDGED, distances, lay_out
from fabrica.evaluation.sets import Sets
from fabrica.evaluation.subject import Drawn, Subject, open_subject
from fabrica.geometry import resample
from fabrica.image import Float32, Float64, Image
from fabrica.io.contact_sheet import PLANES
from fabrica.metrics import distribution, extractors, fidelity
from fabrica.metrics.patients import interval
from fabrica.metrics.spectrum import power_kept
from fabrica.model.compression import CompressionModel
from fabrica.nets.device import default_device
from fabrica.progress import Progress
from fabrica.report.charts import Chart, Line, level, line_chart, shown, training_charts
from fabrica.report.pictures import WIDE, Exhibit, Gallery, Picture, difference_scale, error, error_legend, grey
from fabrica.report.report import filled, keep, repeated
from fabrica.report.scores import BESIDE, Report, ScoreRow, as_json, finite, numbers

TEMPLATE = "compression.html.jinja"
MOST = 1000  # held-out images
BATCH = 16
EACH, SET = "Each image", "As sets"
SCORES: dict[str, tuple[str, str, Callable[[Float32, Float32, float], Float64]]] = {
    "ms_ssim": ("MS-SSIM", "Structure at several scales; 1 is equal.", fidelity.ms_ssim),
    "psnr": ("PSNR, dB", "Signal to noise: the range over the mean squared error, in decibels.", fidelity.psnr),
    "ssim": ("SSIM", "Structure in small windows; 1 is equal.", fidelity.ssim),
}
Power = tuple[Float64, Float64]
OPTIONS: tuple[str, ...] = ()  # of `fabrica.evaluation.evaluate`, that mean something here


@dataclass(frozen=True, eq=False)
class CompressionTrial:
    """Everything that one evaluation looked at and found.

    versions   "result", "shrunk" and "real" (of another patient) in the place of the held-out images.
    scores     who -> metric -> (N,). power: see `spectrum.power_kept`.
    """

    model: CompressionModel
    subject: Subject
    sets: Sets
    versions: Mapping[str, Float32]
    scores: Mapping[str, Mapping[str, Float64]]
    power: Power
    rows: tuple[ScoreRow, ...]
    notes: tuple[str, ...]
    extractor: str
    asked: int | None
    seed: int


def evaluate(
    model: CompressionModel,
    against: str | Path | None = None,
    out: str | Path = "report",
    *,
    n: int | None = None,
    split: str = "test",
    extractor: str = "radiomic",
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Compress and rebuild held-out images and score what is left; write report.html and scores.json.

    n   at most so many held-out images, drawn at random; None: 1000. The rest is as in `fabrica.evaluation.evaluate`.
    """
    tell = progress or (lambda what, done, total: None)
    measure = extractors.extractor(extractor, str(default_device()))
    subject = open_subject(model, against, tell)
    sets = _some(open_sets(subject, split, seed, tell), n, seed)
    Path(out).mkdir(parents=True, exist_ok=True)  # a place that cannot be written is better known now than later
    images = sets.heldout
    made = {
        "result": _rebuilt(model, images, tell),
        "shrunk": np.stack([_shrunk(image, _ratio(model)) for image in images]),
        "real": np.roll(images, max(1, len(images) // 2), axis=0),
    }
    scores = {who: _scored(values, images) for who, values in made.items()}
    power, plain = power_kept(made["result"], images), power_kept(made["shrunk"], images)
    rows = [*_rows(scores, seed), _power_row(power, plain)]
    notes = [*subject.notes, *sets.notes]
    if model.method.noise_shape:
        notes.append("what is rebuilt has detail that is drawn anew, which scores of pixels do not reward")
    if len(images) >= LEAST_JUDGED:
        bench = lay_out(measure, sets, Drawn(made["result"], sets.heldout_names), seed, tell)
        rows += [replace(row, group=SET) for row in distances(bench, seed, tell, DISTANCES[:2])]
        notes += [distribution.enough(len(images), bench.real.shape[1]) or "", bench.note]
    else:
        notes.append(f"{len(images)} images are too few for distances between sets; at least {LEAST_JUDGED} are needed")
    said = tuple(note[0].upper() + note[1:].rstrip(".") + "." for note in notes if note)
    return _written(
        CompressionTrial(model, subject, sets, made, scores, power, tuple(rows), said, extractor, n, seed), Path(out)
    )


def _some(sets: Sets, n: int | None, seed: int) -> Sets:
    if n is not None and n < 1:
        raise UsageError(f"asked for {n} images; expected at least 1")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(sets.heldout))[: n or MOST])
    return replace(sets, heldout=sets.heldout[chosen], heldout_names=[sets.heldout_names[k] for k in chosen])


def _rebuilt(model: CompressionModel, images: Float32, tell: Progress) -> Float32:
    parts = []
    for k in range(0, len(images), BATCH):
        latents = model.encode(images[k : k + BATCH])
        parts.append(model.decode(latents, images.shape[2:], seeds=range(k, k + len(latents))))
        tell("compressing and rebuilding", min(k + BATCH, len(images)), len(images))
    return np.concatenate(parts)


def _ratio(model: CompressionModel) -> float:
    """How many values of an image there are for one of its latents."""
    return float(np.prod([model.recipe.data.channels, *model.recipe.data.size]) / np.prod(model.method.latent_shape))


def _shrunk(image: Float32, ratio: float) -> Float32:
    """An image (C, *S) shrunk until it has so many times fewer values, and enlarged again."""
    size = image.shape[1:]
    small = [max(1, round(side / ratio ** (1 / len(size)))) for side in size]
    return resample(resample(image, small), size)


def _scored(made: Float32, images: Float32) -> dict[str, Float64]:
    """metric -> (N,); {} of images smaller than the window of SSIM, but for PSNR."""
    fitting, parts = min(images.shape[2:]) >= fidelity.TAPS, range(0, len(made), BATCH)
    return {
        metric: np.concatenate([fn(made[k : k + BATCH], images[k : k + BATCH], 2.0) for k in parts])
        for metric, (_, _, fn) in SCORES.items()
        if fitting or metric == "psnr"
    }


def _rows(scores: Mapping[str, Mapping[str, Float64]], seed: int) -> list[ScoreRow]:
    found = []
    for metric in scores["result"]:
        name, explanation, _ = SCORES[metric]
        at, shrunk, real = (interval(each[metric], seed) for each in scores.values())
        beside = {"shrunk": shrunk.mean}
        found.append(
            ScoreRow(
                metric, name, at.mean, at.low, at.high, "higher", explanation, real.mean, False, beside, group=EACH
            )
        )
    return found


def _power_row(power: Power, plain: Power) -> ScoreRow:
    explanation = (
        "The smallest share of the power spectrum that is left in a ring of frequencies up to half of Nyquist; less "
        "than all of it is blur."
    )
    beside = {"shrunk": _least(plain)}
    return ScoreRow(
        "power_kept", "Power kept", _least(power), None, None, "higher", explanation, 1.0, True, beside, EACH
    )


def _least(power: Power) -> float:
    frequencies, ratios = power
    return float(ratios[frequencies <= 0.5].min())


def _written(trial: CompressionTrial, out: Path) -> Report:
    facts = {
        "fabrica": __version__,
        "subject": trial.model.name,
        "model_hash": trial.model.hash,
        "against": trial.subject.against,
        "split": trial.sets.split,
        "n_images": len(trial.sets.heldout),
        "compression": _ratio(trial.model),
        "power_by_frequency": [list(pair) for pair in zip(*(values.tolist() for values in trial.power), strict=True)],
        "extractor": trial.extractor,
        "seed": trial.seed,
    }
    told = _verdict(trial)
    everything = {**facts, **numbers(trial.rows), "verdict": told, "warnings": list(trial.notes)}
    report = Report(finite(everything), trial.rows, trial.notes, out / "report.html", told, "rebuilt")
    keep(report, lambda: _page(trial, report))
    return report


def _verdict(trial: CompressionTrial) -> str:
    rows = {row.key: row for row in trial.rows}
    count, power = len(trial.sets.heldout), rows["power_kept"]
    said = [f"{rows[key].name.removesuffix(', dB')} {rows[key].text(rows[key].value)} {rows[key].interval}"
            + " dB" * (key == "psnr") for key in ("ms_ssim", "psnr") if key in rows]  # fmt: skip
    text = f"One number is left of {shown(_ratio(trial.model))}. {', '.join(said)} between {count} held-out images and "
    text += f"what is rebuilt of them; up to half of Nyquist at least {power.text(power.value)} of the power is kept"
    if "frechet" in rows:
        row = rows["frechet"]
        text += f". Their {row.name} is {row.text(row.value)}, that of other patients' images {row.text(row.real)}"
    return text + "."


def _page(trial: CompressionTrial, report: Report) -> str:
    model, subject = trial.model, trial.subject
    latents = " × ".join(str(side) for side in model.method.latent_shape)
    return filled(
        TEMPLATE,
        title=model.name,
        subject=f"An autoencoder, on held-out images of {subject.against}",
        restores=False,
        report=report,
        galleries=[_gallery(trial)],
        paired=True,
        beside=BESIDE,
        charts=[_chart(trial), *training_charts(subject.log, None)],
        facts=[*subject.facts, ("latents", latents)],
        measured=_measured(trial),
        numbers=as_json(report),
        shown=shown,
    )


def _gallery(trial: CompressionTrial) -> Gallery:
    """Held-out images with the smallest, the median and the largest error."""
    images, codec = trial.sets.heldout, trial.model.codec
    gaps = np.abs(trial.versions["result"] - images).reshape(len(images), -1).mean(1)
    order, most, titles = np.argsort(gaps, kind="stable"), difference_scale(codec), dict[int, str]()
    ranks = ((0, "Smallest"), (1, "Smallest"), (len(order) // 2, "Median"), (len(order) - 1, "Largest"))
    for rank, name in ranks:
        titles.setdefault(int(order[min(rank, len(order) - 1)]), f"{name} error: number {rank + 1} of {len(order)}")
    exhibits = []
    for k, title in titles.items():
        shown_here = (images[k], trial.versions["result"][k], trial.versions["shrunk"][k])
        pictures = _pictures([_placed(codec.decode(v), codec.unit, trial.sets.spacing) for v in shown_here], most)
        facts = [(SCORES[key][0], shown(float(values[k]))) for key, values in trial.scores["result"].items()]
        exhibits.append(Exhibit(title, trial.sets.heldout_names[k], facts, pictures, ()))
    how = "Black and white are percentiles 0.5 and 99.5 of the source; CT: −1000 and 1500 HU."
    if images.ndim == 5:
        how += " Of volumes the middle axial, coronal and sagittal planes are shown, the patient's right on the left "
        how += "(seen from the side: the front), the head or the front at the top."
    return Gallery("Source and rebuilt", how, exhibits, [error_legend("rebuilt less source", codec, most)], None, 0)


def _placed(values: Float32, unit: str, spacing: Sequence[float]) -> Image:
    """An image (C, *S) with voxels of this size in mm; what is not known is 1."""
    mm = [*reversed(spacing or (1.0,) * (values.ndim - 1)), 1.0, 1.0][:3]
    return Image(values, np.diag([*mm, 1.0]), unit)


def _pictures(images: Sequence[Image], most: float) -> list[Picture]:
    """A row of four pictures of source, rebuilt and shrunk; of volumes one for each of the planes."""
    source, made, plain = images
    found, inside = [], np.ones(source.size, dtype=bool)
    for view in PLANES if len(source.size) == 3 else PLANES[:1]:
        said = f", {view}" if len(source.size) == 3 else ""
        found += [
            grey(source, source, f"source{said}", 1, WIDE, view),
            grey(made, source, f"rebuilt{said}", 2, WIDE, view),
            error(made, source, inside, most, f"rebuilt less source{said}", 3, view=view),
            grey(plain, source, f"{BESIDE['shrunk']}{said}", 4, WIDE, view),
        ]
    return found


def _chart(trial: CompressionTrial) -> Chart:
    frequencies, ratios = (values.tolist() for values in trial.power)
    said = "; ".join(f"{f:.2f} of Nyquist {r:.2f}" for f, r in zip(frequencies, ratios, strict=True))
    lines = [Line("rebuilt", frequencies, ratios), level("all of it", frequencies, 1.0)]
    svg = line_chart(
        "power", lines, x="frequency, share of Nyquist", y="power kept", alt=f"Power kept by frequency: {said}"
    )
    return Chart(svg, "Power spectrum of the rebuilt images over that of the sources: below the line is blur.")


def _measured(trial: CompressionTrial) -> list[tuple[str, str]]:
    folder, against = str(trial.model.folder), trial.subject.against
    return [
        ("images", f"{len(trial.sets.heldout)} of the {trial.sets.split} split of {trial.subject.against}"),
        ("values", "network values, −1 to 1; means over images, intervals: 95 %, percentile bootstrap"),
        *repeated(folder, against, asked=trial.asked, extractor=trial.extractor, seed=trial.seed),
    ]
