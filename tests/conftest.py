"""What all tests share: two threads, a cache of their own, and the way to the real images."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FABRICA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    torch.set_num_threads(2)
