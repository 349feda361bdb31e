"""Recipe: one YAML file with every value of a run. Values only: a recipe cannot execute code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fabrica.bpe import LEAST
from fabrica.errors import UsageError, did_you_mean, unknown
from fabrica.io.atomic import atomic

T = TypeVar("T")
DEGRADED = "degraded"
USES = ("autoencoder", "teacher", "text")
CONDITIONS = ("label", "text", "age", "sex", "view", "mask")
CATEGORIES = ("sex", "view")
FITS = ("pad", "crop", "stretch", "exact")
SCALES = ("auto", "one", "two")
KEEPS = ("auto", "loss", "frd", "kid", "last")


@dataclass
class DataConfig:
    """What the network is trained on, and how an image becomes the network's size.

    source     a manifest (.csv, .parquet), a folder of images (scanned on the fly), or a phantom:
               "phantom:chest", "phantom:head:T1" (or T2, FLAIR, PD, CT, PET); to translate, "phantom:head".
    a, b       to translate: from what to what. A domain of the manifest ("T1", "CT", "trainA" is "a"), a contrast of
               the phantom ("T1@B": on its scanner B), "mask" (the label map beside each image, a phantom's tissues), or
               "image" (every row).
               To restore, a is "degraded": b after the steps of `degrade`.
    paired     each image of a has its own of b: the row in its `pair` column, with the same id, or of the same patient.
    degrade    what makes b worse, step by step: see `fabrica.data.degrade`. E.g. [{name: low-dose, dose: 0.25}].
    beside     to restore: other contrasts of the same patient that the network sees beside a, in this order, domains of
               the manifest or contrasts of the phantom. They lie on b's grid, are not degraded, and may be missing.
    context    neighbouring slices on each side that a network for slices sees of a, as channels (2.5-D).
    count      how many training images a phantom source draws (a tenth of it again for val and for test).
    size       spatial size in array order: [H, W] or [D, H, W]; one number stands for a square or a cube's side.
    channels   channels of the images: 1 for all of radiology but colour.
    batch      images a step, over all processes together.
    fit        how another aspect ratio becomes `size`: "pad" keeps everything, "crop" fills the frame,
               "stretch" ignores the ratio, "exact" pads or crops without resampling.
    condition  what the network is told about each image: label, text, age, sex, view, mask, as many as there are. mask:
               the label map beside it, a phantom's organs or tissues.
    classes    the labels in the order of their numbers; empty: all found in the train split, sorted.
    categories the same of sex and view, where the network is told them.
    where      manifest column -> value: only these rows are used.
    crop       the network learns from squares (cubes) of so many pixels a side, cut out of `size` at random; 0: whole.
    flip, jitter, turn, bend, gamma    random changes of training images, the same for both sides of a pair: see
               `fabrica.data.augment.Changes`.
    slices     which axial slices of volumes a network for slices learns from: "middle" (third), or "all".
    depth      phantom:head with a 2-D size: draw volumes of so many slices, not single slices; 0: single slices.
    scale      whether grey values of a and b mean the same: "one", and both sides have one codec; or "two". "auto" is
               decided before training and saved: "one" for what restores, and for CT to CT in HU.
    """

    source: str = ""
    a: str = ""
    b: str = ""
    paired: bool = False
    degrade: list[dict[str, Any]] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    context: int = 0
    count: int = 2000
    size: list[int] = field(default_factory=lambda: [64, 64])
    channels: int = 1
    batch: int = 32
    fit: str = "pad"
    condition: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    crop: int = 0
    flip: bool = False
    jitter: int = 0
    turn: float = 0.0
    bend: float = 0.0
    gamma: float = 0.0
    slices: str = "middle"
    depth: int = 0
    scale: str = "auto"

    @property
    def restores(self) -> bool:
        """Whether a is b made worse."""
        return self.a == DEGRADED

    @property
    def one_scale(self) -> bool:
        """Whether grey values of a and b mean the same. Models from before this was decided say "auto"."""
        return self.restores or self.scale == "one"


@dataclass
class CodecConfig:
    """How values become [-1, 1]: see `fabrica.codec.Codec`. "auto" decides from the training images, once,
    and the decision is saved with the model; so is `clip`, which is false for what restores."""

    kind: str = "auto"
    low: float | None = None
    high: float | None = None
    unit: str = "arbitrary"
    classes: int = 0
    default_limits: list[float] = field(default_factory=list)
    clip: bool | None = None  # None: not decided; of a trained model, which is then an older one: true


@dataclass
class TrainConfig:
    """The budget and the manners of the loop. `steps` and `minutes`: whichever ends first (0: no limit)."""

    steps: int = 10_000
    minutes: float = 0.0
    lr: float = 2e-4
    lr_of: dict[str, float] = field(default_factory=dict)  # player -> its own rate, e.g. critic: 4e-4 (two time scales)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: float = 0.0
    warmup: int = 200
    decay: str = "cosine"  # over the budget that binds, steps or minutes; "linear" in its second half; "constant"
    clip: float = 1.0  # largest gradient norm; 0: none
    accumulate: int = 1
    ema: float = 0.999  # half of the average's weight lies in the last 0.69 / (1 - ema) steps; 0: none
    keep: str = "auto"  # the weights that are best on held-out images by loss, frd or kid (auto: as the method says);
    # last: those at the end
    patience: int = 0  # validations without a better score after which a run ends (early stopping); 0: never
    precision: str = "auto"
    devices: int = 1
    checkpoint_every: int = 500
    validate_every: int = 500
    sample_every: int = 1000
    log_every: int = 25
    watch_every: int = 50  # steps between looks at the samples' diversity (GANs)


@dataclass
class SampleConfig:
    """Defaults of `sample`, saved with the model. steps to clip: diffusion. truncation: GANs, see
    `fabrica.adversarial.truncated`; 0: none."""

    steps: int = 10
    sampler: str = "dpmpp-2m"
    spacing: str = "log-snr"
    guidance: float = 1.0
    rescale: float = 0.0
    clip: bool = True
    truncation: float = 0.0


@dataclass
class TextConfig:
    """How reports are read, where data.condition names text.

    tokens    of the vocabulary that is learned from the training reports. context: the most that the network reads of a
              report. layers, heads: of the transformer that reads them, which is trained with the rest.
    excerpts  how often, in training, some sentences of a report stand for all of it, so that a prompt may be as short.
    width     of what a frozen encoder gives, which uses.text names: filled in. It has words, layers and heads of its
              own, and `context` becomes its own where that is less.
    """

    tokens: int = 2048
    context: int = 128
    layers: int = 3
    heads: int = 3
    excerpts: float = 0.5
    width: int = 0


@dataclass
class OutputConfig:
    """What written images say of themselves: those made, or side b. Filled from the training images, saved with the
    model.

    modality   DICOM's letters: DX, CR, CT, MR, PT, OT.
    spacing    mm between pixel centres in array order, (H, W) or (D, H, W); empty: not known.
    size       the middle part of data.size that images really fill; the padding around it is cut off again.
    """

    modality: str = ""
    spacing: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)


@dataclass
class SeenConfig:
    """What a translator's training images of one side had in common, so that unlike ones are recognised. Filled in
    training, saved with the model.

    modality   DICOM's letters; spacing mm between pixel centres in array order, median; empty: not known.
    extent     smallest and largest field of view in mm (the longer side of a slice); empty: not known.
    quantiles  of network values in the body, the mean over images, their `covariance`, and `distance`: the largest
               distance (Mahalanobis) of one image's quantiles from the mean.
    bounds     of few images: lowest and highest that what `fabrica.likeness.Look` measures may be, one after the other.
    doubt      mean uncertainty in the body that held-out images had at most, in network values; 0: not measured.
    """

    modality: str = ""
    spacing: list[float] = field(default_factory=list)
    extent: list[float] = field(default_factory=list)
    quantiles: list[float] = field(default_factory=list)
    covariance: list[list[float]] = field(default_factory=list)
    distance: float = 0.0
    bounds: list[list[float]] = field(default_factory=list)
    doubt: float = 0.0


@dataclass
class FoundConfig:
    """How good a translator was found to be on held-out images at the end of its training, and beside it what needs no
    model. Filled in by training, saved with the model.

    measure    "mae": mean absolute error inside the body, in `unit` ("%": of the range of values); "frd": Fréchet
               distance of radiomic features between sets, where there are no pairs; "": not measured.
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


@dataclass
class Recipe:
    """A whole run. `method` holds the method's name and its own values (see the Config of its class).

    uses   other models that this one works with. autoencoder: the folder of a trained one, on whose latents diffusion
           works; it is copied into the model folder. teacher: the folder of a trained diffusion model, from which
           `distill` learns; needed for training alone. text: the folder of a frozen encoder that reads the reports, see
           `fabrica.pretrained`; it is copied too.
    """

    name: str = ""
    task: str = "synthesise"
    about: str = ""
    cost: str = ""
    score: str = ""
    seed: int = 0
    track: str = ""
    method: dict[str, Any] = field(default_factory=dict)
    uses: dict[str, str] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    codec_b: CodecConfig = field(default_factory=CodecConfig)
    codec_mask: CodecConfig = field(default_factory=CodecConfig)  # of the label maps that images are told: kind label
    codecs_beside: list[CodecConfig] = field(default_factory=list)  # as data.beside; empty: "auto" for all
    text: TextConfig = field(default_factory=TextConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    seen_a: SeenConfig = field(default_factory=SeenConfig)
    seen_b: SeenConfig = field(default_factory=SeenConfig)
    found_a: FoundConfig = field(default_factory=FoundConfig)  # of results on side a, for what goes both ways
    found_b: FoundConfig = field(default_factory=FoundConfig)

    @property
    def beside(self) -> list[tuple[str, CodecConfig]]:
        """The contrasts beside a, each with its codec."""
        codecs = self.codecs_beside or [CodecConfig() for _ in self.data.beside]
        return list(zip(self.data.beside, codecs, strict=True))

    @property
    def made_size(self) -> list[int]:
        """Spatial size of the images that the model makes: data.size without the padding around them."""
        return self.output.size or self.data.size

    def save(self, path: Path) -> None:
        """Write every value, defaults included, as YAML."""
        with atomic(path) as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(self))), encoding="utf-8")


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with this name (see `recipe_names`) or at this path, with `key=value` overrides laid over it.

    Raises UsageError for unknown recipes and keys ("did you mean"), wrong types, and `${...}` expressions.
    """
    text = _recipe_text(name_or_path)
    for override in overrides:
        if "=" not in override:
            raise UsageError(f"override {override!r} is not key=value, e.g. train.steps=1000")
    try:
        # to_container(resolve=False) keeps "${...}" as text, so that it can be refused, not evaluated
        merged = OmegaConf.merge(OmegaConf.create(text), OmegaConf.from_dotlist(list(overrides)))
        raw = OmegaConf.to_container(merged, resolve=False)
    except Exception as error:  # yaml and omegaconf raise many types here; all mean the same to the user
        raise UsageError(f"recipe {name_or_path} is not valid YAML: {_first_line(error)}") from error
    if "${" in str(raw):
        raise UsageError(f"recipe {name_or_path} holds an expression (${{...}}); only plain values are allowed")
    if not isinstance(raw, dict):
        raise UsageError(f"recipe {name_or_path} must be a mapping of keys to values")
    recipe = typed(Recipe, raw)
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    data, train = recipe.data, recipe.train
    if len(data.size) not in (2, 3) or min(data.size) < 1:
        raise UsageError(f"data.size is {data.size}; expected [H, W] or [D, H, W] of positive numbers")
    expectations: list[tuple[bool, str]] = [
        (data.batch >= 1, f"data.batch is {data.batch}; expected at least 1"),
        (data.channels >= 1, f"data.channels is {data.channels}; expected at least 1"),
        (
            data.fit in FITS,
            f"data.fit is {data.fit!r}; expected one of {', '.join(FITS)}",
        ),
        (data.scale in SCALES, f"data.scale is {data.scale!r}; expected one of {', '.join(SCALES)}"),
        (data.slices in ("middle", "all"), f"data.slices is {data.slices!r}; expected middle or all"),
        (
            data.crop <= min(data.size),
            f"data.crop is {data.crop} and data.size {data.size}; a crop must fit into the image",
        ),
        (
            data.restores == bool(data.degrade),
            "data.a=degraded and data.degrade belong together: what is restored, and from what",
        ),
        (not data.restores or data.paired, "data.a is degraded, so each image has its own: set data.paired=true"),
        (data.context == 0 or len(data.size) == 2, "data.context is for slices; leave it 0 with a 3-D data.size"),
        (
            train.steps > 0 or train.minutes > 0,
            "train.steps and train.minutes are both 0; give the run a budget",
        ),
        (
            train.decay in ("cosine", "linear", "constant"),
            f"train.decay is {train.decay!r}; expected cosine, linear or constant",
        ),
        (train.clip >= 0, f"train.clip is {train.clip}; expected 0 (none) or a positive number"),
        (train.warmup >= 0, f"train.warmup is {train.warmup}; expected 0 or more steps"),
        (
            len(train.betas) == 2 and all(0 <= beta < 1 for beta in train.betas),
            f"train.betas is {train.betas}; expected two numbers from 0 to below 1, e.g. [0.9, 0.99]",
        ),
        (0 <= train.ema < 1, f"train.ema is {train.ema}; expected 0 (none) to below 1"),
        (train.keep in KEEPS, f"train.keep is {train.keep!r}; expected one of {', '.join(KEEPS)}"),
        (0 <= recipe.seed < 2**31, f"seed is {recipe.seed}; expected 0 to {2**31 - 1}"),
        (0 <= train.lr < 1, f"train.lr is {train.lr}; expected 0 to below 1"),
        (0 <= recipe.text.excerpts <= 1, f"text.excerpts is {recipe.text.excerpts}; expected a share from 0 to 1"),
        (recipe.text.context >= 3, f"text.context is {recipe.text.context}; expected at least 3, e.g. 128"),
        (recipe.text.tokens > LEAST, f"text.tokens is {recipe.text.tokens}; expected more than {LEAST}, e.g. 2048"),
        (recipe.text.layers >= 0, f"text.layers is {recipe.text.layers}; expected 0 or more"),
        (recipe.text.heads >= 1, f"text.heads is {recipe.text.heads}; expected at least 1"),
        (
            recipe.codec_mask.kind in ("auto", "label"),
            f"codec_mask.kind is {recipe.codec_mask.kind}; masks are label maps: take auto, or label with its classes",
        ),
        (recipe.sample.steps >= 1, f"sample.steps is {recipe.sample.steps}; expected at least 1"),
        (recipe.sample.truncation >= 0, f"sample.truncation is {recipe.sample.truncation}; expected 0 (none) or more"),
        (recipe.track in ("", "mlflow"), f"track is {recipe.track!r}; expected nothing or mlflow"),
        ("name" in recipe.method, "method.name is missing, e.g. method: {name: diffusion}"),
    ]
    for key in ("context", "crop", "jitter", "turn", "bend", "gamma", "depth"):
        found = getattr(data, key)
        expectations.append((found >= 0, f"data.{key} is {found}; expected 0 or more"))
    expectations.append((train.patience >= 0, f"train.patience is {train.patience}; expected 0 or more"))
    no_best = f"train.patience is {train.patience}, and with train.keep=last no weights are the best; leave one out"
    expectations.append((not (train.patience and train.keep == "last"), no_best))
    counts = ("accumulate", "devices")
    periods = ("checkpoint_every", "validate_every", "sample_every", "log_every", "watch_every")
    for key in (*counts, *periods):
        found = getattr(train, key)
        expectations.append((found >= 1, f"train.{key} is {found}; expected at least 1"))
    for player, rate in train.lr_of.items():
        expectations.append((0 <= rate < 1, f"train.lr_of.{player} is {rate}; expected 0 to below 1"))
    for holds, message in expectations:
        if not holds:
            raise UsageError(message)
    for name in data.condition:
        if name not in CONDITIONS or data.condition.count(name) > 1:
            raise UsageError(
                f"data.condition is {', '.join(data.condition)}; expected each at most once of {', '.join(CONDITIONS)}"
            )
    _check_beside(recipe)
    _check_uses(recipe)


def _check_uses(recipe: Recipe) -> None:
    for name, folder in recipe.uses.items():
        if name not in USES:
            raise unknown("use", name, USES)
        if not folder:
            raise UsageError(f"uses.{name} is empty; give the folder of a trained one, or leave `uses` out")
    if "text" in recipe.uses and "text" not in recipe.data.condition:
        raise UsageError(
            "uses.text reads reports, and data.condition names none; add text to it, or leave uses.text out"
        )
    changes = [key for key in ("crop", "flip", "jitter", "turn", "bend", "gamma") if getattr(recipe.data, key)]
    if "autoencoder" in recipe.uses and changes:
        raise UsageError(
            f"data.{changes[0]} changes images, and with uses.autoencoder these are encoded once; leave it out, or "
            "train the autoencoder with it"
        )
    if "teacher" in recipe.uses and changes:
        raise UsageError(
            f"data.{changes[0]} changes images, and with uses.teacher none is looked at; leave it out, or train the "
            "teacher with it"
        )


def _check_beside(recipe: Recipe) -> None:
    beside, codecs = recipe.data.beside, recipe.codecs_beside
    if beside and not recipe.data.restores:
        raise UsageError("data.beside is for restoration; set data.a=degraded and data.degrade, or leave it empty")
    for name in beside:
        if name in ("", "mask", "image", DEGRADED, recipe.data.b) or beside.count(name) > 1:
            raise UsageError(
                f"data.beside is {beside}; expected contrasts other than {recipe.data.b} (data.b), each once: "
                f"take {name!r} out"
            )
    if len(codecs) not in (0, len(beside)):
        raise UsageError(
            f"codecs_beside holds {len(codecs)} codecs for {len(beside)} contrasts of data.beside; "
            "expected one each, or none: then the images decide"
        )
    if any(codec.kind == "label" for codec in codecs):
        raise UsageError("codecs_beside: kind is label; what stands beside a has grey values: take auto")


def typed(cls: type[T], raw: dict[Any, Any], where: str = "") -> T:
    """The dataclass `cls` filled from plain YAML values, or UsageError naming the key and a near match."""
    raw = _check_keys(cls, raw, where)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), raw))  # type: ignore[no-any-return]
    except OmegaConfBaseException as error:
        key = f"{where}{error.full_key}" if error.full_key else where
        raise UsageError(f"recipe key {key}: {_first_line(error)}") from error


def _check_keys(cls: type, raw: dict[Any, Any], where: str) -> dict[str, Any]:
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    clean: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise UsageError(f"unknown recipe key {where}{key}{did_you_mean(str(key), known)}")
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise UsageError(f"recipe key {where}{key} must hold keys of its own, found {value!r}")
            value = _check_keys(hints[key], value, f"{where}{key}.")
        if key == "condition" and not isinstance(value, list):  # one of them, or none
            value = [value] if value else []
        if value is None and hints[key] is str:  # `key=''`, of which a shell leaves `key=`
            value = ""
        if key == "size" and isinstance(value, int):
            value = [value, value]
        if get_origin(hints[key]) is list and not isinstance(value, list):
            raise UsageError(f"recipe key {where}{key} is {value!r}; expected a list, such as [1,2]")
        clean[key] = value
    return clean


def recipe_names() -> list[str]:
    """The names of the recipes shipped in the package."""
    folder = resources.files("fabrica") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def _recipe_text(name_or_path: str | Path) -> str:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"no recipe at {path}")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"recipe {path} is damaged: it is not text in UTF-8; write it again") from error
    names = recipe_names()
    if len(path.parts) > 1:
        raise UsageError(f"{path} is no recipe; expected a name from `fabrica recipes`, or a file that ends in .yaml")
    if str(name_or_path) not in names:
        raise unknown("recipe", str(name_or_path), names)
    return (resources.files("fabrica") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
