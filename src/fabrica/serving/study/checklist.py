"""What reporting guidelines ask of a reader study, filled where its own files know the answer; and which of the
intervals hold, as it was measured."""

from __future__ import annotations

from dataclasses import dataclass

from fabrica.serving.study.config import StudyConfig
from fabrica.serving.study.readings import READING, Readings

WORDS = {
    "clarity": "scores on an ordinal scale",
    "real-or-synthetic": "real or synthetic, with confidence",
    "preference": "a choice among images side by side",
    "detection": "lesion or none, with its place and confidence",
}


@dataclass(frozen=True)
class Item:
    """An item of a guideline, in our words; answer "": the authors must say."""

    source: str
    asked: str
    answer: str = ""


def items(readings: Readings) -> list[Item]:
    """In the order of STARD 2015 (Bossuyt et al., BMJ 351:h5527), then CLAIM 2024 (Tejani et al., Radiology: AI
    6:e240300)."""
    config, study = readings.study.config, readings.study
    answered = len(readings.part(READING))
    due = sum(trial.part == READING for trial in study.trials)
    missing = sum(readings.due.values()) - len(readings.of)
    return [
        Item("STARD 5", "Were data collected before or after the reading was planned?"),
        Item("STARD 6–9", "Which patients, found how, where and when; consecutive, random or chosen?"),
        Item("STARD 10a", "How were images read?", _reading(config)),
        Item("STARD 10b", "What is the reference standard?", _reference(config)),
        Item("STARD 11", "Why this reference standard?"),
        Item("STARD 12a", "What do the grades mean?", _grades(config)),
        Item("STARD 13a", "What did readers know of the case?", _blinding(config)),
        Item("STARD 14", "How were figures estimated and compared?", _statistics(config)),
        Item("STARD 15", "What became of undecided answers?", _undecided(config)),
        Item(
            "STARD 16",
            "What became of missing answers?",
            f"{missing} trials without an answer; left out, none guessed.",
        ),
        Item("STARD 17", "What varied, and how was that looked at?", _variability(readings)),
        Item("STARD 18", "How was the number of readers and cases chosen?"),
        Item(
            "STARD 19",
            "How many took part?",
            f"{len(readings.readers)} of {len(config.readers)} readers, "
            f"{len(readings.cases)} cases, {answered} of {due} readings.",
        ),
        Item("STARD 20–21", "Who are the patients, and how ill?"),
        Item(
            "STARD 23",
            "Counts of answers against the reference",
            "Under Counts on this page."
            if _binary(config)
            else "No reference standard: scores and choices are under Counts.",
        ),
        Item("STARD 24", "Estimates and their precision", "Under Figures on this page, with 95 % intervals."),
        Item("STARD 26–27", "Limits, and what follows for practice?"),
        Item("STARD 28–30", "Registration, protocol, funding?"),
        Item(
            "CLAIM, data",
            "Where do images come from, and how was identity taken out?",
            "Readers saw bare grey values without any header; what the files of origin held is for the authors to say.",
        ),
        Item("CLAIM, model", "Which model, trained on what, with which weights?", _models(readings)),
        Item("CLAIM, evaluation", "Were test patients apart from those of training?"),
        Item(
            "CLAIM, failures",
            "Which cases failed, and why?",
            "Pictures of the most telling cases are on this page; why, the authors must say.",
        ),
    ]


def _binary(config: StudyConfig) -> bool:
    return config.kind in ("real-or-synthetic", "detection")


def _reading(config: StudyConfig) -> str:
    order = f"{config.allocation} allocation, an order of each reader's own, seed {config.seed}"
    washout = f", at least {config.washout} other trials between two showings of one case" if config.crossed else ""
    practice = f", after {len(config.training)} practice cases with feedback" if config.training else ""
    return f"“{config.question}”: {WORDS[config.kind]}; {order}{washout}{practice}."


def _reference(config: StudyConfig) -> str:
    if config.kind == "detection":
        return f"{config.truth}; how it was made is for the authors to say."
    if config.kind == "real-or-synthetic":
        return "Known: what each image was made by."
    return "There is none: what is compared is the readers' own opinion."


def _grades(config: StudyConfig) -> str:
    if config.kind == "clarity":
        return "; ".join(f"{k} {word}" for k, word in enumerate(config.scale, start=1))
    if config.kind == "preference":
        return "The better image" + (", or no difference." if config.ties else ".")
    return "Yes or no, and how sure: " + "; ".join(f"{k} {word}" for k, word in enumerate(config.confidence, start=1))


def _blinding(config: StudyConfig) -> str:
    return (
        "Nothing but the image: names are random, all images have the same encoding, bits and number of bytes"
        f"{', the same size and window within each case' if config.crossed else ', size and window'}; the truth stayed "
        "out of what is served."
    )


def _statistics(config: StudyConfig) -> str:
    of = {
        "clarity": "Means and differences with readers and cases random; cumulative-link mixed model, VGC, Wilcoxon",
        "real-or-synthetic": "Shares, d′ and AUC with readers and cases random",
        "preference": "Shares with readers and cases random",
        "detection": "AUC by U-statistics over readers and cases, shares likewise, McNemar's exact test of each reader",
    }[config.kind]
    claims = f"; equivalence within {config.margin:g} by TOST" if config.margin else ""
    several = "; Holm's correction of the primary figure, and of all claims" if len(config.comparisons) > 1 else ""
    return f"{of}{claims}{several}."


def _undecided(config: StudyConfig) -> str:
    if config.kind == "preference":
        return "No difference was an answer, shared among all." if config.ties else "A choice was required."
    return "Every trial asked for an answer; how sure is part of it." if _binary(config) else "A score was required."


def _variability(readings: Readings) -> str:
    repeats = readings.study.config.repeats
    own = f", and with themselves ({repeats} repeats each)" if repeats else ""
    return f"Each reader's figures, agreement with one another{own}, and answers along the order."


def _models(readings: Readings) -> str:
    found = dict.fromkeys(
        image.source.rpartition(" by ")[2] for image in readings.study.images if " by " in image.source
    )
    if not found:
        return ""
    return (
        "Images made here by "
        + ", ".join(found)
        + " (name and SHA-256 of the weights); their training is for the authors."
    )


HOLDS = {
    "": [
        "Measured in 2,000 simulated studies of 5 readers and 60 cases (docs/readers.md), a 95 % interval covered the "
        "truth in 92.5 to 97.5 % of them for all figures on this page, except as said here.",
        "With other numbers of readers and cases it was not measured; with three readers or fewer trust none much.",
    ],
    "clarity": [
        "The shift by Hodges and Lehmann covers too often (98.7 %): scores are whole numbers. Read the difference of "
        "mean scores instead, which covers in 96.6 %.",
        "Wilcoxon's and VGC's figures are secondary and not corrected for their number.",
    ],
    "preference": ["Intervals of shares cover in 93 (of a strong preference) to 95 %."],
    "yes-no": [
        "The bootstrap over readers and cases is too wide (98.2 %, 97.8 % near guessing); read the interval above it.",
        "The AUC's interval, on the logit scale, covers in 93.0 to 94.5 %; on its own it would be too narrow near 1.",
        "Differences of AUCs, by both AUCs' logit intervals, cover in 93 to 96 %, and their claims keep their level; "
        "Student's, as iMRMC gives it, lets non-inferiority of high AUCs be claimed in 5.1 % instead of 2.5 %.",
        "Equivalence of AUCs within 0.05 is hardly ever shown by a study of this size: ask fabrica study power before.",
    ],
}


def holds(config: StudyConfig) -> list[str]:
    """Which intervals on the page to believe less, and why."""
    kind = "yes-no" if _binary(config) else config.kind
    paired = [
        "Real and synthetic images of one patient are counted as cases of their own; where they resemble one another, "
        "the intervals are somewhat wrong."
    ]
    return [*HOLDS[""], *HOLDS[kind], *(paired if config.kind == "real-or-synthetic" and config.crossed else [])]
