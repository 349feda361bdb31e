"""What a reader study is asked: one YAML file, parsed and checked before any image is opened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from fabrica.errors import UsageError, unknown
from fabrica.recipe.load import typed
from fabrica.recipe.values import read
from fabrica.serving.study.design import ALLOCATIONS, KINDS

TRUTHS = ("real", "synthetic")
MARKS = ("click", "box")
OF = "study"
ONE = "image"  # the one arm of a design in which every image is a case of its own
CLARITY = ("not diagnostic", "poor", "fair", "good", "excellent")
CONFIDENCE = ("guessing", "rather unsure", "rather sure", "certain")
QUESTIONS = {
    "clarity": "How clear is this image?",
    "real-or-synthetic": "Is this image real or synthetic?",
    "preference": "Which image is better?",
    "detection": "Is there a lesion?",
}


@dataclass(frozen=True)
class Arm:
    """One of what is compared, and where its images come from.

    images  a folder in any layout, or a manifest; a relative path starts from the config's folder.
    where   column of a manifest -> value: only these rows, e.g. {split: test}.
    model   instead of images, the folder of a model: applied to the images of the arm `of`, or, of a model that
            synthesises, `count` images from `seed` on.
    truth   real or synthetic, of the kind real-or-synthetic.
    """

    name: str = ""
    images: str = ""
    where: dict[str, str] = field(default_factory=dict)
    model: str = ""
    of: str = ""
    count: int = 0
    seed: int = 0
    truth: str = ""


@dataclass(frozen=True)
class StudyConfig:
    """What a study is; see docs/study.md. Lists are kept in the order of the file.

    scale       of clarity: the scores' anchors in words, the lowest (1) first.
    confidence  of real-or-synthetic and detection: how sure, in words, the least first.
    ties        of a preference: "no difference" may be answered.
    mark        of a detection: where the lesion is, by a click or a box.
    truth       of a detection: a table (.csv), or a folder of label maps.
    paired      whether all arms hold the same cases; None: not of real-or-synthetic, but of all others. If not, every
                image is a case of its own.
    compare     pairs of arms, the first less the second; the first pair is the primary question. Empty: all pairs, the
                later less the earlier.
    margin      of equivalence, stated before the study: in scores, or in shares; 0: none is tested.
    training, catch   cases that count for nothing: shown first with feedback, or strewn among the others; each with
                the answers that are right, [] where the truth says it.
    window      [centre, width] in the images' unit, the same for all; empty: what the images agree on.
    bits        of the grey values that are shown.
    adjust      whether readers may change the window, all from the same one.
    The others are those of `fabrica.serving.study.design.Design`.
    """

    kind: str = ""
    title: str = ""
    question: str = ""
    arms: list[Any] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    scale: list[str] = field(default_factory=lambda: list(CLARITY))
    confidence: list[str] = field(default_factory=lambda: list(CONFIDENCE))
    ties: bool = True
    mark: str = "click"
    truth: str = ""
    paired: bool | None = None
    compare: list[Any] = field(default_factory=list)
    margin: float = 0.0
    allocation: str = "all"
    groups: int = 1
    anchors: int = 0
    washout: int = 0
    repeats: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    catch: dict[str, Any] = field(default_factory=dict)
    window: list[float] = field(default_factory=list)
    bits: int = 8
    adjust: bool = True
    seed: int = 0

    @property
    def crossed(self) -> bool:
        """Whether all arms hold the same cases."""
        return self.kind != "real-or-synthetic" if self.paired is None else self.paired

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arms."""
        return tuple(arm.name for arm in self.arms)

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """The pairs of arms that are compared, the first less the second."""
        if self.compare:
            return [(one, two) for one, two in self.compare]
        return [(later, earlier) for earlier, later in combinations(self.names, 2)]

    def arm(self, name: str) -> Arm:
        found: Arm = next(arm for arm in self.arms if arm.name == name)
        return found


def load_config(path: str | Path) -> StudyConfig:
    """The config in a YAML file. Raises UsageError, one line, for whatever is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no config at {path}; docs/study.md shows one to begin with")
    try:
        raw = read(path.read_text(encoding="utf-8"))
    except Exception as error:  # yaml and omegaconf raise many types here; all mean the same to the user
        raise UsageError(f"{path} is not valid YAML: {str(error).strip().splitlines()[0]}") from error
    if not isinstance(raw, dict) or "${" in str(raw):
        raise UsageError(f"{path} must hold keys and plain values, such as kind: clarity")
    return parsed(raw)


def parsed(raw: dict[Any, Any]) -> StudyConfig:
    """The config of plain values, checked."""
    raw = dict(raw)
    if isinstance(number := raw.get("readers"), int) and not isinstance(number, bool):
        raw["readers"] = [f"reader {i + 1}" for i in range(number)]
    for key in ("training", "catch"):
        if isinstance(listed := raw.get(key), list):
            raw[key] = {str(case): [] for case in listed}
    config = typed(StudyConfig, raw, of=OF)
    arms = [_arm(each, i) for i, each in enumerate(config.arms)]
    found = replace(
        config, arms=arms, compare=[list(pair) if isinstance(pair, list) else pair for pair in config.compare]
    )
    if config.kind in QUESTIONS and not config.question:
        found = replace(found, question=QUESTIONS[config.kind])
    _check(found)
    return found


def _arm(raw: Any, place: int) -> Arm:
    if isinstance(raw, Arm):
        return raw
    if not isinstance(raw, dict):
        raise UsageError(
            f"study key arms[{place}] is {raw!r}; expected names and values, such as {{name: A, images: a}}"
        )
    return typed(Arm, raw, f"arms[{place}].", OF)


def _check(config: StudyConfig) -> None:
    if config.kind not in KINDS:
        raise unknown("kind of study", config.kind, KINDS)
    if config.allocation not in ALLOCATIONS:
        raise unknown("allocation", config.allocation, ALLOCATIONS)
    words = (*config.scale, *config.confidence)
    expectations = [
        (bool(config.readers), "readers are missing; expected a number, or names that stand for them, such as [A, B]"),
        (len(config.scale) >= 2, f"scale has {len(config.scale)} anchors; expected two or more, the lowest first"),
        (len(config.confidence) >= 1, "confidence has no words; expected one or more, the least sure first"),
        (all(word.strip() for word in words), "scale or confidence holds an empty anchor; expected words"),
        (len(set(config.scale)) == len(config.scale), "scale holds an anchor twice; expected different words"),
        (config.mark in MARKS, f"mark is {config.mark!r}; expected {' or '.join(MARKS)}"),
        (config.margin >= 0, f"margin is {config.margin:g}; expected 0 (no equivalence is tested) or more"),
        (1 <= config.bits <= 16, f"bits is {config.bits}; expected 1 to 16"),
        (len(config.window) in (0, 2), f"window is {config.window}; expected [centre, width]"),
        (len(config.window) != 2 or config.window[1] > 0, f"window is {config.window}; expected a width above 0"),
        (0 <= config.seed < 2**31, f"seed is {config.seed}; expected 0 to {2**31 - 1}"),
        (
            bool(config.truth) == (config.kind == "detection"),
            "truth says where lesions are, and belongs to a detection: give a table (.csv) or a folder of label maps"
            if config.kind == "detection"
            else f"truth belongs to a detection; found the kind {config.kind}",
        ),
        (
            config.crossed or config.kind == "real-or-synthetic",
            f"paired is false; arms of a {config.kind} hold the same cases, or nothing could be compared",
        ),
    ]
    for holds, message in expectations:
        if not holds:
            raise UsageError(message)
    _check_arms(config)
    _check_compare(config)
    can_be: dict[str, Any] = {
        "clarity": range(1, len(config.scale) + 1),
        "real-or-synthetic": TRUTHS,
        "preference": (*config.names, ""),
        "detection": ("none", "lesion"),
    }
    for key, cases in (("training", config.training), ("catch", config.catch)):
        for case, right in cases.items():
            if not isinstance(right, list):
                raise UsageError(f"{key}: {case} is {right!r}; expected a list of the answers that are right, or []")
            for each in right:
                if each not in can_be[config.kind]:
                    listed = ", ".join(str(answer) or "'' (no difference)" for answer in can_be[config.kind])
                    raise UsageError(f"{key}: {case} has the right answer {each!r}; expected of {listed}")


def _check_arms(config: StudyConfig) -> None:
    if not config.arms:
        raise UsageError("arms are missing; expected a list, such as - {name: restored, images: restored/}")
    for i, arm in enumerate(config.arms):
        where = f"arms[{i}]"
        if not arm.name.strip() or arm.name == ONE or set("|/") & set(arm.name):
            raise UsageError(f"{where}.name is {arm.name!r}; expected a name without | and /, and not {ONE!r}")
        if bool(arm.images) == bool(arm.model):
            raise UsageError(f"arm {arm.name} has {'both' if arm.images else 'neither'} images and model; expected one")
        if arm.model and bool(arm.of) == bool(arm.count):
            raise UsageError(
                f"arm {arm.name} is of a model; expected either of (the arm that it is applied to) or count (how many "
                "images it draws)"
            )
        if arm.images and (arm.of or arm.count):
            raise UsageError(f"arm {arm.name} has images; of and count belong to a model")
        if arm.of and (arm.of not in config.names[:i]):
            raise UsageError(f"arm {arm.name} is made of {arm.of!r}; expected an arm above it")
        if arm.count < 0:
            raise UsageError(f"arm {arm.name}: count is {arm.count}; expected 1 or more")
        if config.kind == "real-or-synthetic" and arm.truth not in TRUTHS:
            raise UsageError(f"arm {arm.name}: truth is {arm.truth!r}; expected real or synthetic")
        if config.kind != "real-or-synthetic" and arm.truth:
            raise UsageError(f"arm {arm.name}: truth belongs to the kind real-or-synthetic; found {config.kind}")
    if len(set(config.names)) < len(config.names):
        raise UsageError(f"arms are {', '.join(config.names)}; expected names that differ")
    if config.kind == "real-or-synthetic" and {arm.truth for arm in config.arms} != set(TRUTHS):
        raise UsageError("all arms are real, or all synthetic; expected at least one of each")


def _check_compare(config: StudyConfig) -> None:
    for pair in config.compare:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise UsageError(f"compare holds {pair!r}; expected pairs of arms, such as [restored, degraded]")
        for name in pair:
            if name not in config.names:
                raise unknown("arm to compare", str(name), config.names)
