"""Which files are masks, and of which images: by their names, beside the images or in a folder of their own.

A mask has its image's name but for a word that says mask (x_mask, x_seg, x_label, x_gt, segmentation-0 of volume-0), or
stands in a folder that does (masks/x beside images/x), or is the mask of all that lies in its folder (CASE/mask).
A file that no image belongs to is a mask only where others that are called alike have theirs.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from fabrica.data.names import is_contrast, plain, words
from fabrica.data.tables import SUFFIXES, stem

MASKS = ("mask", "masks", "msk", "segmentation", "segmentations", "seg", "segs", "label", "labels", "lbl", "gt",
         "groundtruth", "annotation", "annotations", "anno", "tissue", "contour", "contours", "labelstr", "labelsts",
         "labelsval", "lesions")  # fmt: skip
PICTURES = {"image", "images", "img", "imgs", "imagestr", "imagests", "imagesval", "orig", "original", "volume",
            "volumes", "vol", "scan", "raw", "input", "target", "data", "imaging"}  # fmt: skip
CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net: imagesTr/CASE_0000 and labelsTr/CASE
FOLDERS = set(MASKS) - {"anno", "tissue", "contour", "lbl"}
WEAK = {"lesions", "gt", "groundtruth"}  # may be a class, or what is to be restored: masks only beside images/
MOST = 8  # images of one folder that a file called mask is the mask of
READ = tuple(suffix for suffix in SUFFIXES if suffix not in (".npz", ".zip", ".dcm", ".dicom", ".ima", ".bmp", ".gif"))

Key = tuple[str, ...]


def masks_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """Mask -> the images it belongs to, of these relative POSIX paths; [] for masks whose image is not there."""
    files = [path for path in paths if path.lower().endswith(READ)]
    found: dict[str, list[str]] = {}
    kept = [path for path in files if not _in_folder(path)]
    if len(kept) < len(files):
        found |= _of_folders([path for path in files if _in_folder(path)], kept)
        kept = [path for path in files if path not in found]
    folders: dict[str, list[str]] = defaultdict(list)
    for path in kept:
        folders[path.rpartition("/")[0]].append(path)
    called: dict[str, list[str]] = {}
    for folder, members in folders.items():
        if len(members) > 1:
            found |= _beside(folder, members)
        for path in members:
            if word := _mask_word(path):
                called.setdefault(word, []).append(path)
    for members in called.values():  # many have their images: the others have lost theirs
        alone = [path for path in members if path not in found]
        if len(members) - len(alone) >= max(3, 4 * len(alone)):
            found |= {path: [] for path in alone}
    return found


def _beside(folder: str, members: Sequence[str]) -> dict[str, list[str]]:
    """The masks among the files of one folder."""
    own = words(folder.rpartition("/")[2])
    names = {path: words(_stem(path)) for path in members}
    images = {path: name for path, name in names.items() if not _is_mask(name)}
    if not images or len(images) == len(members):
        return {}
    by_key: dict[Key, list[str]] = defaultdict(list)
    for path, name in images.items():
        for key in dict.fromkeys((tuple(name), _without(name, PICTURES), _without_contrast(path))):
            by_key[key].append(path)
    found = {}
    for path, name in names.items():
        if path in images:
            continue
        bare = _without(name, MASKS)
        numberless = bare[:-1] if len(bare) > 1 and name[-1].isdecimal() else bare  # x_mask_1
        for key in (bare, numberless, _without(list(bare), PICTURES)):
            if key and key in by_key:
                found[path] = by_key[key]
                break
        else:
            left = list(bare[len(own) :] if list(bare[: len(own)]) == own else bare)
            if not left and len(images) <= MOST:
                found[path] = list(images)
    return found


def _of_folders(masks: Sequence[str], images: Sequence[str]) -> dict[str, list[str]]:
    """The files of folders that are called masks, with the images that lie in folders beside."""
    index: dict[tuple[str, str, Key], list[str]] = defaultdict(list)  # (above, below, name) -> images
    pictures: set[str] = set()  # folders that have a folder for images
    direct: Counter[str] = Counter()  # images that lie in a folder itself
    for path in images:
        *folders, _ = path.split("/")
        lower = [plain(folder) for folder in folders]
        keys = _keys(path)
        for k in range(len(folders) + 1):
            for key in keys:
                index["/".join(lower[:k]), "/".join(lower[k + 1 :]), key].append(path)
        direct["/".join(lower)] += 1
        pictures.update("/".join(lower[:k]) for k, folder in enumerate(lower) if folder in PICTURES)
    found: dict[str, list[str]] = {}
    lost: dict[str, list[str]] = defaultdict(list)
    for path in masks:
        *folders, _ = path.split("/")
        lower = [plain(folder) for folder in folders]
        level = next(k for k, folder in enumerate(folders) if _is_folder(folder))
        above, below = "/".join(lower[:level]), "/".join(lower[level + 1 :])
        bare = _without(words(_stem(path)), MASKS)
        candidates = (tuple(words(_stem(path))), bare, bare[:-1])
        hits = [index.get((above, part, key)) for part in dict.fromkeys((below, "")) for key in candidates if key]
        weak = lower[level] in WEAK and above not in pictures
        if (hit := next(filter(None, hits), None)) and not weak:
            found[path] = list(dict.fromkeys(hit))
        else:
            lost["/".join(folders[: level + 1])].append(path)
    matched = Counter("/".join(p.split("/")[: _level(p) + 1]) for p in found)
    for folder, paths in lost.items():
        above = "/".join(plain(part) for part in folder.split("/")[:-1])
        weak = plain(folder.rpartition("/")[2]) in WEAK and above not in pictures
        if not weak and (matched[folder] >= len(paths) or above in pictures or 0 < direct[above] <= MOST):
            found |= {path: [] for path in paths}
    return found


def first_mask(masks: Iterable[str]) -> str:
    """Of several masks of one image the one to use: by the order of the words in MASKS, then by name."""

    def rank(path: str) -> tuple[int, int, str]:
        said = {*words(_stem(path)), *(plain(folder) for folder in path.split("/")[:-1])}
        return next((k for k, word in enumerate(MASKS) if word in said), len(MASKS)), len(path), path

    return min(masks, key=rank, default="")


def called_mask(path: str) -> bool:
    """Whether the name of a file says mask, whatever it is."""
    return path.lower().endswith(READ) and _mask_word(path) not in ("", *WEAK)


def by_image(masks: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Image -> its masks."""
    found: dict[str, list[str]] = defaultdict(list)
    for mask, images in masks.items():
        for image in images:
            found[image].append(mask)
    return dict(found)


def _stem(path: str) -> str:
    return stem(PurePosixPath(path).name)


def _is_mask(name: Iterable[str]) -> bool:
    found = set(name)
    return bool(found & set(MASKS)) or {"ground", "truth"} <= found


def _mask_word(path: str) -> str:
    name = words(_stem(path))
    return next((word for word in reversed(name) if word in MASKS), "")


def _is_folder(folder: str) -> bool:
    name = words(folder)
    joined = plain(folder)
    return joined in FOLDERS or name[-2:] == ["ground", "truth"] or (len(name) > 1 and name[-1] in ("mask", "masks"))


def _in_folder(path: str) -> bool:
    return "/" in path and any(_is_folder(folder) for folder in path.split("/")[:-1])


def _level(path: str) -> int:
    return next(k for k, folder in enumerate(path.split("/")) if _is_folder(folder))


def _keys(path: str) -> list[Key]:
    """The names by which a mask in another folder may call this image."""
    bare = _stem(path)
    name = words(bare)
    keys = [tuple(name), _without(name, PICTURES), _without_contrast(path)]
    if CHANNEL.search(bare):
        keys.append(tuple(words(CHANNEL.sub("", bare))))
    return [key for key in dict.fromkeys(keys) if key]


def _without(name: Sequence[str], some: Iterable[str]) -> Key:
    left = [word for word in name if word not in some]
    if "ground" in left and "truth" in left:
        left = [word for word in left if word not in ("ground", "truth")]
    return tuple(left)


def _without_contrast(path: str) -> Key:
    """case1_t1 -> case1, of which case1_seg is the mask."""
    head, _, tail = _stem(path).rpartition("_")
    return tuple(words(head)) if head and is_contrast(tail) else tuple(words(_stem(path)))
