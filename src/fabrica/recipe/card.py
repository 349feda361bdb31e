"""The model card, README.md of a model folder: what a model is, in words, from what was asked and found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fabrica import __version__
from fabrica.recipe.folder import AUTOENCODER, TEXT_ENCODER
from fabrica.recipe.found import Found
from fabrica.recipe.held_out import useless, worth
from fabrica.recipe.schema import CodecConfig, DataConfig, Recipe

SYNTHETIC = """\
Images made by this model are synthetic. They show no patient, may show anatomy that cannot exist, and are not for
diagnosis. Before sharing them, read the memorisation audit in the report."""
TRANSLATED = """\
Images made by this model show a patient as another scanner might have seen them. What the source does not show is
guessed: lesions may be missing or invented. They are not for diagnosis. Read docs/trust.md before you rely on them."""
SEGMENTED = """\
Label maps made by this model are an opinion on an image, not a diagnosis: what is small, rare or unlike the training
images may be missed or invented. Look at them on the image before you measure in them, and read docs/trust.md."""
COMPRESSED = """\
This model makes latents of images, and images of latents. Latents are the patient's image in other words: keep them as
you keep the image. What it gives back is not for diagnosis: fine detail is drawn anew, not kept."""


OF_PHANTOMS = "learned from phantoms: for trying, not for patients"
MARK = "phantom model, not for patients"  # the same where 64 letters must do


class CardPart(NamedTuple):
    """What a card says of its model's task: rows, the commands to use the model by, what to be warned of."""

    rows: dict[str, str]
    use: Sequence[str]
    warning: str


def synthesis(recipe: Recipe) -> CardPart:
    asked = " --prompt TEXT" * ("text" in recipe.data.condition) + " --mask FILE" * ("mask" in recipe.data.condition)
    return CardPart({}, [f"fabrica sample FOLDER{asked} -n 16 -o samples"], SYNTHETIC)


def translation(recipe: Recipe, found: Found, directions: Sequence[str]) -> CardPart:
    data, size = recipe.data, " x ".join(str(side) for side in recipe.data.size)
    sides = f"{data.a} ({_values(found.codec)}) to {data.b} ({_values(found.codec_b)})"
    rows = {"images": f"{size}: {sides}", "conditions": f"directions {', '.join(directions)}"}
    warning = TRANSLATED
    for direction in directions:
        if said := worth(found.held_out(direction)):
            rows["held out" if direction == "a2b" else "held out, b to a"] = said
        if said := useless(found.held_out(direction)):
            warning = f"**{said[0].upper()}{said[1:]}.**\n\n{warning}"
    if found.few:
        rows["few pairs"] = found.few.replace("\n", "; ")
    rows |= _auxiliary_row(data, found)
    return CardPart(rows, [f"fabrica apply FOLDER IN -o OUT{_auxiliary_words(data)} --uncertainty"], warning)


def segmentation(recipe: Recipe, found: Found) -> CardPart:
    plan, data = found.plan, found.data(recipe.data)
    named = zip(plan.numbers, plan.names, strict=True)
    labels = ", ".join(f"{number} {name}".strip() for number, name in named if number)
    size = " x ".join(str(side) for side in plan.size)
    mm = f" at {' x '.join(f'{v:.3g}' for v in plan.spacing)} mm" if plan.spacing else ""
    sides = f"{data.a} ({_values(found.codec)})"
    rows = {"images": f"patches of {size}{mm}: {sides}", "labels": labels, **_auxiliary_row(data, found)}
    return CardPart(rows, [f"fabrica apply FOLDER IN -o OUT{_auxiliary_words(data)} --uncertainty"], SEGMENTED)


def _auxiliary_row(data: DataConfig, found: Found) -> dict[str, str]:
    contrasts = zip(data.auxiliary, found.codecs_auxiliary, strict=True)
    said = ", ".join(f"{name} ({_values(codec)})" for name, codec in contrasts)
    return {"auxiliary": said} if said else {}


def _auxiliary_words(data: DataConfig) -> str:
    return "".join(f" --auxiliary {name}=FILE" for name in data.auxiliary)


def compression(latent_shape: Sequence[int]) -> CardPart:
    return CardPart({"latents": " x ".join(str(side) for side in latent_shape)}, [], COMPRESSED)


def card(recipe: Recipe, found: Found, part: CardPart, parameters: int, kept: str) -> str:
    """The whole card in Markdown. parameters: how many the networks have; kept: which weights these are."""
    size = " x ".join(str(side) for side in recipe.data.size)
    rows = {
        "method": f"{found.method['name']}, {parameters / 1e6:.1f} M parameters",
        "images": f"{recipe.data.channels} x {size}, {_values(found.codec)}",
        "trained on": "; ".join(filter(None, (recipe.data.source, recipe.credit))),
        "conditions": described(recipe, found) or "none",
        "weights kept": kept,
        "made with": f"Fabrica {__version__}, seed {recipe.seed}",
        **part.rows,
    }
    if recipe.licence:
        rows["licence"] = recipe.licence
    if recipe.data.phantoms:
        rows["for"] = f"trying; {OF_PHANTOMS}"
    if "teacher" in found.uses:
        rows["distilled from"] = f"{found.uses['teacher']}, which the model no longer needs"
    if "autoencoder" in found.uses:
        rows["works on"] = f"latents of the autoencoder in {AUTOENCODER}/"
    if "text" in found.uses:
        rows["reads with"] = f"the encoder in {TEXT_ENCODER}/, not trained here; its own terms hold for it"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    use = [*part.use, f"fabrica evaluate FOLDER --against {recipe.data.source} -o report"]
    lines = "\n".join(f"    {line}" for line in use)
    return f"""# {recipe.name}

{recipe.about}

| | |
|---|---|
{table}

{lines}

{part.warning}
"""


def described(recipe: Recipe, found: Found) -> str:
    """What a model of this recipe is told of an image, in words; "" for nothing."""
    data = recipe.data
    masks = [f"{found.codec_mask.classes} classes"] if found.codec_mask.classes else []
    values = {"label": found.classes, "mask": masks, **found.categories}
    return ", ".join(f"{name} ({', '.join(values[name])})" if values.get(name) else name for name in data.condition)


def _values(codec: CodecConfig) -> str:
    return f"{codec.kind} codec [{codec.low}, {codec.high}] {codec.unit}"
