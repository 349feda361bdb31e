"""The errors a user can cause. Each message says what was found, what was expected and what to do."""


class FabricaError(Exception):
    """Something the user can mend. The command line prints the message on one line and exits with 1."""

    exit_code = 1


class UsageError(FabricaError):
    """Wrong use of a command, recipe or argument. The command line exits with 2."""

    exit_code = 2


class ReadError(FabricaError):
    """A file that cannot be read as an image: wrong format, damaged, or too large to decode safely."""
