"""A member of a zip archive as a path that can be read: DICOM as archives hand it out, without unpacking it first."""

from __future__ import annotations

import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fabrica.errors import ReadError
from fabrica.io.budget import DEFAULT_BUDGET, check
from fabrica.io.members import Member, directory, is_hidden, stamp_of, unpack


class Packed(type(Path())):  # type: ignore[misc]
    """The path of an archive and, below it, the name of a member: "study.zip/IM/0001". Reading it inflates that member
    alone, in memory."""

    @property
    def archive(self) -> Path:
        """The zip archive itself."""
        return Path(next(parent for parent in self.parents if Path(parent).is_file()))

    @property
    def member(self) -> Member:
        archive = self.archive
        return directory(stamp_of(archive))[self.relative_to(archive).as_posix()]

    def open(self, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """The member's bytes as a file, to be read. Whatever is wrong with them is an OSError, as of any other path."""
        try:
            check(self.member.size, DEFAULT_BUDGET, "it", self)
            return BytesIO(unpack(self.archive, self.member))
        except ReadError as error:
            raise OSError(str(error).removeprefix(f"{self}: ").removeprefix(f"{self.archive}: ")) from error
        except (KeyError, StopIteration, ValueError, zlib.error) as error:
            raise OSError(f"no sound member of a zip archive ({error}); fetch or export it again") from error

    def damage(self) -> str:
        """Why the member cannot be read, "" where it can."""
        try:
            self.open().close()
        except OSError as error:
            return str(error)
        return ""

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """Size of the member and time of the archive."""
        return SimpleNamespace(st_size=self.member.size, st_mtime_ns=self.archive.stat().st_mtime_ns)


def as_path(path: Path | str) -> Path:
    """A path as it is, members of archives included; text as a path."""
    return path if isinstance(path, Path) else Path(path)


def members(archive: Path) -> list[Packed]:
    """The members of a zip archive that are not hidden, sorted by name."""
    names = sorted(directory(stamp_of(archive)))
    return [Packed(archive / name) for name in names if not is_hidden(name)]


def without_images(archive: Path) -> str:
    """What to say of a zip archive in which no image was found."""
    inside = members(archive)
    for member in inside:
        if why := member.damage():
            return f"holds no image that can be read: {why}"
    found = Counter(member.suffix.lower() or "no suffix" for member in inside).most_common(6)
    listed = ", ".join(f"{count} {suffix}" for suffix, count in found)
    return f"holds no picture and no DICOM, found {listed}: unpack it first" if listed else "the archive is empty"
