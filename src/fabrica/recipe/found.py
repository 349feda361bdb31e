"""Found: what a run finds in its data and its training, beside what it was asked (`fabrica.recipe.schema`). Written
once, beside the recipe; only values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError, UsageError, did_you_mean
from fabrica.io.atomic import atomic
from fabrica.recipe.earlier import is_earlier, parted
from fabrica.recipe.folder import FOUND, RECIPE
from fabrica.recipe.load import load_recipe, typed, versioned
from fabrica.recipe.plan import Plan, mistake
from fabrica.recipe.schema import CodecConfig, DataConfig, Recipe, TextConfig
from fabrica.recipe.values import read, written

VERSION = 1
LATER = ("plan", "largest", "few", "levels")  # what earlier models do not have


@dataclass(frozen=True)
class Fingerprint:
    """What a translator's training images of one side had in common, so that unlike ones are recognised.

    modality   DICOM's letters; spacing mm between pixel centres in array order, median; empty: not known.
    extent     smallest and largest field of view in mm (the longer side of a slice); empty: not known.
    quantiles  of network values in the body, the mean over images, their `covariance`, and `distance`: the largest
               distance (Mahalanobis) of one image's quantiles from the mean.
    bounds     of few images: lowest and highest of each measure of `fabrica.inference.out_of_distribution.Look`.
    uncertainty  mean in the body that held-out images had at most, in network values; 0: not measured.
    """

    modality: str = ""
    spacing: list[float] = field(default_factory=list)
    extent: list[float] = field(default_factory=list)
    quantiles: list[float] = field(default_factory=list)
    covariance: list[list[float]] = field(default_factory=list)
    distance: float = 0.0
    bounds: list[list[float]] = field(default_factory=list)
    uncertainty: float = 0.0


@dataclass(frozen=True)
class HeldOutError:
    """How good a translator was found to be on held-out images at the end of its training, and beside it what needs no
    model.

    measure    "mae": mean absolute error inside the body, in `unit` ("%": of the range of values); "frd": Fréchet
               distance of radiomic features between sets, where there are no pairs; "dice": mean Dice of the classes of
               label maps, `low` and `high` its interval; "": not measured.
    error      of the results; nothing: of the source as it is, None where its values mean something else; mean: of the
               mean training image, None for sets.
    images, cases   how many were judged: images of the network's size, and volumes or pictures that these are of.
    low, high  95 % interval of how much lower `error` is than the lower of the other two, over the cases; None for
               sets, and where there are fewer than two cases.
    """

    measure: str = ""
    unit: str = ""
    error: float = 0.0
    nothing: float | None = None
    mean: float | None = None
    images: int = 0
    cases: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Found:
    """What was decided for one run, and what it came to.

    method        the method's name and all its values, defaults included.
    uses          the other models that it works with, see `Recipe.uses`; a student's, those of its teacher too.
    text          how reports are read.
    classes, categories   as in `DataConfig`, those of the training images.
    scale         of a translation: whether grey values of both sides mean the same, "one" or "two"; else as asked.
    codec, codec_b, codec_mask, codecs_auxiliary   of images or side a, side b, masks, what is beside a.
    modality, spacing   of the images that are made: see `OutputConfig`.
    size          the middle part of data.size that images really fill; the padding around it is cut off again.
    levels        of images that are made: the lowest and the highest usual landmarks of their histogram, see
                  `fabrica.data.levels`; [] where they are left as they come.
    plan          of a segmenter: patches, levels of the network, labels; largest: the labels of which only the largest
                  connected piece is given, since that was better on held-out images.
    few           why a translator was trained as for few pairs, and which values were chosen; "" where it was not.
    fingerprint_a, fingerprint_b   what the training images of each side have in common.
    held_out_a, held_out_b   how good results on each side are.
    """

    version: int = VERSION
    method: dict[str, Any] = field(default_factory=dict)
    uses: dict[str, str] = field(default_factory=dict)
    text: TextConfig = field(default_factory=TextConfig)
    classes: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    scale: str = "auto"
    codec: CodecConfig = field(default_factory=CodecConfig)
    codec_b: CodecConfig = field(default_factory=CodecConfig)
    codec_mask: CodecConfig = field(default_factory=CodecConfig)
    codecs_auxiliary: list[CodecConfig] = field(default_factory=list)
    modality: str = ""
    spacing: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    levels: list[list[float]] = field(default_factory=list)
    plan: Plan = field(default_factory=Plan)
    largest: list[int] = field(default_factory=list)
    few: str = ""
    fingerprint_a: Fingerprint = field(default_factory=Fingerprint)
    fingerprint_b: Fingerprint = field(default_factory=Fingerprint)
    held_out_a: HeldOutError = field(default_factory=HeldOutError)
    held_out_b: HeldOutError = field(default_factory=HeldOutError)

    @classmethod
    def asked(cls, recipe: Recipe) -> Found:
        """What a recipe says before anything is looked at."""
        data = recipe.data
        return cls(
            method=recipe.method,
            uses=recipe.uses,
            text=recipe.text,
            classes=data.classes,
            categories=data.categories,
            scale=data.scale,
            codec=recipe.codec,
            codec_b=recipe.codec_b,
            codec_mask=recipe.codec_mask,
            codecs_auxiliary=recipe.codecs_auxiliary or [CodecConfig() for _ in data.auxiliary],
            modality=recipe.output.modality,
            spacing=recipe.output.spacing,
            size=data.size,
        )

    def data(self, asked: DataConfig) -> DataConfig:
        """The data section of the recipe with what it left open decided."""
        plan, found = self.plan, replace(asked, classes=self.classes, categories=self.categories, scale=self.scale)
        if plan.contrasts:
            found = replace(found, a=plan.contrasts[0], auxiliary=plan.contrasts[1:])
        return replace(found, size=plan.size, batch=plan.batch, spacing=plan.spacing) if plan.size else found

    def held_out(self, direction: str) -> HeldOutError:
        """How good a translator's results of this direction are."""
        return self.held_out_b if direction == "a2b" else self.held_out_a

    def save(self, path: Path) -> None:
        """Write every value as YAML."""
        with atomic(path) as temporary:
            temporary.write_text(written(asdict(self)), encoding="utf-8")


def found_in(folder: Path) -> tuple[Recipe, Found]:
    """What the model or run in a folder was asked, and what it found; of one of the earlier form, too.

    Raises UsageError for a recipe that is none, FabricaError as `load_found`."""
    recipe = load_recipe(folder / RECIPE)
    if (folder / FOUND).is_file():
        return recipe, load_found(folder / FOUND)
    raw = read((folder / RECIPE).read_text("utf-8"))
    if not isinstance(raw, dict) or not is_earlier(raw):
        raise FabricaError(
            f"{folder} has no {FOUND}, which says what its training found; take it from where it was trained"
        )
    _, values = parted(raw)
    known = typed(_OfEarlier, values)
    return recipe, replace(Found.asked(recipe), **{each.name: getattr(known, each.name) for each in fields(known)})


def plan_in(path: Path) -> Plan:
    """The plan of a run or model, of its found.yaml, or of a YAML file that holds nothing else (`uses.plan`).

    Raises UsageError, one line, where there is none, and for one that does not hold together."""
    file = path / FOUND if path.is_dir() else path
    expected = "expected the folder of a segmenter, its found.yaml, or a YAML file of a plan"
    try:
        raw = read(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"uses.plan: {file} cannot be read ({error.strerror}); {expected}") from error
    except Exception as error:  # yaml and omegaconf raise many types here; all mean the same to the user
        raise UsageError(f"uses.plan: {file} is no YAML: {str(error).splitlines()[0]}; {expected}") from error
    said = raw.get("plan", raw) if isinstance(raw, dict) else None
    if not isinstance(said, dict) or "${" in str(said):
        raise UsageError(f"uses.plan: {file} holds no plan; {expected}")
    try:
        plan = typed(Plan, {str(key): value for key, value in said.items()})
    except UsageError as error:
        raise UsageError(f"uses.plan: {file}: {error}") from error
    if problem := mistake(plan):
        raise UsageError(f"uses.plan: {file} {problem}")
    return plan


@dataclass(frozen=True)
class _OfEarlier:
    """What a recipe of the earlier form says of what was found alone."""

    size: list[int] = field(default_factory=list)
    fingerprint_a: Fingerprint = field(default_factory=Fingerprint)
    fingerprint_b: Fingerprint = field(default_factory=Fingerprint)
    held_out_a: HeldOutError = field(default_factory=HeldOutError)
    held_out_b: HeldOutError = field(default_factory=HeldOutError)


def load_found(path: Path) -> Found:
    """What `Found.save` has written. FabricaError, one line, for a record that is damaged, lacks a key, has one too
    many or is of a later Fabrica."""
    advice = "take it from where the model was trained"
    raw = versioned(path, VERSION, advice)
    known = [each.name for each in fields(Found)]
    if missing := [name for name in known if name not in raw and name not in LATER]:  # earlier models have none
        raise FabricaError(f"{path} is damaged: it has no {missing[0]}; {advice}")
    for name in raw:
        if name not in known:
            raise FabricaError(f"{path} has an unknown key {name}{did_you_mean(str(name), known)}; {advice}")
    try:
        return typed(Found, raw)
    except UsageError as error:
        raise FabricaError(f"{path} is damaged: {error}; {advice}") from error
