"""What a recipe must hold together, said before anything runs."""

from __future__ import annotations

from fabrica.errors import UsageError, unknown
from fabrica.recipe.plan import laid
from fabrica.recipe.schema import CONDITIONS, DEGRADED, FITS, KEEPS, SCALES, USES, Recipe
from fabrica.text.tokenizer import LEAST

CHANGES = ("crop", "flip", "jitter", "turn", "zoom", "bend", "gamma", "scanner", "apart")  # of training images


def check(recipe: Recipe) -> None:
    data, train = recipe.data, recipe.train
    planned = recipe.method.get("name") == "segment"
    if (len(data.size) not in (2, 3) or min(data.size) < 1) and not (planned and not data.size):
        raise UsageError(f"data.size is {data.size}; expected [H, W] or [D, H, W] of positive numbers")
    expectations: list[tuple[bool, str]] = [
        (data.batch >= 1 or planned, f"data.batch is {data.batch}; expected at least 1"),
        (data.channels >= 1, f"data.channels is {data.channels}; expected at least 1"),
        (
            data.fit in FITS,
            f"data.fit is {data.fit!r}; expected one of {', '.join(FITS)}",
        ),
        (data.scale in SCALES, f"data.scale is {data.scale!r}; expected one of {', '.join(SCALES)}"),
        (data.slices in ("middle", "all"), f"data.slices is {data.slices!r}; expected middle or all"),
        (
            data.crop <= min(data.size or [data.crop]),
            f"data.crop is {data.crop} and data.size {data.size}; a crop must fit into the image",
        ),
        (
            data.restores == bool(data.degrade),
            "data.a=degraded and data.degrade belong together: what is restored, and from what",
        ),
        (not data.restores or data.paired, "data.a is degraded, so each image has its own: set data.paired=true"),
        (data.context == 0 or len(data.size) in (0, 2), "data.context is for slices; leave it 0 with a 3-D data.size"),
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
        (recipe.quantise in ("", "int8"), f"quantise is {recipe.quantise!r}; expected int8, or nothing"),
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
        (
            min(recipe.distill.answers, recipe.distill.features, recipe.distill.own) >= 0
            and recipe.distill.answers + recipe.distill.features > 0,
            f"distill.answers is {recipe.distill.answers}, features {recipe.distill.features} and own "
            f"{recipe.distill.own}; expected weights of 0 or more, and one of the first two above 0",
        ),
        (recipe.distill.temperature > 0, f"distill.temperature is {recipe.distill.temperature}; expected more than 0"),
        ("name" in recipe.method, "method.name is missing, e.g. method: {name: diffusion}"),
    ]
    for key in ("context", "crop", "jitter", "turn", "zoom", "bend", "gamma", "scanner", "apart", "depth"):
        found = getattr(data, key)
        expectations.append((found >= 0, f"data.{key} is {found}; expected 0 or more"))
    for key in ("patients", "pairs"):
        found = getattr(recipe.few, key)
        expectations.append((found >= 0, f"few.{key} is {found}; expected 0 (not asked) or more"))
    expectations.append((train.patience >= 0, f"train.patience is {train.patience}; expected 0 or more"))
    no_best = f"train.patience is {train.patience}, and with train.keep=last no weights are the best; leave one out"
    expectations.append((not (train.patience and train.keep == "last"), no_best))
    counts = ("accumulate", "devices")
    periods = ("checkpoint_every", "validate_every", "sample_every", "log_every", "monitor_every")
    for key in (*counts, *periods):
        found = getattr(train, key)
        expectations.append((found >= 1, f"train.{key} is {found}; expected at least 1"))
    for player, rate in train.lr_of.items():
        expectations.append((0 <= rate < 1, f"train.lr_of.{player} is {rate}; expected 0 to below 1"))
    for holds, message in expectations:
        if not holds:
            raise UsageError(message)
    _check_regions(recipe)
    for name in data.condition:
        if name not in CONDITIONS or data.condition.count(name) > 1:
            raise UsageError(
                f"data.condition is {', '.join(data.condition)}; expected each at most once of {', '.join(CONDITIONS)}"
            )
    _check_auxiliary(recipe)
    _check_uses(recipe)


def _check_regions(recipe: Recipe) -> None:
    regions = recipe.data.regions
    if regions and recipe.method.get("name") != "segment":
        raise UsageError("data.regions is for segmentation; take the recipe segment, or leave it empty")
    for name, numbers in regions.items():
        if not numbers or min(numbers) < 1:
            raise UsageError(
                f"data.regions: {name} is {numbers}; expected numbers of the label maps from 1, e.g. "
                "{whole: [1, 2, 3], core: [2, 3]}"
            )
    laid(regions)


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
    if "plan" in recipe.uses and recipe.method.get("name") != "segment":
        raise UsageError("uses.plan is for segmentation; take the recipe segment, or leave it out")
    changes = [
        key
        for key in ("crop", "flip", "jitter", "turn", "zoom", "bend", "gamma", "scanner")
        if getattr(recipe.data, key)
    ]
    if "autoencoder" in recipe.uses and changes:
        raise UsageError(
            f"data.{changes[0]} changes images, and with uses.autoencoder these are encoded once; leave it out, or "
            "train the autoencoder with it"
        )
    if "teacher" in recipe.uses and recipe.method.get("name") == "distill" and changes:
        raise UsageError(
            f"data.{changes[0]} changes images, and with uses.teacher none is looked at; leave it out, or train the "
            "teacher with it"
        )


def _check_auxiliary(recipe: Recipe) -> None:
    data, auxiliary, codecs = recipe.data, recipe.data.auxiliary, recipe.codecs_auxiliary
    segments = recipe.method.get("name") == "segment"
    if auxiliary and not (data.restores or segments):
        raise UsageError(
            "data.auxiliary is for restoration and segmentation; set data.a=degraded and data.degrade, or leave it "
            "empty"
        )
    if auxiliary and segments and data.a in ("", "image"):
        raise UsageError(
            f"data.auxiliary is {auxiliary} and data.a {data.a!r}; name the contrast that these stand beside, e.g. "
            "data.a=t1, or leave both out: then all are used that every training case has"
        )
    side, other = ("a", data.a) if segments else ("b", data.b)
    for name in auxiliary:
        if name in ("", "mask", "image", DEGRADED, other) or auxiliary.count(name) > 1:
            raise UsageError(
                f"data.auxiliary is {auxiliary}; expected contrasts other than {other} (data.{side}), each once: "
                f"take {name!r} out"
            )
    if len(codecs) not in (0, len(auxiliary)):
        raise UsageError(
            f"codecs_auxiliary holds {len(codecs)} codecs for {len(auxiliary)} contrasts of data.auxiliary; "
            "expected one each, or none: then the images decide"
        )
    if any(codec.kind == "label" for codec in codecs):
        raise UsageError("codecs_auxiliary: kind is label; what stands beside a has grey values: take auto")
