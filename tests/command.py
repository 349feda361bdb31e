"""The command line as tests start it, and a disk that is full."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "fabrica"]
"""Fabrica in two processes that train one model."""

CLI = [sys.executable, "-m", "fabrica"]


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a user starts it."""
    return subprocess.run([*CLI, *map(str, arguments)], capture_output=True, text=True)


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same without a new process, which takes seconds to import what most commands need."""
    from fabrica.cli.main import main

    words, code, out, err = [*map(str, arguments)], 0, StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["fabrica", *words])
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """A write past so many bytes of a file fails as on a full disk; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
