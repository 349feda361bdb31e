"""The model card, README.md of a model folder."""

from __future__ import annotations

from fabrica import __version__
from fabrica.conditioning.declare import described
from fabrica.methods import Method, networks
from fabrica.model.tasks import task_of
from fabrica.recipe.folder import AUTOENCODER, READER
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe


def card(recipe: Recipe, found: Found, method: Method, kept: str) -> str:
    """kept: which weights these are."""
    parameters = sum(p.numel() for net in networks(method, method.ships) for p in net.parameters())
    size, codec = " x ".join(str(side) for side in recipe.data.size), found.codec
    rows = {
        "method": f"{found.method['name']}, {parameters / 1e6:.1f} M parameters",
        "images": f"{recipe.data.channels} x {size}, {codec.kind} codec [{codec.low}, {codec.high}] {codec.unit}",
        "trained on": recipe.data.source,
        "conditions": described(recipe, found) or "none",
        "weights kept": kept,
        "made with": f"Fabrica {__version__}, seed {recipe.seed}",
    }
    more, use, warning = task_of(method).card(recipe, found, method)
    rows |= more
    lines = "\n".join(
        f"    {line}" for line in [*use, f"fabrica evaluate FOLDER --against {recipe.data.source} -o report"]
    )
    if "teacher" in found.uses:
        rows["distilled from"] = f"{found.uses['teacher']}, which the model no longer needs"
    if "autoencoder" in found.uses:
        rows["works on"] = f"latents of the autoencoder in {AUTOENCODER}/"
    if "text" in found.uses:
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
