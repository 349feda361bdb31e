"""python -m benchmarks.study [--think SECONDS] [--quick]: readers of a study at once, and a server that is killed.

20 readers answer 600 images of 512 × 512 pixels each: one in Chromium, by keys, and 19 over HTTP as the page does, who
fetch the images of the trials that follow and send an answer until it is acknowledged. Each looks at an image for about
a second (--think). Meanwhile the server is ended by SIGKILL five times and started again. In the end every answer that
was acknowledged must be a row of the table with the hash that was acknowledged, and the chain must hold.

Showing an image: from the key that answers to the frame that shows the next image, which lies in the browser by then,
so that the answer's way to the disk and back is in it; without the answers during which the server was killed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import fabrica
from fabrica.phantoms.chest.chest import chest
from fabrica.serving.study.folder import Study
from tests.serving.study.made import config_of, study
from tests.serving.study.together import lost, read_together

KEPT = Path(__file__).parent / "real" / "study.json"
ARMS = ("degraded", "restored")
MOST = 150.0  # milliseconds, of the 95th percentile of showing
DRAWN = 1  # phantoms; cases differ by their noise


def made(home: Path, readers: int, images: int, side: int) -> Study:
    drawn = [chest(k, side).image for k in range(DRAWN)]
    for case in range(images // len(ARMS)):
        for k, arm in enumerate(ARMS):
            image = drawn[case % DRAWN]
            noise = np.random.default_rng([case, k]).normal(0, 120 - 60 * k, image.data.shape)
            (home / arm).mkdir(exist_ok=True)
            values = np.clip(np.rint(image.data + noise), 0, 4095).astype(np.float32)
            fabrica.write(image.with_data(values), home / arm / f"case{case:03d}.png")
    return study(home, config_of("clarity", ARMS, readers=readers, washout=min(10, images // 4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--think", type=float, default=1.0)
    parser.add_argument(
        "--quick", action="store_true", help="a look at whether it runs: 4 readers of 8 images, nothing is kept"
    )
    asked = parser.parse_args()
    readers, images, kills = (4, 8, 1) if asked.quick else (20, 600, 5)
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        of = made(Path(place), readers, images, 512)
        print(f"made in {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        seen = read_together(of, Path(place) / "log", in_browser="reader 1", think=asked.think, kills=kills)
        took = time.monotonic() - began
        wrong = lost(of, seen)
    p50, p95, most = (float(np.percentile(seen.showing, q)) for q in (50, 95, 100))
    found: dict[str, Any] = {
        "readers": {"in Chromium": 1, "over HTTP": readers - 1, "seconds at an image": asked.think},
        "images of each": images,
        "pixels": [512, 512],
        "cores": len(os.sched_getaffinity(0)),
        "load of the machine meanwhile": round(os.getloadavg()[2], 1),
        "kills": seen.kills,
        "answers acknowledged": seen.answers,
        "lost or changed": wrong,
        "showing the next image, ms": {"p50": round(p50, 1), "p95": round(p95, 1), "most": round(most, 1)},
        "of": len(seen.showing),
        "within": bool(p95 <= MOST),
        "left out, the server was killed": [round(each) for each in seen.interrupted],
        "storing an answer over HTTP, ms": {
            f"p{q}": round(float(np.percentile(seen.storing, q)), 1) for q in (50, 95, 99)
        },
        "answers a second": round(seen.answers / took, 1),
    }
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if not asked.quick:
        KEPT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
