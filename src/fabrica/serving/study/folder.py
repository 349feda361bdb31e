"""The folder of a study.

    STUDY/
      shown/study.json          what all readers are told: kind, question, scale, and how images are encoded
      shown/readers/ID.json     the trials of one reader in order, each with its images and whether it is practice
      shown/images/ID           bare grey values (`blinding`), all of one length
      key/                      the truth, readable by its owner alone; never served
        config.yaml  trials.csv  images.csv  truth.csv  feedback.json  links.csv  secret
      answers.sqlite            what readers answered (`answers`)

A server shows what lies in shown/, and of that to each reader his own file and the images of his own trials, called by
trial and place: the name of an image's file, the same for all who see it, stays inside. Of the key it needs the secret,
and feedback.json after a practice trial.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError, UsageError
from fabrica.recipe.values import read
from fabrica.serving.study import blinding
from fabrica.serving.study.answers import Answers
from fabrica.serving.study.blinding import Look
from fabrica.serving.study.config import StudyConfig, parsed
from fabrica.serving.study.sources import Truth

SHOWN, KEY, ANSWERS = "shown", "key", "answers.sqlite"
KEPT = ("trials.csv", "images.csv", "truth.csv")  # of the key, by whose hash a change shows
FORMAT = 1
JOIN = "|"


@dataclass(frozen=True)
class Placed:
    """A trial in the key: whose it is and where in the order, what is shown, and the files of its images."""

    trial: str
    reader: str
    place: int
    part: str
    case: str
    arms: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """An image in the key: the file, its arm and case, what it was made of, and the hash of what is shown."""

    file: str
    arm: str
    case: str
    source: str
    sha256: str


@dataclass(frozen=True)
class Study:
    """An opened study: what was asked, the key, and where it lies. truth: case -> truth, of a detection.
    shapes and aspects: of the files of images; feedback: practice trial -> what is right."""

    folder: Path
    config: StudyConfig
    trials: tuple[Placed, ...]
    images: tuple[Shown, ...]
    truth: dict[str, Truth]
    look: Look
    shapes: dict[str, tuple[int, int, int]]
    aspects: dict[str, float]
    feedback: dict[str, dict[str, Any]]
    key: bytes

    def answers(self) -> Answers:
        """The database; close it."""
        return Answers(self.folder / ANSWERS, chain_key(self.key))

    def told(self, reader: str) -> list[dict[str, Any]]:
        """What a reader's browser may know: his trials in order, each with the shape and aspect of its images, which
        are called by trial and place from the left."""
        own = sorted((t for t in self.trials if t.reader == reader), key=lambda t: t.place)
        return [
            {
                "trial": trial.trial,
                "practice": trial.part == "training",
                "images": [{"shape": self.shapes[f], "aspect": self.aspects[f]} for f in trial.files],
            }
            for trial in own
        ]

    def image(self, reader: str, trial: str, place: int) -> Path:
        """The file of an image of a reader's own trial; UsageError for any other, whatever it is called."""
        found = next((t for t in self.trials if t.trial == trial and t.reader == reader), None)
        if found is None or not 0 <= place < len(found.files):
            raise UsageError(f"no image {place} of a trial {trial[:40]!r} of this reader")
        return self.folder / SHOWN / "images" / found.files[place]

    def pixels(self, file: str) -> blinding.Bytes:
        """An image as it is shown, (D, H, W, C)."""
        return blinding.decoded((self.folder / SHOWN / "images" / file).read_bytes(), self.shapes[file], self.look)


def open_study(folder: Path) -> Study:
    """The study in a folder. FabricaError, one line, for what is none, and for a config or key that was changed since
    it was made."""
    if not (folder / KEY / "config.yaml").is_file():
        raise UsageError(f"no study at {folder}; fabrica study new CONFIG -o STUDY makes one")
    try:
        key = bytes.fromhex((folder / KEY / "secret").read_text("ascii"))
        config = parsed(read((folder / KEY / "config.yaml").read_text("utf-8")))
        about = json.loads((folder / SHOWN / "study.json").read_text("utf-8"))
        trials = tuple(
            Placed(
                t["trial"], t["reader"], int(t["place"]), t["part"], t["case"], _split(t["arms"]), _split(t["files"])
            )
            for t in _table(folder / KEY / "trials.csv")
        )
        images = tuple(Shown(**row) for row in _table(folder / KEY / "images.csv"))
        truth = _truth(_table(folder / KEY / "truth.csv"))
        feedback = json.loads((folder / KEY / "feedback.json").read_text("utf-8"))
        readers = [json.loads(file.read_text("utf-8")) for file in (folder / SHOWN / "readers").iterdir()]
        placed = {i["file"]: i for reader in readers for trial in reader["trials"] for i in trial["images"]}
        look = Look(*(about["image"][name] for name in ("low", "high", "bits", "unit", "colours")))
        shapes = {file: (i["shape"][0], i["shape"][1], i["shape"][2]) for file, i in placed.items()}
        aspects = {file: float(i["aspect"]) for file, i in placed.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FabricaError(f"{folder}: the study is damaged ({error}); put a copy back") from error
    study = Study(folder, config, trials, images, truth, look, shapes, aspects, feedback, key)
    with study.answers() as answers:
        if answers.about["config"] != hash_of(folder / KEY / "config.yaml"):
            raise FabricaError(
                f"{folder / KEY / 'config.yaml'} was changed since the study was made; put it back, or make a new study"
            )
        if answers.about["key"] != kept_hash(folder / KEY):
            raise FabricaError(
                f"a table in {folder / KEY} ({', '.join(KEPT)}) was changed since the study was made; put it back"
            )
    return study


def chain_key(key: bytes) -> bytes:
    """What the answers are chained with."""
    return hmac.new(key, b"answers", hashlib.sha256).digest()


def kept_hash(folder: Path) -> str:
    """SHA-256 of the tables of the key."""
    return hashlib.sha256(" ".join(hash_of(folder / name) for name in KEPT).encode()).hexdigest()


def hash_of(file: Path) -> str:
    """SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def image_of(config: StudyConfig, case: str, arm: str) -> tuple[str, str]:
    """Arm and name of the image of a trial."""
    if config.crossed:
        return arm, case
    own = next(name for name in config.names if case.startswith(f"{name}/"))
    return own, case[len(own) + 1 :]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as CSV; several values in one cell are joined."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow(JOIN.join(v) if isinstance(v := row[name], tuple) else v for name in columns)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _split(cell: str) -> tuple[str, ...]:
    return tuple(cell.split(JOIN))


def _truth(rows: Iterable[Mapping[str, str]]) -> dict[str, Truth]:
    return {
        row["case"]: Truth(
            row["diseased"] == "1", tuple((b[0], b[1], b[2], b[3], b[4]) for b in json.loads(row["boxes"]))
        )
        for row in rows
    }
