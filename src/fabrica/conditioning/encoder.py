"""What a model is told of an image, from words to the arrays that networks take: the same way for a training image,
whose manifest says it, and for an image to be made, of which a user says it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fabrica.data.metadata import age as years
from fabrica.errors import UsageError, unknown
from fabrica.image import Image
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe
from fabrica.text.tokenizer import PAD, Vocabulary, normalised, sentences, some_sentences

HEADINGS = re.compile(
    r"(findings|impression|comparison|indication|technique|history|examination|conclusion):|\(?\d+[.)]|[-*•]"
)

Known = Mapping[str, str]
"""label, text, age, sex, view -> what is known of an image; what is "" or not there is not known."""
Asked = str | float | Image | None | Sequence[str | float | Image | None]
"""One value for all images, or one an image; of masks, label maps."""
Encoded = dict[str, npt.NDArray[Any]]
"""Condition -> its values (B, ...), one an image, as networks take them: see `fabrica.nets.conditions`."""


class Reads(Protocol):
    """An encoder of text that others have trained, see `fabrica.text.frozen_encoder.FrozenEncoder`."""

    def features(self, texts: Sequence[str]) -> Any: ...
    def left_out(self, text: str) -> str: ...


@dataclass(frozen=True)
class ConditionEncoder:
    """Turns what is known of images into what networks take.

    names        what images are told, as in data.condition.
    categories   condition -> the values it may have, in the order of their numbers; the label's, too.
    vocabulary   of the reports; seen: its tokens that occur in the training reports. The others mean nothing to the
                 network.
    reader       what reads texts in their place, where the recipe uses a frozen encoder: it knows all words.
    """

    names: tuple[str, ...]
    categories: Mapping[str, Sequence[str]]
    vocabulary: Vocabulary
    seen: frozenset[int]
    context: int
    excerpts: float = 0.0
    frozen_encoder: Reads | None = None

    def excerpt(self, text: str, rng: np.random.Generator) -> str:
        """What is shown of a report in training: all of it, or some of its sentences."""
        return some_sentences(text, rng) if rng.random() < self.excerpts else text

    def encode(self, known: Sequence[Known]) -> Encoded:
        """The values of every condition but masks, (B,) or, of text, (B, at most context, ...): see
        `fabrica.nets.conditions`. What cannot be told, see `legible`, is not known."""
        found: Encoded = {}
        for name in self.names:
            said = [self.legible(name, one.get(name, "")) for one in known]
            if name == "text" and self.frozen_encoder:
                found[name] = self.frozen_encoder.features([body(text) for text in said]).numpy()
            elif name == "text":
                ids = np.stack([self.vocabulary.encode(self._read(text)[0], self.context).ids for text in said])
                longest = int((ids != PAD).sum(axis=1).max())
                found[name] = ids[:, :longest]  # more padding would take time and say nothing
            elif name == "age":
                found[name] = np.array([float(age) if age else math.nan for age in said], dtype=np.float32)
            elif name in self.categories:
                values = list(self.categories[name])
                found[name] = np.array([values.index(value) if value else -1 for value in said], dtype=np.int64)
        return found

    def legible(self, name: str, value: str) -> str:
        """What is known of an image as far as this model can be told it: as it is, or "" for a value that no training
        image had, an age that is none, a text without a word that the model knows."""
        if name in self.categories:
            return value if value in self.categories[name] else ""
        if name == "age":
            return years(value)
        return value if name != "text" or self._can_read(value) else ""

    def asked(self, n: int, seed: int, conditions: Mapping[str, Asked]) -> list[dict[str, str]]:
        """What n images are told, by condition, masks excepted: one value for all of them, or one each, None or "" for
        what is not known. Of a model that is told nothing but a label, the classes come in turn, by seed, unless it is
        given; anything else that is not there is left open.

        Raises UsageError for what no image is told, values that there are not, and other numbers of them than images.
        """
        given = dict(conditions)
        for name in given:
            if name not in self.names:
                knows = f"it is told {', '.join(self.names)}" if self.names else "it is told nothing"
                raise UsageError(f"the model is told no {name} of an image ({knows}); leave it out")
        if self.names == ("label",):
            classes = self.categories["label"]
            given.setdefault("label", [classes[(seed + k) % len(classes)] for k in range(n)])
        found: list[dict[str, str]] = [{} for _ in range(n)]
        for name, values in given.items():
            if name == "mask":
                continue
            each = (
                [values] * n
                if values is None or isinstance(values, str | int | float | np.number | Image)
                else list(values)
            )
            if len(each) != n:
                raise UsageError(f"{len(each)} values of {name} for {n} images; expected one each, or one for all")
            for known, value in zip(found, each, strict=True):
                known[name] = self._value(name, value)
        return found

    def _value(self, name: str, value: object) -> str:
        """What a user says of one image, as a manifest would; UsageError for what cannot be."""
        if isinstance(value, int | float | np.number):
            value = "" if math.isnan(value) else f"{float(value):g}"
        said = "" if value is None else str(value).encode("utf-8", "replace").decode()  # half a surrogate pair
        if name in self.categories and said and said not in self.categories[name]:
            raise unknown(name, said, self.categories[name])
        if name == "age" and said and not years(said):
            raise UsageError(f"age is {said!r}; expected years, e.g. 57")
        return said

    def notes(self, known: Sequence[Known]) -> list[str]:
        """What the model does not get to see of what is asked, a sentence each. Raises UsageError as `misread`."""
        if "text" not in self.names:
            return []
        texts = list(dict.fromkeys(one.get("text", "") for one in known))
        if not any(text.strip() for text in texts):
            return ["the model draws what a text says, and there is none: anything may come; add a prompt"]
        return [note for text in texts for note in self.misread(text)]

    def misread(self, text: str) -> list[str]:
        """What of a prompt a network does not get to see, a sentence each.

        Raises UsageError for a prompt of which nothing is left."""
        if self.frozen_encoder:
            return self._longer(self.frozen_encoder.left_out(body(text)))
        if not self._can_read(text):
            raise UsageError(
                f"no word of the prompt {_short(text)} occurs in the reports that the model has learned from; write as "
                "those reports are written, or leave the prompt out"
            )
        read, strange = self._read(text)
        strange = [*_passed_over(text), *strange]
        notes = [f"not in the training reports, and left out: {_short(' '.join(strange))}"] if strange else []
        return notes + self._longer(self.vocabulary.encode(read, self.context).left_out)

    def _longer(self, left_out: str) -> list[str]:
        if not left_out:
            return []
        return [f"the model reads {self.context - 2} tokens, and the prompt is longer: {_short(left_out)}"]

    def _can_read(self, text: str) -> bool:
        """Whether a word is left of a text that says something; of one that says nothing, yes."""
        return (
            self.frozen_encoder is not None or not text.strip() or any(sign.isalpha() for sign in self._read(text)[0])
        )

    def _read(self, text: str) -> tuple[str, list[str]]:
        """What of a text the network reads, and its words that no training report has taught."""
        said = body(text)
        if not self._unseen(said):
            return said, []
        words = normalised(said).split()
        strange = {word for word in words if self._unseen(word)}
        return " ".join(word for word in words if word not in strange), [word for word in words if word in strange]

    def _unseen(self, text: str) -> frozenset[int]:
        return frozenset(self.vocabulary.tokens(text)) - self.seen


def body(text: str) -> str:
    """What a report says, without its headings."""
    return " ".join(sentences(text)) or text


def _passed_over(text: str) -> list[str]:
    """The words of a text that stand in none of its sentences, but for the headings and numbers of a report."""
    read = Counter(normalised(body(text)).split())
    found = []
    for word in normalised(text).split():
        if read[word]:
            read[word] -= 1
        elif not HEADINGS.fullmatch(word):
            found.append(word)
    return found


UNCONDITIONAL = ConditionEncoder((), {}, Vocabulary(), frozenset(), 0)  # of models that are told nothing


def _short(text: str, most: int = 60) -> str:
    return f"“{text}”" if len(text) <= most else f"“{text[:most].rstrip()} …”"


def condition_encoder(
    recipe: Recipe,
    found: Found,
    vocabulary: Vocabulary | None = None,
    seen: Iterable[int] = (),
    frozen_encoder: Reads | None = None,
) -> ConditionEncoder:
    """The one that says what this recipe's networks are told."""
    text, words = found.text, vocabulary or Vocabulary()
    categories = {"label": found.classes, **found.categories}
    return ConditionEncoder(
        tuple(recipe.data.condition), categories, words, frozenset(seen), text.context, text.excerpts, frozen_encoder
    )
