"""Lesions that a translation removes or adds: the numbers and the pictures of docs/trust.md.

python docs/trust.py -o OUT [--share 0.05]     a share of the training steps, for a first look

Draws head phantoms, trains the models of CASES from T2 to FLAIR, translates the same test heads with each by
`fabrica apply`, and measures what became of the lesions. What lies in OUT already is kept, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

import fabrica
from fabrica import io
from fabrica.data.manifest import Manifest, Row
from fabrica.inference.files import apply
from fabrica.io.contact_sheet import save_picture
from fabrica.phantoms import head
from fabrica.phantoms.head.anatomy import INDEX
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe

Float = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

SOURCE, TARGET, SIZE = "T2", "FLAIR", 64
HEADS = {"train": 600, "val": 48, "test": 60}  # of each side; in the test each with and without its tumour
FIRST = {"train": 10_000, "val": 30_000, "test": 50_000}  # seeds; side b has those from 10,000 later
TOP = {SOURCE: 1400, TARGET: 800}  # of the range that networks see: above the brightest lesion
LESION = [INDEX[name] for name in ("tumour core", "tumour rim", "oedema")]
BRAIN = [INDEX[name] for name in ("CSF", "grey matter", "white matter", "deep grey matter")]
SMOOTH = 1.0  # voxels, so that the grain of a translation is not counted
BRIGHT = 0.3  # above white matter, in units of it; from 0.25 to 0.4 no true image is misjudged
CONNECTED = 8  # voxels: one square centimetre
STRANGERS = {  # what is no T2 of scanner A: contrast, scanner
    "T1": ("T1", "A"),
    "PD": ("PD", "A"),
    "FLAIR": ("FLAIR", "A"),
    "CT": ("CT", "A"),
    "T2 of a 3 T scanner": ("T2", "B"),
}


@dataclass(frozen=True)
class Case:
    """A model: its recipe, and the share of training heads with a tumour on each side ("half", "none", "all")."""

    name: str
    title: str
    recipe: str
    a: str
    b: str
    steps: int
    more: tuple[str, ...] = ()


SMALL = ("method.width=16", "method.critic_width=16", "data.size=64", "train.ema=0.995", "train.sample_every=250")
PAIRED = (*SMALL, "method.levels=4", "data.batch=4", "train.lr=1e-3", "train.clip=1")
UNPAIRED = (*SMALL, "method.blocks=3", "data.batch=2", "train.lr=5e-4", "train.clip=0")
CYCLE = (*UNPAIRED, "method.identity=0")
CASES = (
    Case("paired", "paired", "strong-head", "half", "half", 1500, PAIRED),
    Case("balanced", "CycleGAN, balanced", "cyclegan-xray", "half", "half", 2000, CYCLE),
    Case("healthy-target", "CycleGAN, no tumour in b", "cyclegan-xray", "half", "none", 2000, CYCLE),
    Case("tumour-target", "CycleGAN, tumours only in b", "cyclegan-xray", "none", "all", 2000, CYCLE),
    Case("cut-balanced", "CUT, balanced", "cut-head", "half", "half", 1500, UNPAIRED),
    Case("cut-healthy-target", "CUT, no tumour in b", "cut-head", "half", "none", 1500, UNPAIRED),
    Case("cut-tumour-target", "CUT, tumours only in b", "cut-head", "none", "all", 1500, UNPAIRED),
)


# --- heads on the disk


def file_of(out: Path, contrast: str, seed: int, tumour: bool) -> Path:
    return out / "heads" / contrast / f"{seed}-{'tumour' if tumour else 'healthy'}.nii"


def draw(out: Path, seed: int, tumour: bool) -> npt.NDArray[np.uint8]:
    """Write both contrasts of a head, unless they are there; returns its tissues, uint8 (H, W)."""
    drawn = head(seed, SIZE, contrasts=(SOURCE, TARGET), tumour=tumour)
    for contrast, image in drawn.images.items():
        path = file_of(out, contrast, seed, tumour)
        path.parent.mkdir(parents=True, exist_ok=True)
        io.write(image, path, synthetic=True)
    tissue: npt.NDArray[np.uint8] = drawn.tissue.data[0].astype(np.uint8)
    return tissue


def has_tumour(k: int, share: str) -> bool:
    return {"none": False, "all": True, "half": k % 2 == 0}[share]


def manifest(out: Path, case: Case) -> Path:
    """The training and held-out heads of a case, drawn where they are missing, as a manifest."""
    rows = []
    for split in ("train", "val"):
        for domain, share in ((SOURCE, case.a), (TARGET, case.b)):
            apart = 10_000 if domain == TARGET and case.recipe != "strong-head" else 0
            for k in range(HEADS[split]):
                seed, tumour = FIRST[split] + apart + k, has_tumour(k, share)
                path = file_of(out, domain, seed, tumour)
                if not path.exists():
                    draw(out, seed, tumour)
                where = path.relative_to(out).as_posix()
                rows.append(Row(where, f"head-{seed}", where, split=split, domain=domain, modality="MR"))
    path = out / f"{case.name}.csv"
    Manifest(rows, out).save(path)
    return path


def recipe(out: Path, case: Case, share: float) -> Recipe:
    steps = max(20, round(case.steps * share))
    return load_recipe(
        case.recipe,
        [
            f"name={case.name}",
            f"data.source={manifest(out, case)}",
            f"data.a={SOURCE}",
            f"data.b={TARGET}",
            *(f"{key}.{what}" for key in ("codec", "codec_b") for what in ("kind=window", "low=0")),
            f"codec.high={TOP[SOURCE]}",
            f"codec_b.high={TOP[TARGET]}",
            "data.flip=true",
            f"train.steps={steps}",
            "train.minutes=0",
            f"train.validate_every={max(10, steps // 8)}",
            *case.more,
        ],
    )


# --- what became of the lesions


@dataclass(frozen=True)
class Head:
    """A test head: its number, its tissues (H, W), and the true target without and with its tumour, in units of its
    white matter."""

    seed: int
    tissue: npt.NDArray[np.uint8]  # with the tumour
    truth: dict[bool, Float]

    @property
    def lesion(self) -> Mask:
        return np.isin(self.tissue, LESION)

    @property
    def brain(self) -> Mask:
        """Without its border, where the skull's fat shines in."""
        whole = ndimage.binary_fill_holes(np.isin(self.tissue, [*BRAIN, *LESION]))
        inner: Mask = ndimage.binary_erosion(whole, iterations=2)
        return inner

    @property
    def normal(self) -> Mask:
        """White matter at least two voxels from the lesion."""
        near = ndimage.binary_dilation(self.lesion, iterations=2)
        far: Mask = (self.tissue == INDEX["white matter"]) & ~near
        return far

    def in_units(self, values: Float) -> Float:
        return values / np.median(values[self.normal])

    def kept(self, made: Float) -> float:
        """Of the lesion's contrast: 1 as in the truth, 0 as in the truth of the same head without its tumour."""
        found, there, absent = (x[self.lesion].mean() for x in (made, self.truth[True], self.truth[False]))
        return float((found - absent) / (there - absent))

    def spots(self, made: Float) -> Mask:
        """The lesion detector: connected voxels of the brain, smoothed, brighter than white matter by BRIGHT."""
        return connected(self.brain & (ndimage.gaussian_filter(made, SMOOTH) > 1 + BRIGHT))


def connected(bright: Mask) -> Mask:
    pieces, _ = ndimage.label(bright, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    large: Mask = (sizes >= CONNECTED)[pieces]
    return large


def test_heads(out: Path) -> list[Head]:
    found = []
    for seed in range(FIRST["test"], FIRST["test"] + HEADS["test"]):
        draw(out, seed, False)
        one = Head(seed, draw(out, seed, True), {})
        for tumour in (False, True):
            one.truth[tumour] = one.in_units(io.read(file_of(out, TARGET, seed, tumour)).data[0])
        found.append(one)
    return found


@dataclass
class Finding:
    """What a model made of one test image.

    kept         the lesion's contrast, see `Head.kept`; of a head without tumour, of the place where it would be.
    seen, false  whether the detector finds the lesion; something where no lesion is.
    error        mean absolute difference from the truth in the brain, in units of white matter.
    altered      kept below a half, or a false lesion.
    doubt, back  mean uncertainty and round-trip error as result.json has them (back: nan without a way back).
    doubt_at, back_at    means of the maps where the lesion is removed (or kept) or added, against the rest of brain.
    lost         round-trip error in the lesion over its contrast in the source: 1 if it did not come back.
    """

    seed: int
    tumour: bool
    kept: float
    seen: bool
    false: bool
    error: float
    altered: bool
    flagged: bool
    refused: str
    doubt: float
    back: float
    doubt_at: float
    back_at: float
    lost: float


def translate(out: Path, case: Case, heads: Sequence[Head]) -> list[Finding]:
    """All test images through `fabrica apply`, and what became of them."""
    model, target = fabrica.load(out / case.name), out / "applied" / case.name
    both_ways = "b2a" in getattr(model.method, "directions", ())
    if not (target / "result.json").exists():
        sources = Manifest([], out)
        for one in heads:
            for tumour in (False, True):
                where = file_of(out, SOURCE, one.seed, tumour).relative_to(out).as_posix()
                sources.rows.append(Row(f"{one.seed}-{tumour}", str(one.seed), where, split="test", modality="MR"))
        sources.save(out / "test.csv")
        apply(model, out / "test.csv", target, uncertainty=True, round_trip=both_ways, force=True)
    outcomes = json.loads((target / "result.json").read_text(encoding="utf-8"))["results"]
    asked = [(one, tumour) for one in heads for tumour in (False, True)]
    return [find(out, target, *each, told) for each, told in zip(asked, outcomes, strict=True)]


def find(out: Path, target: Path, one: Head, tumour: bool, told: dict[str, Any]) -> Finding:
    made = one.in_units(io.read(target / told["output"]).data[0])
    spots = one.spots(made)
    false = spots if not tumour else connected(spots & ~ndimage.binary_dilation(one.lesion, iterations=2))
    kept, source = one.kept(made), io.read(file_of(out, SOURCE, one.seed, tumour)).data[0]
    doubt = io.read(target / told["uncertainty_map"]).data[0]
    back = io.read(target / told["round_trip_map"]).data[0] if told["round_trip_map"] else np.full_like(doubt, np.nan)
    where = one.lesion if tumour else false
    rest = one.brain & ~ndimage.binary_dilation(where, iterations=1)
    return Finding(
        seed=one.seed,
        tumour=tumour,
        kept=kept,
        seen=bool((spots & one.lesion).any()),
        false=bool(false.any()),
        error=float(np.abs(made - one.truth[tumour])[one.brain].mean()),
        altered=kept < 0.5 if tumour else bool(false.any()),
        flagged=bool(told["uncertain"]),
        refused="; ".join(told["overridden"]),
        doubt=float(told["uncertainty"]),
        back=float("nan") if told["round_trip"] is None else float(told["round_trip"]),
        doubt_at=over(doubt, where, rest),
        back_at=over(back, where, rest),
        lost=float(back[where].mean() / (source[where].mean() - source[one.normal].mean())) if tumour else float("nan"),
    )


def over(values: Float, where: Mask, rest: Mask) -> float:
    return float(values[where].mean() / values[rest].mean()) if where.any() else float("nan")


# --- numbers


Interval = tuple[float, float, float]


def with_interval(values: Sequence[float]) -> Interval | None:
    """The mean, and 95 % of the means of heads drawn anew 2000 times; None without values."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size:
        return None
    drawn = np.random.default_rng(0).choice(known, (2000, known.size)).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(known.mean()), float(low), float(high)


def auc(high: Sequence[float], low: Sequence[float]) -> Interval | None:
    """How often one of the first is above one of the second; with the interval of both drawn anew."""
    a, b = np.asarray(high, dtype=float), np.asarray(low, dtype=float)
    if min(a.size, b.size) < 5 or not np.isfinite([*a, *b]).all():
        return None
    wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    rng = np.random.default_rng(0)
    again = [wins[rng.integers(a.size, size=a.size)][:, rng.integers(b.size, size=b.size)].mean() for _ in range(2000)]
    low_end, high_end = np.quantile(again, [0.025, 0.975])
    return float(wins.mean()), float(low_end), float(high_end)


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    tumours = [f for f in findings if f.tumour]
    healthy = [f for f in findings if not f.tumour]
    altered = [f for f in findings if f.altered]
    faithful = [f for f in findings if not f.altered]
    return {
        "kept": with_interval([f.kept for f in tumours]),
        "seen": with_interval([f.seen for f in tumours]),
        "false": with_interval([f.false for f in healthy]),
        "error": with_interval([f.error for f in findings]),
        "altered": len(altered),
        "refused": {name: sum(bool(f.refused) for f in of) for name, of in (("tumour", tumours), ("healthy", healthy))},
        "flagged": sum(f.flagged for f in findings),
        "flagged_altered": sum(f.flagged for f in altered),
        "auc_doubt": auc([f.doubt for f in altered], [f.doubt for f in faithful]),
        "auc_back": auc([f.back for f in altered], [f.back for f in faithful]),
        "auc_doubt_tumour": auc([f.doubt for f in tumours], [f.doubt for f in healthy]),
        "auc_back_tumour": auc([f.back for f in tumours], [f.back for f in healthy]),
        "doubt_at_lesion": with_interval([f.doubt_at for f in tumours]),
        "back_at_lesion": with_interval([f.back_at for f in tumours]),
        "doubt_at_false": with_interval([f.doubt_at for f in healthy]),
        "back_at_false": with_interval([f.back_at for f in healthy]),
        "lost": with_interval([f.lost for f in tumours]),
    }


def of_truth(heads: Sequence[Head]) -> dict[str, Any]:
    """What the detector says of the true images."""
    return {
        "seen": with_interval([bool((one.spots(one.truth[True]) & one.lesion).any()) for one in heads]),
        "false": with_interval([bool(one.spots(one.truth[False]).any()) for one in heads]),
        "contrast": with_interval([one.truth[True][one.lesion].mean() - 1 for one in heads]),
        "voxels": with_interval([one.lesion.sum() for one in heads]),
    }


def strangers(out: Path, case: Case, count: int = 30) -> dict[str, str]:
    """How many images that are no T2 of scanner A the model would refuse."""
    model, found = fabrica.load(out / case.name), {}
    for name, (contrast, scanner) in STRANGERS.items():
        images = [head(60_000 + k, SIZE, contrasts=(contrast,), scanner=scanner).images[contrast] for k in range(count)]
        found[name] = f"{sum(bool(model.unlike(image)) for image in images)} of {count}"
    return found


# --- pictures


def tile(values: Float, brightest: float) -> npt.NDArray[np.uint8]:
    grey: npt.NDArray[np.uint8] = np.round(np.clip(values / brightest, 0, 1) * 255).astype(np.uint8)
    return grey.repeat(2, 0).repeat(2, 1)


def sheet(rows: Sequence[Sequence[npt.NDArray[np.uint8]]], columns: Sequence[str], path: Path) -> None:
    """Rows of tiles with captions above."""
    side, gap, top = rows[0][0].shape[0], 4, 34
    width, height = len(columns) * (side + gap) - gap, top + len(rows) * (side + gap)
    canvas = np.full((height, width), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, one in enumerate(row):
            y, x = top + i * (side + gap), j * (side + gap)
            canvas[y : y + side, x : x + side] = one
    picture = Pillow.fromarray(canvas)
    draw_on = ImageDraw.Draw(picture)
    for j, text in enumerate(columns):
        draw_on.multiline_text((j * (side + gap) + 2, 2), text, fill=0, font=ImageFont.load_default(12), spacing=2)
    save_picture(np.asarray(picture), path)


def shown(heads: Sequence[Head], count: int = 3) -> list[Head]:
    """The first test heads whose lesion is larger than most."""
    middle = float(np.median([one.lesion.sum() for one in heads]))
    return [one for one in heads if one.lesion.sum() > middle][:count]


def made_by(out: Path, case: Case, one: Head, tumour: bool) -> Float:
    return one.in_units(io.read(out / "applied" / case.name / f"{one.seed}-{tumour}.nii.gz").data[0])


def heads_picture(out: Path, heads: Sequence[Head], path: Path) -> None:
    """Heads with and without their tumour: source, truth, and what each model made of them."""
    rows = []
    for one in shown(heads, 2):
        for tumour in (True, False):
            source = one.in_units(io.read(file_of(out, SOURCE, one.seed, tumour)).data[0])
            made = [made_by(out, case, one, tumour) for case in CASES]
            rows.append([tile(source, 2.8), *(tile(x, 2.2) for x in (one.truth[tumour], *made))])
    captions = [case.title.replace(", ", "\n") for case in CASES]
    sheet(rows, [f"source\n{SOURCE}", f"truth\n{TARGET}", *captions], path)


def warnings_picture(out: Path, heads: Sequence[Head], path: Path) -> None:
    """A lesion removed and one added, with the maps that were to warn of it."""
    rows = []
    for name, tumour in (("healthy-target", True), ("tumour-target", False)):
        case = next(case for case in CASES if case.name == name)
        model = fabrica.load(out / name)
        there, back = model.way("a2b"), model.way("b2a")
        for one in shown(heads, 2):
            source = io.read(file_of(out, SOURCE, one.seed, tumour))
            encoded = there.source.encode(source)
            returned = (back.net(there.net(encoded[None]))[0, 0] + 1) / 2
            place = out / "applied" / name
            doubt = io.read(place / f"{one.seed}-{tumour}-uncertainty.nii.gz").data[0]
            trip = io.read(place / f"{one.seed}-{tumour}-round-trip.nii.gz").data[0]
            made = made_by(out, case, one, tumour)
            white = float(np.median(source.data[0][one.normal]))
            rows.append(
                [
                    *(tile(x, 2.2) for x in (one.truth[tumour], made, np.abs(made - one.truth[tumour]))),
                    tile(doubt, float(np.quantile(doubt, 0.999))),
                    tile((encoded[0] + 1) / 2, 1.0),
                    tile(returned, 1.0),
                    tile(trip / white, 2.8),
                ]
            )
    captions = [f"truth\n{TARGET}", "result", "error", "uncertainty\n(own scale)", f"source\n{SOURCE}", "way back"]
    sheet(rows, [*captions, "round-trip\nerror"], path)


# --- all of it


def told(value: Interval | None, percent: bool = False) -> str:
    if value is None:
        return "–"
    mean, low, high = (100 * v if percent else v for v in value)
    return f"{mean:.0f} % [{low:.0f}, {high:.0f}]" if percent else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def tables(numbers: dict[str, dict[str, Any]]) -> str:
    """The two tables of the page."""
    lines = ["| model | lesion kept | lesions found | healthy heads given a lesion | error |", "|---" * 5 + "|"]
    for case in CASES:
        n = numbers[case.name]
        shares = f"{told(n['seen'], True)} | {told(n['false'], True)}"
        lines.append(f"| {case.title} | {told(n['kept'])} | {shares} | {told(n['error'])} |")
    heads = ("altered", "flagged", "AUC, uncertainty", "AUC, round trip", "uncertainty there", "round trip there")
    lines += ["", f"| model | {' | '.join(heads)} | not returned |", "|---" * 8 + "|"]
    for case in CASES:
        n = numbers[case.name]
        where = "false" if case.b == "all" else "lesion"
        cells = [told(n[key]) for key in ("auc_doubt", "auc_back", f"doubt_at_{where}", f"back_at_{where}", "lost")]
        lines.append(f"| {case.title} | {n['altered']} | {n['flagged']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of the training steps")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    os.environ["FABRICA_CACHE"] = str(out / "cache")
    heads = test_heads(out)
    numbers: dict[str, dict[str, Any]] = {"truth": of_truth(heads)}
    for case in CASES:
        if not (out / case.name / "samples.png").exists():  # written when a run has ended
            fabrica.train(recipe(out, case, given.share), out / case.name, resume=(out / case.name).exists())
        findings = translate(out, case, heads)
        numbers[case.name] = {**summary(findings), "findings": [asdict(f) for f in findings]}
        print(f"{case.title}: {told(numbers[case.name]['kept'])} kept, {told(numbers[case.name]['false'], True)} false")
    numbers["refusals"] = strangers(out, next(case for case in CASES if case.name == "healthy-target"))
    (out / "trust.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    (out / "trust.md").write_text(tables(numbers) + "\n", encoding="utf-8")
    heads_picture(out, heads, out / "trust-heads.png")
    warnings_picture(out, heads, out / "trust-warnings.png")
    print(tables(numbers))


if __name__ == "__main__":
    main()
