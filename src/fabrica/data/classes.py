"""The classes and categories that images of a data set are told apart by."""

from __future__ import annotations

from fabrica.data.manifest_cache import load_manifest
from fabrica.data.phantom_source import PHANTOM_CATEGORIES, phantom_labels
from fabrica.data.sample import PHANTOM
from fabrica.errors import UsageError, did_you_mean
from fabrica.recipe.schema import CATEGORIES, DataConfig


def classes_of(config: DataConfig) -> tuple[str, ...]:
    """The names of labels 0, 1, ... where images are told their label; () elsewhere.

    Raises UsageError for images without label, labels that are no class, classes without training image.
    """
    if "label" not in config.condition:
        return ()
    if config.source.startswith(PHANTOM):
        return tuple(config.classes) or phantom_labels(config.source)
    rows = load_manifest(config.source).select(**config.where).rows
    found = {row.label for row in rows if row.split == "train"}
    classes = tuple(config.classes) or tuple(sorted(found - {""}))
    check_labels({(row.label, row.id) for row in rows if row.split}, classes)
    for name in classes:
        if name not in found:
            raise UsageError(f"class {name!r} has no training image in {config.source}; leave it out of data.classes")
    if not classes:
        raise UsageError(f"{config.source} has no labels; leave data.condition empty, or scan with --labels")
    return classes


def categories_of(config: DataConfig) -> dict[str, list[str]]:
    """The values of sex and view among the training images, sorted, where the network is told them.

    Raises UsageError for one of which fewer than two are known: there is nothing to tell."""
    found: dict[str, list[str]] = {}
    for name in CATEGORIES:
        if name not in config.condition:
            continue
        given = config.categories.get(name)
        if config.source.startswith(PHANTOM):
            values = given or PHANTOM_CATEGORIES[name] if config.source.split(":")[1] == "chest" else []
        else:
            rows = load_manifest(config.source).select(split="train", **config.where).rows
            values = given or sorted({getattr(row, name) for row in rows} - {""})
        if len(values) < 2:
            raise UsageError(
                f"data.condition names {name}, of which the training images of {config.source} know "
                f"{' and '.join(values) or 'nothing'}; leave it out, or scan with a table that has it (--labels)"
            )
        found[name] = values
    return found


def check_labels(found: set[tuple[str, str]], classes: tuple[str, ...]) -> None:
    """Raise UsageError for the first (label, id) whose label is no class."""
    strangers = sorted((label, id_) for label, id_ in found if label not in classes)
    if not strangers:
        return
    label, id_ = strangers[0]
    if not label:
        raise UsageError(
            f"{sum(not label for label, _ in strangers)} images have no label, the first is {id_}; "
            "with data.condition=label every image needs one: leave them out with data.where, or leave label out of "
            "data.condition"
        )
    raise UsageError(f"label {label!r} of {id_} is no class{did_you_mean(label, classes)}")
