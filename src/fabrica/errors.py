"""The errors a user can cause. Each message says what was found, what was expected and what to do."""

import difflib
from collections.abc import Iterable


class FabricaError(Exception):
    """Something the user can mend. The command line prints the message on one line and exits with 1."""

    exit_code = 1


class UsageError(FabricaError):
    """Wrong use of a command, recipe or argument. The command line exits with 2."""

    exit_code = 2


class ReadError(FabricaError):
    """A file that cannot be read as an image: wrong format, damaged, or too large to decode safely."""


def unknown(kind: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is none of the known ones: "no sampler 'hun'; did you mean heun?"."""
    return UsageError(f"no {kind} {word!r}{did_you_mean(word, known)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: "; did you mean X?", or the list of what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(names)}"
