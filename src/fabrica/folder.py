"""The model folder: weights.safetensors, recipe.yaml, README.md (model card). Nothing in it is executable."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save

from fabrica import __version__
from fabrica.codec import Codec
from fabrica.conditions import described
from fabrica.errors import FabricaError, UsageError
from fabrica.io.atomic import atomic
from fabrica.methods import Compressor, Method, Translator, networks
from fabrica.recipe import CodecConfig, FoundConfig, Recipe

WEIGHTS, RECIPE, CARD = "weights.safetensors", "recipe.yaml", "README.md"
WORDS = "vocabulary.json"  # of a model that reads text
READER = "text"  # the folder inside, of a frozen encoder that reads its prompts
AUTOENCODER = "autoencoder"  # the folder inside, of the one that a model works with
FEWEST = 6  # images or volumes: of fewer, an interval means little
ALARMS = "alarms.txt"  # what went wrong in training, "step 450: ..." a line; only there if something did


def codec_of(config: CodecConfig) -> Codec:
    """The codec whose values a trained recipe holds."""
    if config.kind == "auto" or config.low is None or config.high is None:
        raise UsageError("codec.kind is still 'auto': this recipe has not been trained yet")
    limits = (config.default_limits[0], config.default_limits[1]) if config.default_limits else None
    clip = config.clip is not False
    return Codec(config.kind, config.low, config.high, config.unit, config.classes, limits, clip)


def codec_config(codec: Codec) -> CodecConfig:
    """The recipe's section that says the same as this codec."""
    values = asdict(codec)
    values["default_limits"] = list(codec.default_limits or ())
    return CodecConfig(**values)


def found(recipe: Recipe, direction: str = "a2b") -> FoundConfig:
    """How good a translator was found to be."""
    return recipe.found_b if direction == "a2b" else recipe.found_a


def worth(recipe: Recipe, direction: str = "a2b") -> str:
    """The held-out error in a sentence, with what stands beside it; "" where nothing was measured."""
    known = found(recipe, direction)
    if not known.measure:
        few = f"{known.images} images without pairs are too few to measure a held-out error"
        return few if known.images else ""
    what = "held-out error" if known.measure == "mae" else "distance from held-out images (FRD)"
    beside = [
        f"{_figure(value, known.unit)} {name}"
        for name, value in ((_nothing(known), known.nothing), ("for the mean target", known.mean))
        if value is not None
    ]
    said = f"{what} {_figure(known.error, known.unit)}{', against ' * bool(beside)}{' and '.join(beside)}"
    how_many = "1 image or volume" if known.cases == 1 else f"{known.cases} images or volumes"
    said += f" ({how_many})"
    if known.measure == "mae" and known.cases < FEWEST:
        return f"{said}; so few say little of others"
    if known.low is None or known.high is None:
        return said
    return f"{said}; better by {_figure(known.low, known.unit)} to {_figure(known.high, known.unit)}"


def useless(recipe: Recipe, direction: str = "a2b") -> str:
    """A sentence where held-out images were served as well without the model; "" elsewhere."""
    known = found(recipe, direction)
    others = [
        (v, n) for v, n in ((known.nothing, _nothing(known)), (known.mean, "for the mean target")) if v is not None
    ]
    if not known.measure or not others:
        return ""
    best, name = min(others)
    figures = f"{_figure(known.error, known.unit)}, and {_figure(best, known.unit)} {name}"
    what = "held-out error" if known.measure == "mae" else "distance from held-out images (FRD)"
    if known.error >= best:
        return f"the model is no better than {_instead(known, best)}: its {what} is {figures}; do not use it"
    if known.low is not None and known.low <= 0:
        return (
            f"the model is hardly better than {_instead(known, best)}: its {what} is {figures}, which chance explains"
        )
    return ""


def _nothing(known: FoundConfig) -> str:
    return "with nothing done" if known.measure == "mae" else "untranslated"


def _instead(known: FoundConfig, best: float) -> str:
    return "doing nothing" if best == known.nothing else "the mean target, the same for all"


def _figure(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip()


def save_model(folder: Path, method: Method, recipe: Recipe, *, kept: str) -> None:
    """Write the method's shipped networks, the resolved recipe and the model card; each file atomically.

    kept   which weights these are, for the card: "average at step 500, held-out loss 0.0312".
    """
    weights = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in zip(method.ships, networks(method, method.ships), strict=True)
        for key, value in network.state_dict().items()
    }
    try:
        recipe.save(folder / RECIPE)
        with atomic(folder / WEIGHTS) as temporary:
            # one entry: several are written in any order, and the same weights should be the same file
            # not `save_file`, whose files nobody but their owner may read
            temporary.write_bytes(save(weights, metadata={"fabrica": f"{__version__}, {kept}"}))
        save_card(folder, method, recipe, kept=kept)
    except (OSError, SafetensorError, FabricaError) as error:
        raise FabricaError(f"model not written to {folder}: {error}; the weights kept before are untouched") from error


def save_card(folder: Path, method: Method, recipe: Recipe, *, kept: str) -> None:
    """Write the model card alone."""
    with atomic(folder / CARD) as temporary:
        temporary.write_text(_card(recipe, method, kept), encoding="utf-8")


def _card(recipe: Recipe, method: Method, kept: str) -> str:
    parameters = sum(p.numel() for net in networks(method, method.ships) for p in net.parameters())
    size = " x ".join(str(side) for side in recipe.data.size)
    rows = {
        "method": f"{recipe.method['name']}, {parameters / 1e6:.1f} M parameters",
        "images": f"{recipe.data.channels} x {size}, {_values(recipe.codec)}",
        "trained on": recipe.data.source,
        "conditions": described(recipe) or "none",
        "weights kept": kept,
        "made with": f"Fabrica {__version__}, seed {recipe.seed}",
    }
    asked = " --prompt TEXT" * ("text" in recipe.data.condition) + " --mask FILE" * ("mask" in recipe.data.condition)
    use = [f"fabrica sample FOLDER{asked} -n 16 -o samples"]
    warning = SYNTHETIC
    if isinstance(method, Compressor):
        rows["latents"] = " x ".join(str(side) for side in method.latent_shape)
        use, warning = [], COMPRESSED
    if isinstance(method, Translator):
        rows["images"] = (
            f"{size}: {recipe.data.a} ({_values(recipe.codec)}) to {recipe.data.b} ({_values(recipe.codec_b)})"
        )
        rows["conditions"] = f"directions {', '.join(method.directions)}"
        beside = "".join(f" --beside {name}=FILE" for name in recipe.data.beside)
        use, warning = [f"fabrica apply FOLDER IN -o OUT{beside} --uncertainty"], TRANSLATED
        for direction in method.directions:
            if said := worth(recipe, direction):
                rows["held out" if direction == "a2b" else "held out, b to a"] = said
            if said := useless(recipe, direction):
                warning = f"**{said[0].upper()}{said[1:]}.**\n\n{warning}"
        if recipe.beside:
            rows["beside"] = ", ".join(f"{name} ({_values(codec)})" for name, codec in recipe.beside)
    use.append(f"fabrica evaluate FOLDER --against {recipe.data.source} -o report")
    lines = "\n".join(f"    {line}" for line in use)
    if "teacher" in recipe.uses:
        rows["distilled from"] = f"{recipe.uses['teacher']}, which the model no longer needs"
    if "autoencoder" in recipe.uses:
        rows["works on"] = f"latents of the autoencoder in {AUTOENCODER}/"
    if "text" in recipe.uses:
        rows["reads with"] = f"the encoder in {READER}/, not trained here; its own terms hold for it"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# {recipe.name}

{recipe.about}

| | |
|---|---|
{table}

{lines}

{warning}
"""


def _values(codec: CodecConfig) -> str:
    return f"{codec.kind} codec [{codec.low}, {codec.high}] {codec.unit}"


SYNTHETIC = """\
Images made by this model are synthetic. They show no patient, may show anatomy that cannot exist, and are not for
diagnosis. Before sharing them, read the memorisation audit in the report."""
TRANSLATED = """\
Images made by this model show a patient as another scanner might have seen them. What the source does not show is
guessed: lesions may be missing or invented. They are not for diagnosis. Read docs/trust.md before you rely on them."""
COMPRESSED = """\
This model makes latents of images, and images of latents. Latents are the patient's image in other words: keep them as
you keep the image. What it gives back is not for diagnosis: fine detail is drawn anew, not kept."""
