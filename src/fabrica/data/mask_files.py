"""Which files are masks, and of which images: by their names, beside the images or in a folder of their own.

A mask has its image's name but for a word that says mask (x_mask, x_seg, x_label, x_gt, x.seg.nrrd, segmentation-0 of
volume-0), perhaps with what it shows (x_left_mask), or stands in a folder that does (masks/x beside images/x), or is
the mask of all that lies in its folder (CASE/mask; CASE/aggregated_seg, where several folders have one), or says what
it shows and stands in a folder of masks beside the one image of a case (CASE/segmentations/liver). A file that no
image belongs to is a mask only where others that are called alike have theirs. Which of several masks an image is
given: see `fabrica.data.mask_choice`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from fabrica.data.bids import bids_masks
from fabrica.data.channels import CHANNEL
from fabrica.data.names import READERS, is_contrast, is_shown, plain, words
from fabrica.data.tables import SUFFIXES, stem

MASKS = ("mask", "masks", "msk", "segmentation", "segmentations", "seg", "segs", "label", "labels", "lbl", "gt",
         "groundtruth", "annotation", "annotations", "anno", "tissue", "contour", "contours", "labelstr", "labelsts",
         "labelsval", "labelsva", "lesions")  # fmt: skip
PICTURES = {"image", "images", "img", "imgs", "imagestr", "imagests", "imagesval", "orig", "original", "volume",
            "volumes", "vol", "scan", "raw", "input", "target", "data", "imaging", "imagesva", "dicom",
            "dcm"}  # fmt: skip
FOLDERS = (set(MASKS) - {"anno", "tissue", "contour", "lbl"}) | {"structures", "rois", "instances", "ann", "annot",
                                                                        "annots"}  # fmt: skip
WEAK = {"lesions", "gt", "groundtruth"}  # may be a class, or what is to be restored: masks only beside images/
MOST = 8  # images of one folder that a file called mask is the mask of
READ = tuple(suffix for suffix in SUFFIXES if suffix not in (".npz", ".zip", ".dcm", ".dicom", ".ima", ".bmp", ".gif"))

Key = tuple[str, ...]
_Image = tuple[str, str, str]  # path; folder and name, by which masks belong to it
_Lost = tuple[str, list[str]]  # a mask, and the images that it may be of


def masks_of(paths: Iterable[str], dicom: Iterable[str] = ()) -> dict[str, list[str]]:
    """Mask -> the images it belongs to, of these relative POSIX paths; [] for masks whose image is not there.

    dicom  paths of DICOM images, files or the folders of series: images that others may be the masks of.
    """
    files = [path for path in paths if path.lower().endswith(READ)]
    inside = [path for path in files if in_folder(path)]
    kept = [path for path in files if not in_folder(path)]
    seats = [(path, *_seat(path)) for path in kept]
    if inside or any(_mask_word(path) for path in kept):  # else there are none, whatever DICOM there is
        seats += [seat for path in dicom for seat in _dicom_seats(path)]
    found = bids_masks(files)
    inside = [path for path in inside if path not in found]
    kept = [path for path in kept if path not in found]
    seats = [seat for seat in seats if seat[0] not in found]
    found |= _of_folders(inside, seats) if inside else {}
    kept += [path for path in inside if path not in found]
    folders: dict[str, list[_Image]] = defaultdict(list)
    for image in (*seats, *((path, *_seat(path)) for path in inside if path not in found)):
        folders[image[1]].append(image)
    lost: dict[Key, list[_Lost]] = defaultdict(list)
    for folder, members in folders.items():
        if len(members) > 1:
            found |= _beside(folder, members, lost)
    for several in lost.values():
        if len(several) > 1:  # called alike in the folders of several cases
            found |= dict(several)
    called: dict[str, list[str]] = {}
    for path in kept:
        if word := _mask_word(path):
            called.setdefault(word, []).append(path)
    for masks in called.values():  # many have their images: the others have lost theirs
        alone = [path for path in masks if path not in found]
        if len(masks) - len(alone) >= max(3, 4 * len(alone)):
            found |= {path: [] for path in alone}
    return found


def _seat(path: str) -> tuple[str, str]:
    """The folder that a file lies in, and its name without the suffix."""
    folder, _, name = path.rpartition("/")
    return folder, stem(name)


def _dicom_seats(path: str) -> list[_Image]:
    """Where a DICOM image lies: in the folder around its own, and within that, without a name."""
    if path == ".":
        return [(path, "", "")]
    return [(path, *_seat(path)), (path, path, "")]


def _beside(folder: str, members: Sequence[_Image], lost: dict[Key, list[_Lost]]) -> dict[str, list[str]]:
    """The masks among the files of one folder; `lost` gathers those that may belong to all images in it."""
    own = words(folder.rpartition("/")[2])
    names = {path: mask_words(path) if name else [] for path, _, name in members}
    images = {path: name for path, name in names.items() if not _is_mask(name)}
    if not images or len(images) == len(members):
        return {}
    by_key: dict[Key, list[str]] = defaultdict(list)
    for path, name in images.items():
        for key in dict.fromkeys((tuple(name), _without(name, PICTURES), *_without_contrast(_stem(path)))):
            by_key[key].append(path)
    found = {}
    for path, name in names.items():
        if path in images:
            continue
        bare = _without(name, MASKS)
        numberless = bare[:-1] if len(bare) > 1 and name[-1].isdecimal() else bare  # x_mask_1
        keys = (bare, numberless, _without(list(bare), PICTURES), _before_what_is_shown(bare, by_key))
        if key := next((key for key in keys if key and key in by_key), ()):
            found[path] = list(dict.fromkeys(by_key[key]))
            continue
        left = bare[len(own) :] if list(bare[: len(own)]) == own else bare
        if not left and len(images) <= MOST:
            found[path] = list(images)
        elif _is_one_case(list(images.values()), own):
            lost[left].append((path, list(images)))
    return found


def _before_what_is_shown(bare: Key, images: Collection[Key]) -> Key:
    """The longest name of an image that a mask's name begins with, where only words follow: x of x_left_lung."""
    for n in range(len(bare) - 1, 0, -1):
        if not bare[n].isalpha() or is_contrast(bare[n]):
            return ()
        if len(bare[n]) > 2 and bare[:n] in images:
            return bare[:n]
    return ()


def _is_one_case(names: Sequence[Sequence[str]], folder: Sequence[str]) -> bool:
    """Whether the images of a folder show one patient: there is one, or each is called by its contrast."""
    bare = [name[len(folder) :] if list(name[: len(folder)]) == list(folder) else name for name in names]
    return len(names) == 1 or (
        len(names) <= MOST and all(is_contrast("".join(name)) or set(name) <= PICTURES for name in bare)
    )


def _of_folders(masks: Sequence[str], images: Sequence[_Image]) -> dict[str, list[str]]:
    """The files of folders that are called masks, with the images that lie in folders beside."""
    index: dict[tuple[str, str, Key], list[str]] = defaultdict(list)  # (above, below, name) -> images
    pictures: set[str] = set()  # folders that have a folder for images
    direct: dict[str, list[_Image]] = defaultdict(list)  # images that lie in a folder itself
    within: dict[str, list[_Image]] = defaultdict(list)  # those in a folder for images within it
    for path, folder, name in images:
        lower = [plain(part) for part in folder.split("/") if part]
        for k in range(len(lower) + 1):
            for key in _keys(name):
                index["/".join(lower[:k]), "/".join(lower[k + 1 :]), key].append(path)
        direct["/".join(lower)].append((path, folder, name))
        pictures.update("/".join(lower[:k]) for k, part in enumerate(lower) if part in PICTURES)
        if lower and lower[-1] in PICTURES:
            within["/".join(lower[:-1])].append((path, folder, name))
    found: dict[str, list[str]] = {}
    lost: dict[str, list[str]] = defaultdict(list)
    for path in masks:
        *folders, _ = path.split("/")
        lower = [plain(folder) for folder in folders]
        level = _level(path)
        above, below = "/".join(lower[:level]), "/".join(lower[level + 1 :])
        bare = _without(mask_words(path), MASKS)
        candidates = (tuple(words(_stem(path))), bare, bare[:-1])
        hits = [index.get((above, part, key)) for part in dict.fromkeys((below, "")) for key in candidates if key]
        weak = lower[level] in WEAK and above not in pictures
        if (hit := next(filter(None, hits), None)) and not weak:
            found[path] = list(dict.fromkeys(hit))
        else:
            lost["/".join(folders[: level + 1])].append(path)
    matched = Counter("/".join(p.split("/")[: _level(p) + 1]) for p in found)
    cases = [_parent(folder) for folder in lost]
    for folder, paths in lost.items():
        above = _parent(folder)
        if plain(folder.rpartition("/")[2]) in WEAK and above not in pictures:
            continue
        own = direct[above] or (within[above] if len(cases) > 1 else [])
        if own and not matched[folder] and _is_one_case([words(name) for *_, name in own], words(above)):
            found |= {path: list(dict.fromkeys(image for image, *_ in own)) for path in _telling(paths, folder)}
        left = [path for path in paths if path not in found]
        if matched[folder] >= len(left) or above in pictures or 0 < len(direct[above]) <= MOST:
            found |= {path: [] for path in left}
    return found


def _telling(paths: Sequence[str], folder: str) -> list[str]:
    """The masks right in a folder of masks, where most of them say what they show, or who drew them: they are no
    numbers or hashes."""
    here = [path for path in paths if path.rpartition("/")[0] == folder]
    telling = sum(is_shown(_stem(path)) or bool(READERS & set(words(_stem(path)))) for path in here)
    return here if 2 * telling >= len(here) else []


def _parent(folder: str) -> str:
    return "/".join(plain(part) for part in folder.split("/")[:-1])


def called_mask(path: str) -> bool:
    """Whether the name of a file says mask, whatever it is."""
    return path.lower().endswith(READ) and _mask_word(path) not in ("", *WEAK)


def mask_words(path: str) -> list[str]:
    """The words in a mask's name; of x.seg.nrrd, the suffix is one."""
    return words(_stem(path)) + ["seg"] * path.lower().endswith(".seg.nrrd")


def _stem(path: str) -> str:
    return stem(path.rpartition("/")[2])


def _is_mask(name: Iterable[str]) -> bool:
    found = set(name)
    return bool(found & set(MASKS)) or {"ground", "truth"} <= found


def _mask_word(path: str) -> str:
    name = mask_words(path)
    return next((word for word in reversed(name) if word in MASKS), "")


@lru_cache(maxsize=4096)  # many files lie in few folders
def _is_folder(folder: str) -> bool:
    name = [word for word in words(folder) if word not in ("dir", "folder")]
    if name[:-1] == ["mask"] and name[-1].isdecimal():  # mask-0, mask-1: of several readers
        return True
    return (
        "".join(name) in FOLDERS
        or name[-2:] == ["ground", "truth"]
        or (len(name) > 1 and name[-1] in ("mask", "masks"))
    )


def in_folder(path: str) -> bool:
    """Whether a file lies in a folder that is called masks, or below one."""
    return "/" in path and any(_is_folder(folder) for folder in path.split("/")[:-1])


def _level(path: str) -> int:
    return next(k for k, folder in enumerate(path.split("/")) if _is_folder(folder))


def _keys(name: str) -> list[Key]:
    """The names by which a mask in another folder may call an image of this name."""
    said = words(name)
    keys = [tuple(said), _without(said, PICTURES), _without_contrast(name)[0]]
    if CHANNEL.search(name):
        keys.append(tuple(words(CHANNEL.sub("", name))))
    return [key for key in dict.fromkeys(keys) if key]


def _without(name: Sequence[str], some: Iterable[str]) -> Key:
    left = [word for word in name if word not in some]
    if "ground" in left and "truth" in left:
        left = [word for word in left if word not in ("ground", "truth")]
    return tuple(left)


def _without_contrast(name: str) -> tuple[Key, Key]:
    """case1_t1 -> case1, of which case1_seg is the mask; the same without words for images."""
    head, mark, tail = re.fullmatch(r"(.*?)([-_]?)([^-_]*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    said = words(head) if head and mark and is_contrast(tail) else words(name)
    return tuple(said), _without(said, PICTURES)
