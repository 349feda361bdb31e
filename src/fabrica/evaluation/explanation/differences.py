"""What a label, a finding or a word of a prompt draws: images of the same seeds that are told it, and told something
else or nothing. All else is the same, noise included, so that their difference is what it changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fabrica.conditioning.encoder import Asked
from fabrica.errors import UsageError, did_you_mean, unknown
from fabrica.evaluation.explanation.lesions import of_phantoms, reports
from fabrica.image import Float32, Float64, Image
from fabrica.inference.synthesis import Synthesises
from fabrica.phantoms.chest.chest import FINDINGS
from fabrica.progress import Progress

NORMAL = ("normal", "healthy", "no finding", "none", "well")  # what classes of the healthy are called
MOST_CLASSES = 8  # that are explained where none is named


@dataclass(frozen=True)
class Comparison:
    """What is told, and what is told instead. finding: the one of the chest phantoms that alone tells both apart, ""
    where none does, or nobody knows where it lies."""

    name: str
    told: Mapping[str, Asked]
    instead: Mapping[str, Asked]
    finding: str = ""


@dataclass(frozen=True, eq=False)
class Difference:
    """Images drawn twice of the same seeds, in physical units: told and instead (n, C, *S)."""

    comparison: Comparison
    seeds: Sequence[int]
    told: Float32
    instead: Float32
    words: Sequence[tuple[Mapping[str, str], Mapping[str, str]]] = field(default_factory=tuple)

    @property
    def maps(self) -> Float32:
        """(n, *S): the images less those that were told something else, the mean over channels."""
        found: Float32 = (self.told - self.instead).mean(1)
        return found

    @property
    def of_seeds(self) -> Float32:
        """(n, *S): of each image the absolute difference to that of the next seed that was told the same."""
        found: Float32 = np.abs(self.told - np.roll(self.told, -1, 0)).mean(1)
        return found

    @property
    def mean(self) -> Float64:
        found: Float64 = self.maps.mean(0, dtype=np.float64)
        return found

    @property
    def error(self) -> Float64:
        """(*S): the standard error of the mean; NaN of one seed."""
        count = len(self.maps)
        if count < 2:
            return np.full(self.maps.shape[1:], np.nan)
        found: Float64 = self.maps.std(0, ddof=1, dtype=np.float64) / np.sqrt(count)
        return found

    @property
    def size(self) -> float:
        """The mean absolute difference, in the image's unit."""
        return float(np.abs(self.maps).mean())

    @property
    def share(self) -> float | None:
        """The same as a share of that between two seeds; None of one seed."""
        between = float(self.of_seeds.mean())
        return self.size / between if len(self.seeds) > 1 and between > 0 else None


def drawn(
    model: Synthesises,
    comparison: Comparison,
    n: int,
    seed: int,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
    **choices: Any,
) -> Difference:
    """n images of the seeds from `seed` on, told the one and the other. warn: as in `Synthesises.sample_array`, of what
    is told, not of what is told instead, perhaps nothing. choices: as there."""
    made, known = [], []
    for conditions, tell in ((comparison.told, warn), (comparison.instead, lambda note: None)):
        values = model.sample_array(n, seed=seed, conditions=conditions, progress=progress, warn=tell, **choices)
        made.append(np.stack([model.codec.decode(one) for one in values]))
        known.append(model.known(n, seed=seed, conditions=conditions))
    words = list(zip(*known, strict=True))
    return Difference(comparison, range(seed, seed + n), made[0], made[1], words)


def comparisons(
    model: Synthesises,
    n: int,
    seed: int,
    *,
    conditions: Mapping[str, Any] | None = None,
    instead: Sequence[str] = (),
    word: str = "",
    finding: str = "",
) -> list[Comparison]:
    """What is to be compared.

    conditions   what all images are told, `label`, `text`, `age`, `sex`, `view` and `mask`, of which one changes.
    instead      what is told in its place: a value, or "name=value" where it is not plain which one changes; "" for
                 nothing. None: of a label the class of the healthy, of a text and of the rest nothing.
    word         a word, or words, of the text that are left out in its place.
    finding      one of the chest phantoms' FINDINGS, for models of chest phantoms that are told labels or reports.

    Without any of these: every class, or every finding. Raises UsageError.
    """
    given = {name: value for name, value in (conditions or {}).items() if value is not None}
    names = model.encoder.names
    if not names:
        raise UsageError(
            f"model {model.name} is told nothing of an image, so that there is nothing to leave out; train one that is "
            "told labels or reports: data.condition=label"
        )
    if finding:
        if set(given) - {"mask"} or instead or word:
            raise UsageError("a finding (--finding) says what is told and what instead; leave the rest out")
        return [_of_finding(model, finding, n, seed)]
    if word and "text" not in given:
        raise UsageError("a word (--word) is left out of a text; give the text, too (--prompt)")
    if set(given) - {"mask"}:
        changed = _instead(model, given, instead) if not word else {"text": _without(model, str(given["text"]), word)}
        return [_checked(model, given, changed, word)]
    if instead:
        raise UsageError(f"instead ({', '.join(instead)}) of what? say what is told, e.g. --label")
    if "text" in names and of_phantoms(model):
        return [_of_finding(model, each, n, seed) for each in FINDINGS]
    if "label" in names:
        usual = _usual(model)
        classes = [each for each in model.encoder.categories["label"] if each != usual][:MOST_CLASSES]
        return [_checked(model, {**given, "label": each}, {"label": usual}) for each in classes]
    words = {"text": "prompt"}
    options = ", ".join(f"--{words.get(name, name)}" for name in names if name != "mask")
    raise UsageError(f"say what to explain: {options or 'nothing but masks are told to this model'}")


def _checked(model: Synthesises, given: Mapping[str, Any], changed: Mapping[str, Any], word: str = "") -> Comparison:
    """The comparison, both sides of which the model can be told; UsageError else."""
    other = {**given, **changed}
    for told in (given, other):
        model.known(1, conditions={name: value for name, value in told.items() if name != "mask"})
    if all(str(given.get(name, "")) == str(value) for name, value in changed.items()):
        raise UsageError(f"{_named(changed)} is told on both sides; give something else instead")
    own = {name: given.get(name, "") for name in changed}
    said = f"{_named(own)} with and without “{word}”" if word else f"{_named(own)} instead of {_named(changed)}"
    label = str(given.get("label", ""))
    only = set(given) == set(changed) == {"label"}
    known = only and label in FINDINGS and changed["label"] == "normal" and of_phantoms(model)
    return Comparison(said, given, other, label if known else "")


def _named(values: Mapping[str, Any]) -> str:
    said = []
    for name, value in values.items():
        if isinstance(value, Image):
            said.append("a mask")
        elif value in ("", None):
            said.append(f"no {'prompt' if name == 'text' else name}")
        else:
            said.append(f"“{value}”" if name == "text" else f"{name} {value}" if name != "label" else str(value))
    return ", ".join(said)


def _instead(model: Synthesises, given: Mapping[str, Any], instead: Sequence[str]) -> dict[str, Any]:
    known = [name for name in given if name != "mask"]
    names = {("prompt" if name == "text" else name): name for name in known}
    changed: dict[str, Any] = {}
    for each in instead:
        name, equals, value = each.partition("=")
        if equals and name in names:
            changed[names[name]] = value
        elif len(known) == 1:
            changed[known[0]] = each
        else:
            raise UsageError(
                f"{', '.join(names)} are told; say which of them changes, e.g. --instead {next(iter(names))}={each}"
                f"{did_you_mean(name, names) if equals else ''}"
            )
    if not instead and len(known) > 1:
        raise UsageError(
            f"{', '.join(names)} are told; say which of them changes, and to what (perhaps nothing): --instead "
            f"{next(iter(names))}=VALUE"
        )
    if not instead:
        changed = {known[0]: _usual(model, str(given["label"])) if known[0] == "label" else ""}
    if changed.get("label") == "" and _always_told(model):
        raise UsageError(
            f"model {model.name} ({model.method_name}) always draws a class; name another one (--instead), e.g. "
            f"{_usual(model, str(given['label']))}"
        )
    return changed


def _always_told(model: Synthesises) -> bool:
    """Whether the network has learned nothing for a label that is not known, as GANs have not."""
    return "truncation" in model.choices


def _usual(model: Synthesises, label: str = "") -> str:
    """What classes are compared with: that of the healthy, else the other of two, else none, or the first other one."""
    classes = list(model.encoder.categories["label"])
    healthy = next((each for each in classes if each.lower() in NORMAL), "")
    others = [each for each in classes if each != label] if label else classes
    if healthy and healthy != label:
        return healthy
    return others[0] if len(classes) == 2 or _always_told(model) else ""


def _without(model: Synthesises, text: str, word: str) -> str:
    """The text without these words; UsageError where they are not in it, or where the model has never seen them."""
    found = re.sub(rf"(?<!\w){re.escape(word.strip())}(?!\w)", " ", text, flags=re.IGNORECASE)
    if found == text or not word.strip():
        words = dict.fromkeys(re.findall(r"\w[\w'-]*", text))
        raise UsageError(f"the prompt has no {word!r}{did_you_mean(word, words)}")
    model.encoder.misread(word)  # refuses what no training report has taught
    found = re.sub(r"\s+", " ", re.sub(r"\s+([.,;:])", r"\1", found)).strip()
    return found if any(sign.isalnum() for sign in found) else ""


def _of_finding(model: Synthesises, finding: str, n: int, seed: int) -> Comparison:
    names = model.encoder.names
    if finding not in FINDINGS:
        raise unknown("finding", finding, FINDINGS)
    if not {"label", "text"} & set(names):
        raise UsageError(f"model {model.name} is told {', '.join(names)} of an image, and no finding; leave it out")
    if not of_phantoms(model):
        raise UsageError(
            f"model {model.name} was not trained on square chest phantoms, and findings (--finding) are theirs; say "
            "what is told by --label or --prompt"
        )
    if "text" in names:
        told, instead = reports(finding, n, seed)
        return Comparison(f"reports with and without {finding}", {"text": told}, {"text": instead}, finding)
    return _checked(model, {"label": finding}, {"label": "normal"})
