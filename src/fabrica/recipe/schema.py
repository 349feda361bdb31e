"""Recipe: one YAML file with every value of a run. Values only: a recipe cannot execute code."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fabrica.io.atomic import atomic
from fabrica.recipe.values import written

DEGRADED = "degraded"


USES = ("autoencoder", "teacher", "text", "plan")


CONDITIONS = ("label", "text", "age", "sex", "view", "mask")


CATEGORIES = ("sex", "view")


FITS = ("pad", "crop", "stretch", "exact")


SCALES = ("auto", "one", "two")


KEEPS = ("auto", "loss", "frd", "kid", "last")


@dataclass(frozen=True)
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
    auxiliary  to restore and to segment: other contrasts of the same patient that the network sees beside a, in this
               order, domains of the manifest or contrasts of the phantom. They are laid on b's grid to restore, on a's
               to segment, are not degraded, and may be missing. None named, and a "image", to segment: those that every
               training case has.
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
    flip, jitter, turn, zoom, bend, gamma    random changes of training images, the same for both sides of a pair: see
               `fabrica.data.augment.Changes`.
    scanner, apart   how much the grey values of a alone are changed, as another scanner's might differ, and by how many
               pixels b is moved against a: see there, too.
    slices     which axial slices of volumes a network for slices learns from: "middle" (third), or "all".
    augment    to segment: patches are turned, scaled, bent, mirrored and changed in grey value, see
               `fabrica.data.patches`.
    spacing    to segment: mm between pixel centres at which the network sees images; empty: as the plan says, and so
               are an empty `size` and a `batch` of 0.
    regions    to segment: labels that overlap, name -> the numbers in the label maps that belong to it, the larger
               first, e.g. {whole: [1, 2, 3], core: [2, 3], enhancing: [3]}; empty: as the masks' names say, else none.
    depth      phantom:head with a 2-D size: draw volumes of so many slices, not single slices; 0: single slices.
    scale      whether grey values of a and b mean the same: "one", and both sides have one codec; or "two". "auto" is
               decided from the images: "one" for what restores, and for CT to CT in HU.
    """

    source: str = ""
    a: str = ""
    b: str = ""
    paired: bool = False
    degrade: list[dict[str, Any]] = field(default_factory=list)
    auxiliary: list[str] = field(default_factory=list)
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
    zoom: float = 0.0
    bend: float = 0.0
    gamma: float = 0.0
    scanner: float = 0.0
    apart: int = 0
    augment: bool = False
    spacing: list[float] = field(default_factory=list)
    regions: dict[str, list[int]] = field(default_factory=dict)
    slices: str = "middle"
    depth: int = 0
    scale: str = "auto"

    @property
    def phantoms(self) -> bool:
        """Whether it is learned from phantoms, and so says nothing of patients."""
        return self.source.startswith("phantom:")

    @property
    def restores(self) -> bool:
        """Whether a is b made worse."""
        return self.a == DEGRADED

    @property
    def one_scale(self) -> bool:
        """Whether grey values of a and b mean the same, once that is decided."""
        return self.restores or self.scale == "one"


@dataclass(frozen=True)
class CodecConfig:
    """How values become [-1, 1]: see `fabrica.codec.Codec`. "auto" decides from the training images; so is `clip`
    decided, which is false for what restores."""

    kind: str = "auto"
    low: float | None = None
    high: float | None = None
    unit: str = "arbitrary"
    classes: int = 0
    numbers: list[int] = field(default_factory=list)
    regions: list[list[int]] = field(default_factory=list)
    default_limits: list[float] = field(default_factory=list)
    clip: bool | None = None  # None: not decided


@dataclass(frozen=True)
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
    monitor_every: int = 50  # steps between looks at the samples' diversity (GANs)


@dataclass(frozen=True)
class SampleConfig:
    """Defaults of `sample`, saved with the model. steps to clip: diffusion. truncation: GANs, see
    `fabrica.diffusion.noise.truncated`; 0: none. levels: grey levels are held within those of training images."""

    steps: int = 10
    sampler: str = "dpmpp-2m"
    spacing: str = "log-snr"
    guidance: float = 1.0
    rescale: float = 0.0
    clip: bool = True
    truncation: float = 0.0
    levels: bool = True


@dataclass(frozen=True)
class DistillConfig:
    """How what translates, restores or segments learns from uses.teacher: see `fabrica.methods.knowledge`. The weights
    of the teacher's answers, of its features (0: none are looked at; 0.1: a tenth of how far answers are off), both of
    which fall evenly to 0, and of the method's own loss. temperature: that softens the teacher's labels."""

    answers: float = 1.0
    features: float = 0.0
    own: float = 1.0
    temperature: float = 2.0


@dataclass(frozen=True)
class FewConfig:
    """What stands in place of the recipe's own values where pairs to learn from are few, see `fabrica.recipe.few`; a
    value that is named beside the recipe (KEY=VALUE) stands over it.

    patients, pairs   few are fewer training patients than this, or fewer pairs; 0: that is not asked.
    method, data, train   values of these sections.
    """

    patients: int = 0
    pairs: int = 0
    method: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextConfig:
    """How reports are read, where data.condition names text.

    tokens    of the vocabulary that is learned from the training reports. context: the most that the network reads of a
              report. layers, heads: of the transformer that reads them, which is trained with the rest.
    excerpts  how often, in training, some sentences of a report stand for all of it, so that a prompt may be as short.
    width     of what a frozen encoder gives, which uses.text names; 0: whatever it gives. It has words, layers and
              heads of its own, and `context` is no more than its own.
    """

    tokens: int = 2048
    context: int = 128
    layers: int = 3
    heads: int = 3
    excerpts: float = 0.5
    width: int = 0


@dataclass(frozen=True)
class OutputConfig:
    """What written images say of themselves: those made, or side b. What is left empty is as in the training images.

    modality   DICOM's letters: DX, CR, CT, MR, PT, OT.
    spacing    mm between pixel centres in array order, (H, W) or (D, H, W).
    """

    modality: str = ""
    spacing: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """What a run is asked; what it finds stands beside it (`fabrica.recipe.found`). `method` holds the method's name
    and its own values (see the Config of its class).

    licence, credit   under which the weights may be used, and whose images they are learned from, in words.
    uses   other models that this one works with. autoencoder: the folder of a trained one, on whose latents diffusion
           works; it is copied into the model folder. teacher: the folder of a trained model to learn from, a
           diffusion model for `distill`, for what translates, restores or segments one that does the same; needed for
           training alone. text: the folder of a frozen encoder that reads the reports, see
           `fabrica.text.frozen_encoder`; it is copied too. plan: to segment, the folder of a run or a YAML file whose
           plan is taken; what `data` says stands over it.
    few    what stands instead where pairs are few; what a run has decided is laid over the rest, and few is empty.
    quantise  "int8": what translates, restores or segments learns to work in 8 bits, see `fabrica.nets.quantise`.
    """

    name: str = ""
    task: str = "synthesise"
    about: str = ""
    cost: str = ""
    score: str = ""
    licence: str = ""
    credit: str = ""
    seed: int = 0
    track: str = ""
    quantise: str = ""
    method: dict[str, Any] = field(default_factory=dict)
    uses: dict[str, str] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    codec_b: CodecConfig = field(default_factory=CodecConfig)
    codec_mask: CodecConfig = field(default_factory=CodecConfig)  # of the label maps that images are told: kind label
    codecs_auxiliary: list[CodecConfig] = field(default_factory=list)  # as data.auxiliary; empty: "auto" for all
    text: TextConfig = field(default_factory=TextConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    few: FewConfig = field(default_factory=FewConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def save(self, path: Path) -> None:
        """Write every value, defaults included, as YAML."""
        with atomic(path) as temporary:
            temporary.write_text(written(asdict(self)), encoding="utf-8")
