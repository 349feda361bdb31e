"""The model card, README.md of a model folder."""

from __future__ import annotations

from fabrica import __version__
from fabrica.conditioning.declare import described
from fabrica.methods import Compressor, Method, Translator, networks
from fabrica.recipe.folder import AUTOENCODER, READER
from fabrica.recipe.held_out import useless, worth
from fabrica.recipe.schema import CodecConfig, Recipe


def card(recipe: Recipe, method: Method, kept: str) -> str:
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
            if said := worth(recipe.held_out(direction)):
                rows["held out" if direction == "a2b" else "held out, b to a"] = said
            if said := useless(recipe.held_out(direction)):
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
