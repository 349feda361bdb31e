"""What the names of folders and files say: whether they stand for patients, classes, domains, or only sort.

A name is judged among its siblings, never alone: what tells patients from classes is that their names follow one
pattern with an identifying number (LIDC-IDRI-0001, TCGA_CS_4941_19960909, hashes), and classes are words, or a few
numbers from 0 or 1 (grade1, KL 0 to 4).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile

PATIENTS = {"sub", "subj", "subject", "pat", "patient", "pt", "case", "pid", "person", "participant", "volunteer",
            "donor", "individual", "mouse", "rat", "animal", "mrn", "p", "s", "id"}  # fmt: skip
CLASSES = {"grade", "grading", "class", "cls", "stage", "level", "score", "type", "subtype", "category", "cat", "label",
           "birads", "rads", "pirads", "lirads", "tirads", "kl", "isup", "gleason", "density", "severity", "group",
           "degree", "figo", "dr", "cluster", "bi", "pi", "t"}  # fmt: skip
PARTS = {"part", "parts", "batch", "chunk", "image", "images", "img", "imgs", "fold", "archive", "shard", "folder",
         "dir", "zip", "subset", "set", "data", "dataset", "disk", "disc", "cd", "dvd", "volumes", "split"}  # fmt: skip
SITES = {"site", "center", "centre", "hospital", "scanner", "vendor", "institution", "clinic"}
VISITS = {"ses", "session", "visit", "study", "series", "scan", "exam", "examination", "day", "week", "month", "year",
          "timepoint", "tp", "time", "run", "acq", "followup", "fu", "date", "baseline"}  # fmt: skip
FINDINGS = {"normal", "abnormal", "healthy", "benign", "malignant", "tumor", "tumour", "lesion", "positive", "negative",
            "control", "pos", "neg", "yes", "no"}  # fmt: skip
FILLERS = {"image", "images", "img", "imgs", "slice", "slices", "scan", "scans", "volume", "volumes", "nifti", "nii",
           "dicom", "dcm", "png", "data", "series", "weighted", "folder"}  # fmt: skip
SLICES = re.compile(r"(?:slices?|frame|img|im|image|z|ct|mr|sl|i)?[-_ .]*\d+(?:[-_ .]\d+)?", re.IGNORECASE)
CONTRASTS = re.compile(
    r"(?:cb|nc|ce|ld|nd|hd|fd|s)?ct|cta|ctp|(?:s|p|mp)?mri?|mra|pet|pt|fdg|fdgpet|petct|spect|nm|us|ultrasound|xrays?|"
    r"cr|dx|dr|mg|mammograms?|t1(?:w|c|ce|gd|n|wi|dual|post|pre|map)?|t2(?:w|f|s|wi|star|spir|flair|map)?|flair|pdw?|"
    r"dwi|adc|dti|swi|bold|asl|mprage|b\d+|in(?:phase|opp)?|out(?:phase)?|arterial|venous|portal|delayed"
)
SIDES = tuple(  # what is translated or restored, and what it becomes
    (re.compile(a), re.compile(b))
    for a, b in (
        (r"low(dose)?|ldct|ld|quarter(dose)?|qdct|qd", r"(high|full|normal|standard)(dose)?|[nhfs]d(ct)?"),
        (r"lr|low(res(olution)?)?", r"[hs]r|high(res(olution)?)?"),
        (
            r"input|source|src|nois[ye]|noised|degraded|corrupt(ed)?|art[ei]facts?|blur(red|ry)?|undersampled|sparse|raw",
            r"target|output|tgt|clean|noise(less|free)|denoised|original|orig|sharp|fullysampled|dense|gt|groundtruth|"
            r"reference|ref",
        ),
        (r"a", r"b"),
        (r"before|pre(contrast)?|noncontrast|unenhanced|nc", r"after|post(contrast)?|contrast|enhanced|ce"),
    )
)
READERS = {"reader", "readers", "rater", "annotator", "annotation", "annot", "observer", "expert", "doctor",
           "physician", "radiologist", "human", "manual", "consensus", "majority", "staple", "vote", "version",
           "instance", "inst", "rd", "obs"}  # fmt: skip
"""Words that say who drew a mask, or which of several of one thing it is."""
_STRONG = "|".join(sorted((word for word in PATIENTS if len(word) > 2), key=len, reverse=True))
PATIENT = re.compile(rf"(?<![a-z])(?:{_STRONG})(?:[-_ .]\(?[a-z]{{0,3}})?\d+\)?", re.IGNORECASE)
YEAR = range(1980, 2036)
FEW = 10  # classes that are numbers: grades and scores
MANY = 50  # folders side by side: more are hardly classes


def plain(name: str) -> str:
    """Composed letters, as on any other computer, in lower case."""
    return unicodedata.normalize("NFC", name).casefold()


def words(name: str) -> list[str]:
    """Runs of letters and runs of digits, in lower case; aCamel becomes two."""
    name = unicodedata.normalize("NFC", name)
    return [word.casefold() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+", name)]


def role(names: Collection[str], tails: Mapping[str, Collection[str]]) -> str:
    """What sibling folders stand for: "patient", "class", "domain", "part" (they only sort), "site", "visit".

    tails  what lies below each: told apart by whether the files of each folder are numbered alike.
    """
    if len(names) == 1:
        word = _lead(names, "first")
        return "patient" if word in PATIENTS and re.search(r"\d", next(iter(names))) else ""
    if domains(names):
        return "domain"
    leads = _leads(names)
    numbered = all(re.fullmatch(r"[a-z]?|\d+[a-z]?", rest) for rest in leads.values())
    for lead in ("last", "first"):
        word = _lead(names, lead)
        if word in CLASSES:
            return "class"
        if word in PATIENTS and (len(word) > 2 or all(re.search(r"\d", name) for name in names)):
            return "patient"
        if numbered:
            for found, known in (("part", PARTS), ("site", SITES), ("visit", VISITS)):
                if word in known:
                    return found
    if all(re.fullmatch(r"\d+x", plain(name)) for name in names):
        return "part"  # magnifications
    if are_hashes(names):
        return "patient"
    numbers = {name: tuple(re.findall(r"\d+", leads[name])) for name in names}
    if _enumerated(names) and len(names) <= 15:
        return "class"  # 01_TUMOR, 02_STROMA
    if all(name.isdecimal() and len(name) == 4 and int(name) in YEAR for name in names):
        return "part"
    distinct = len(set(numbers.values())) >= 0.8 * len(names)
    if distinct and _share(any(_identifies(n) for n in numbers[name]) for name in names) >= 0.8:
        return "patient"
    alike = len(names) > 1 and _sliced(tails)
    if all(name.isdecimal() for name in names):
        values = [int(name) for name in names]
        few = len(names) <= FEW and max(values) <= len(names) + 2
        slices = alike and all(re.match(r"[a-z]", plain(t)) for tail in tails.values() for t in tail)
        return "class" if few and not (slices and len(names) > 2 and min(values) > 0) else "patient"
    if _share(bool(numbers[name]) for name in names) >= 0.8:
        same = len({re.sub(r"\d+", "#", plain(name)) for name in names}) == 1
        highest = max((int(n) for found in numbers.values() for n in found), default=0)
        if len(names) >= 5 and (highest > len(names) + 2 or len(names) > 12 or not same):
            return "patient"
        return "patient" if same and alike else "class"
    return "patient" if len(names) > MANY else "class"


def domains(names: Collection[str]) -> bool:
    """Whether these are contrasts or modalities, or what is restored and what it becomes: mr and ct, low and high."""
    short = _short(names)
    if len(short) < 2:
        return False
    if any(
        len(names) <= 3
        and any(a.fullmatch(s) for s in short)
        and any(b.fullmatch(s) for s in short)
        and all(a.fullmatch(s) or b.fullmatch(s) for s in short)
        for a, b in SIDES
    ):
        return True
    known = sum(is_contrast(s) for s in short)
    return known >= 2 and known >= 0.6 * len(short)


def is_contrast(name: str) -> bool:
    return bool(CONTRASTS.fullmatch(plain(name).replace("-", "").replace("_", "")))


def named_patients(stems: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The patient that file names begin with, {stem: patient}, where the pattern is clear: patient001_slice_02,
    00000013_005; and groups that might be patients though nobody can be sure, ["2019_*"]."""
    found: dict[str, str] = {}
    families: dict[str, list[str]] = defaultdict(list)
    for stem in dict.fromkeys(stems):
        if match := PATIENT.search(stem):
            alone = re.search(r"\d", stem[: match.start()])
            found[stem] = match[0] if alone else stem[: match.end()]
        else:
            families[re.sub(r"\d+", "#", plain(stem))].append(stem)
    doubtful: list[str] = []
    for shape, members in families.items():
        for cut in range(1, shape.count("#")):
            groups: dict[str, list[str]] = defaultdict(list)
            for stem in members:
                groups[_head(stem, cut)].append(stem)
            sizes = [len(group) for group in groups.values()]
            if len(groups) == len(members):
                break  # each image has its own
            if len(groups) < 2:
                continue
            dated = all(head.isdecimal() and len(head) == 4 and int(head) in YEAR for head in groups)
            if len(groups) > 2 and not dated and max(sizes) <= 0.6 * len(members):
                found |= {stem: head for head, group in groups.items() for stem in group}
            else:
                doubtful += [f"{head}*" for head in sorted(groups)[:3]]
            break
    return found, doubtful


def numbered(stems: Collection[str]) -> bool:
    """Whether these names are those of one volume's slices: one word and numbers without a gap."""
    return len(stems) > 1 and all(re.match(r"(?:slices?|sl|z|frames?)[-_ .]*\d+$", plain(stem)) for stem in stems)


def are_hashes(names: Collection[str]) -> bool:
    """Whether most names are hashes or unique identifiers."""
    found = 0
    for name in names:
        bare = name.replace("-", "").replace("_", "").lower()
        turns = len(re.findall(r"[a-z]+|\d+", bare))
        found += bool(
            (re.fullmatch(r"[0-9a-f]{8,}", bare) and (bare.isdecimal() or turns > 2))
            or (re.fullmatch(r"[a-z0-9]{6,}", bare) and turns > 4)
            or re.fullmatch(r"\d+(\.\d+){4,}", name)
        )
    return found >= 0.8 * len(names)


def is_shown(name: str) -> bool:
    """Whether the name of a mask says what it shows (liver, kidney_left), and not who drew it."""
    said = words(name)
    return any(word.isalpha() and len(word) > 1 for word in said) and not READERS & set(said)


def _head(stem: str, cut: int) -> str:
    """The name up to its number `cut`, without what separates it from the rest."""
    ends = [match.end() for match in re.finditer(r"\d+", stem)]
    return stem[: ends[cut - 1]]


def _short(names: Collection[str]) -> set[str]:
    """The words by which names differ from their siblings, without fillers: CT_images -> ct, low_dose -> lowdose."""
    parts = [re.split(r"[^a-z0-9]+", plain(each)) for each in names]
    common = set.intersection(*(set(part) for part in parts)) if len(parts) > 1 else set()
    return {"".join(word for word in own if word not in FILLERS and word not in common) for own in parts}


def _leads(names: Collection[str]) -> dict[str, str]:
    """What is left of each name after the words that all begin with."""
    split = {name: re.findall(r"[^\W\d_]+|\d+|[\W_]+", plain(name)) for name in names}
    same = len(_common(list(split.values()))) if len(names) > 1 else 0
    return {name: "".join(parts[same:]).strip("-_ .()") for name, parts in split.items()}


def _common(split: Sequence[Sequence[str]]) -> list[str]:
    """What all begin with."""
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*split, strict=False))]


def _lead(names: Collection[str], which: str) -> str:
    """The last, or the first, word of what all names begin with; "" where it is the whole of a name."""
    split = [re.findall(r"[^\W\d_]+|\d+", plain(name)) for name in names]
    common = _common(split)
    if len(names) == 1:
        common = common[:1] if len(common) > 1 and common[1].isdecimal() else []
    if not any(word.isalpha() for word in common) or any(len(parts) <= len(common) for parts in split):
        return ""
    word = common[-1] if which == "last" else common[0]
    return word if word.isalpha() else ""


def _enumerated(names: Collection[str]) -> bool:
    """Whether these are different words that were numbered to keep their order."""
    found = [re.fullmatch(r"(\d+)[-_. ]+([^\W\d_]{2}.*)", plain(name)) for name in names]
    whole = [match for match in found if match]
    return (
        len(whole) == len(names)
        and len({match[2] for match in whole}) == len(names)
        and max(int(match[1]) for match in whole) <= len(names) + 1
    )


def _identifies(number: str) -> bool:
    return len(number) >= 3 or (len(number) == 2 and number[0] == "0")


def _sliced(tails: Mapping[str, Collection[str]]) -> bool:
    """Whether the files of each folder are numbered alike: the same names again and again, all but their numbers the
    same word."""
    counts: Counter[str] = Counter(t for tail in tails.values() for t in set(tail))
    shared = sum(n for n in counts.values() if n > 1)
    return shared >= 0.5 * sum(counts.values()) and all(SLICES.fullmatch(t) for t in counts)


def _share(found: Iterable[bool]) -> float:
    values = list(found)
    return sum(values) / max(1, len(values))
