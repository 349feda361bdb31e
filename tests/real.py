"""Where the real image sets lie that some tests need; those skip where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("FABRICA_DATA", Path(__file__).parents[2] / "shared" / "data"))
