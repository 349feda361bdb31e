"""The words of training reports: learned, kept, loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from fabrica.conditioning.encoder import ConditionEncoder, body
from fabrica.errors import FabricaError, UsageError
from fabrica.io.atomic import atomic
from fabrica.recipe.schema import Recipe
from fabrica.text.tokenizer import FIRST, Vocabulary, learn

LEAST_TEXTS = 2


def learned(recipe: Recipe, texts: Iterable[str]) -> tuple[Vocabulary, frozenset[int]]:
    """The vocabulary of the training reports, and those of its tokens that occur in them.

    Raises UsageError where there are no reports."""
    said = [body(text) for text in texts if text.strip()]
    if len(said) < LEAST_TEXTS:
        raise UsageError(
            f"{len(said)} training images have a text and data.condition names text: scan reports with --labels, or "
            "leave text out of data.condition"
        )
    vocabulary = learn(said, recipe.text.tokens)
    return vocabulary, frozenset(token for text in said for token in vocabulary.tokens(text))


def save_words(path: Path, told: ConditionEncoder) -> None:
    """Write a vocabulary as JSON: its merges, and the tokens that occur in the training reports."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"merges": told.vocabulary.merges, "seen": sorted(told.seen)}), "utf-8")


def load_words(path: Path) -> tuple[Vocabulary, frozenset[int]]:
    """What `save_words` has written. Raises FabricaError for a file that is missing or damaged."""
    try:
        raw = json.loads(path.read_text("utf-8"))
        vocabulary = Vocabulary(raw["merges"])
        seen = frozenset(int(token) for token in raw["seen"])
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise FabricaError(
            f"{path} is missing or damaged ({error}); take it from where the model was trained"
        ) from error
    if any(not FIRST <= token < len(vocabulary) for token in seen):
        raise FabricaError(f"{path} is damaged: it names tokens that it has not; take it from where it was trained")
    return vocabulary, seen
