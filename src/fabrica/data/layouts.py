"""What the folders of a data set mean: splits, domains, classes, patients, and which images are pairs.

Understood as they stand: trainA/trainB/testA/testB, imagesTr/labelsTr/imagesTs of MSD and nnU-Net with their
dataset.json, images/ beside masks/, INPUT/TARGET/MASKS, train/val/test, one folder a class, one folder a patient
under any common name, one folder a domain (mr/001, ct/001; also within each patient's folder), one folder a case with
the same file names in each (CASE/ct, CASE/mr, CASE/mask; BraTS-like CASE/CASE_t1, CASE/CASE_seg), and names of one
folder that begin with the patient (00000013_005) or end in the contrast (001_t1, 001_t2). Masks are found by
`fabrica.data.mask_files`, channels by `fabrica.data.channels`, names are judged by `fabrica.data.names`, and
published splits settled by `fabrica.data.published`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from fabrica.data import names
from fabrica.data.channels import CHANNEL, IMAGES, channels
from fabrica.data.dataset_json import Described, nearest
from fabrica.data.mask_choice import Choice, chosen
from fabrica.data.mask_files import masks_of
from fabrica.data.place import Place
from fabrica.data.published import settle
from fabrica.data.tables import SPLIT_NAMES, stem

DOMAINS = re.compile(r"(train|val|test)([ab])", re.IGNORECASE)
FACING = ("input", "target")  # domains that are written small, whatever the folder's spelling
BIDS = re.compile(r"(sub-[A-Za-z0-9]+)(?:_[a-z]+-[A-Za-z0-9]+)*_([A-Za-z0-9]+)")
TASK = re.compile(r"(task|dataset)\d+_.+", re.IGNORECASE)  # a folder of MSD or nnU-Net, whose names begin anew
VISITED = re.compile(r"(BraTS-[A-Za-z]+-\d{5})-\d{3}")  # BraTS from 2023 on: the patient, and which of their scans
DEEPEST = 8  # levels of folders that are looked at

__all__ = ["Layout", "Place", "masks_of", "read_layout"]


@dataclass
class Layout:
    """Places by path; what has to be said of them; and what has to be said where they name the patients."""

    places: dict[str, Place] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Part:
    """A path taken apart: the folders that are not known to sort only, the name, and the split's folder."""

    path: str
    folders: tuple[str, ...]
    name: str
    apart: str
    place: Place


def read_layout(
    paths: Iterable[str],
    masks: Mapping[str, Sequence[str]] | None = None,
    folders: Collection[str] = (),
    described: Sequence[Described] = (),
) -> Layout:
    """The meaning of these relative POSIX paths of images: files, and `folders` that hold one series or several.

    masks      mask -> its images, see `masks_of`.
    described  what the dataset.json around them say.
    """
    paths = list(dict.fromkeys(paths))
    numbers = channels(paths, masks or {}, described)
    parts = [_part(path, path in folders, numbers.get(path), nearest(described, path)) for path in paths]
    layout = Layout({part.path: part.place for part in parts})
    roles = _roles(parts)
    _from_folders(parts, roles, layout)
    _from_names(parts, layout.patients)
    for part in parts:
        part.place.case = _case(part, roles)
    _pairs(layout.places)
    _masks(layout, masks or {})
    layout.notes += settle(layout.places, described)
    return layout


def _part(path: str, folder: bool, channel: int | None, described: Described | None) -> _Part:
    folders = list(PurePosixPath(path).parts)
    name = "" if folder or not folders else folders.pop()
    place, kept = Place(), list[str]()
    apart = task = ""  # train/1.png and test/1.png are two patients; trainA/1.png and trainB/1.png may be one
    for each in folders:
        lower = each.lower()
        if match := DOMAINS.fullmatch(each):
            place.split, place.domain = match[1].lower(), match[2].lower()
            apart = place.split
        elif said := _split(each):
            place.split = apart = said
        elif lower in IMAGES:
            place.split = place.split or IMAGES[lower]
            if described and len(described.channels) == 1:
                place.domain = described.channels.get(0, "")
        elif TASK.fullmatch(each):
            task = each
        elif match := VISITED.fullmatch(each):
            kept += [match[1], each]  # scans of one patient stay together
        else:
            kept.append(each)
    bare = stem(name)
    if channel is not None:  # the channels of a case show one patient
        place.domain = (described.channels.get(channel, "") if described else "") or f"{channel:04}"
        bare = CHANNEL.sub("", bare)
    return _Part(path, tuple(kept), bare, "/".join(filter(None, (task, apart))), place)


def _split(folder: str) -> str:
    """train, val or test of "Training", "test_set", "images_val"; "" of others."""
    said = [word for word in names.words(folder) if word not in names.FILLERS | {"set", "sets", "imgs"}]
    return SPLIT_NAMES.get(said[0], "") if len(said) == 1 else ""


def _roles(parts: Sequence[_Part]) -> list[str]:
    """What the folders of each level stand for, one level for the whole set: "patient", "class", "domain", "site",
    or "" for those that only sort."""
    roles: list[str] = []
    counts: list[int] = []
    strong: set[int] = set()  # levels whose names say that they are patients, of which there are several
    for level in range(DEEPEST):
        tails: dict[str, set[str]] = defaultdict(set)
        for part in parts:
            if len(part.folders) > level:
                tails[part.folders[level]].add(part.name)
        if not tails:
            break
        if all(names.PATIENT.fullmatch(name) for name in tails):
            roles.append("patient")
            strong |= {level} if len(tails) > 1 else set()
        else:
            roles.append(names.role(tails, tails))
        counts.append(len(tails))
    patients = [level for level, found in enumerate(roles) if found == "patient"]
    several = [level for level in patients if counts[level] > 1]
    chosen = next((level for level in several if level in strong), next(iter([*several, *patients]), -1))
    if chosen < 0:
        chosen = _visits(parts, roles)
    return [_settled(parts, roles, level, chosen) for level in range(len(roles))]


def _visits(parts: Sequence[_Part], roles: Sequence[str]) -> int:
    """The level of studies that stand for patients, since none is named: not those that hold the same file names."""
    level = next((level for level, found in enumerate(roles) if found == "visit"), -1)
    if level < 0:
        return -1
    held = Counter((part.folders[level], part.name) for part in parts if len(part.folders) > level)
    shared = Counter(name for _, name in held)
    same = sum(n for n in shared.values() if n > 1) >= 0.5 * len(held)
    return -1 if same and not all(names.SLICES.fullmatch(name) or not name for name in shared) else level


def _settled(parts: Sequence[_Part], roles: Sequence[str], level: int, patient: int) -> str:
    """The role of a level, now that it is known which one the patients are."""
    found = roles[level]
    if level == patient:
        return "patient"
    here = [part for part in parts if len(part.folders) > level]
    own = {part.folders[level] for part in here}
    if found == "class" and "class" in roles[:level] and patient < 0:
        return ""  # the outermost folders are the classes
    if found == "class" and patient < 0 and len(own) > len(parts) // 2:
        return "patient" if len(own) < len(here) else ""
    if found == "class" and len(here) < 0.8 * len(parts):
        return ""
    if found == "class" and level > patient >= 0:  # a patient's folders are series, unless they say what they show
        small = own <= set("0123456789") and "0" in own
        return "class" if small or all(names.FINDINGS & set(names.words(name)) for name in own) else ""
    return found if found in ("class", "domain", "site") else ""


def _from_folders(parts: Sequence[_Part], roles: Sequence[str], layout: Layout) -> None:
    """Fill in patient, domain and label where a folder's name is one."""
    for part in parts:
        site = ""
        for name, found in zip(part.folders, roles, strict=False):
            if found == "site":
                site = f"{name}/"
            elif found == "patient" and not part.place.patient:
                part.place.patient = f"{site}{name}"
            elif found == "domain" and not part.place.domain:
                part.place.domain = name.lower() if name.lower() in FACING else name
            elif found == "class" and not part.place.label:
                part.place.label = name
    _cases(parts)
    patients = sorted({part.place.patient for part in parts} - {""})
    if patients:
        layout.patients.append(f"patients are the names of folders: {_some(patients)}")
    if "class" in roles and all(part.place.label.isdecimal() or not part.place.label for part in parts):
        level = roles.index("class")
        before = "[^/]+/" * level if level else "^"
        layout.patients.append(
            f"folders that are numbers are taken for classes; if they are patients: --patient '{before}(\\d+)/'"
        )


def _cases(parts: Sequence[_Part]) -> None:
    """Where folders side by side hold the same few file names, each folder is a patient and the name a domain."""
    folders: dict[str, dict[str, _Part]] = defaultdict(dict)
    for part in parts:
        if part.name and part.folders and not part.place.domain:
            parent = part.path.rpartition("/")[0]
            if match := BIDS.fullmatch(part.name):
                folders[parent][match[2]] = part
            else:
                head = next((f for f in reversed(part.folders) if part.name.startswith(f)), "")
                folders[parent][part.name.removeprefix(head).strip("_-. ")] = part
    counts = Counter(name for held in folders.values() for name in held)
    if len(folders) < 2 or len(counts) < 2 or not (_few(counts, len(folders)) or all(map(names.is_contrast, counts))):
        return
    for held in folders.values():
        for name, part in held.items():
            around = [folder for folder in reversed(part.folders) if not names.is_contrast(folder)]
            part.place.patient = part.place.patient or (around or part.folders)[0]
            part.place.domain, part.name = name, ""
            part.place.label = part.place.label if part.place.label != part.place.patient else ""


def _few(counts: Mapping[str, int], folders: int) -> bool:
    """Whether few names recur in most folders, and they are words: neither slices nor scans that are numbered."""
    if len(counts) > min(20, folders) or any(2 * n < folders for n in counts.values()):
        return False
    if any(not re.search(r"[^\W\d_]", name) for name in counts if name):
        return False
    shapes = Counter(re.sub(r"\d+", "#", name) for name in counts if not names.is_contrast(name))
    return not any(n > 1 and "#" in shape for shape, n in shapes.items())


def _from_names(parts: Sequence[_Part], notes: list[str]) -> None:
    """Fill in what the names of files say where no folder does: the contrast at their end, the patient before it."""
    free = [part for part in parts if part.name and not part.place.patient]
    if not free:
        return
    if not any(part.place.domain for part in parts):
        _ends(free)
    heads, doubtful = names.named_patients(part.name for part in free)
    shown: dict[str, str] = {}
    for part in free:
        if head := heads.get(part.name, ""):
            part.place.patient, part.place.guessed = head, True
            shown.setdefault(head, part.name)
    if shown and len(shown) < sum(part.place.guessed for part in free):
        example = ", ".join(f"{head} of {name}" for head, name in list(shown.items())[:2])
        notes.append(f"patients are told by the names of files: {example}, ...; otherwise: --patient REGEX")
    if doubtful:
        notes.append(
            f"names of files suggest groups ({', '.join(doubtful)}), but each image counts as its own patient; if they "
            "are patients: --patient REGEX"
        )
    for folder, stems in _by_folder(free).items():
        if names.numbered(stems):
            notes.append(
                f"files are numbered like slices of one volume ({min(stems)} in {folder or 'the folder'}), but each "
                "counts as a patient of its own, so that slices of one patient may lie in several splits; name the "
                "patients: --patient REGEX, or a table (--labels)"
            )
            break


def _by_folder(parts: Sequence[_Part]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        if not part.place.guessed and not part.place.domain:
            found[part.path.rpartition("/")[0]].add(part.name)
    return found


def _ends(parts: Sequence[_Part]) -> None:
    """001_t1 and 001_t2 in one folder: the ends are domains, what stands before is the case."""
    split = {part.path: re.fullmatch(r"(.*[^-_. ])[-_. ]+([^-_. ]+)", part.name) for part in parts}
    ends = Counter(match[2] for match in split.values() if match)
    heads = Counter(match[1] for match in split.values() if match)
    several = sum(n for n in heads.values() if n > 1)
    if len(ends) > 12 or several < 0.5 * len(parts) or not names.domains(list(ends)):
        return
    for part in parts:
        if match := split[part.path]:
            part.name, part.place.domain = match[1], match[2]


def _case(part: _Part, roles: Sequence[str]) -> str:
    kept = [name for k, name in enumerate(part.folders) if k >= len(roles) or roles[k] != "domain"]
    return "/".join(filter(None, (part.apart, *kept, part.name)))


def _pairs(places: Mapping[str, Place]) -> None:
    """Of two domains, the images of one case are each other's pair."""
    if len({place.domain for place in places.values() if place.domain}) != 2:
        return
    by_case: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, place in places.items():
        if place.domain and place.domain not in "ab" and not place.domain.isdigit():
            by_case[place.patient, place.case].append(path)
    for two in by_case.values():
        if len(two) == 2 and places[two[0]].domain != places[two[1]].domain:
            places[two[0]].pair, places[two[1]].pair = two[1], two[0]


def _masks(layout: Layout, masks: Mapping[str, Sequence[str]]) -> None:
    several = [
        choice for image, choice in chosen(masks).items() if _given(layout.places.get(image), choice) and choice.of > 1
    ]
    if several:
        layout.notes.append(
            f"{len(several)} images have several masks; used is the first, as {several[0].path}: join them to use all"
        )
    if alone := sorted(mask for mask, images in masks.items() if not images):
        layout.notes.append(f"{len(alone)} masks belong to no image by their names and are set apart: {_some(alone)}")


def _given(place: Place | None, choice: Choice) -> bool:
    """Give the image its mask; whether there is such an image."""
    if place is not None:
        place.mask, place.classes, place.mask_frame = choice.path, choice.classes, choice.frame
    return place is not None


def _some(names_: Sequence[str]) -> str:
    return f"{', '.join(names_[:3])}{f', ... ({len(names_)})' if len(names_) > 3 else ''}"
