"""A volume larger than what an ordinary machine could hold of its classes: 512 x 512 x 800 voxels, 25 labels."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

GIB = 2**30
CODE = """
import json, resource, sys, time
from fabrica.cli.importing import importing
with importing():
    import numpy as np, torch
    from fabrica.codec import Codec
    from fabrica.image import Image
    from fabrica.inference.translation import Way
    from fabrica.inference.translator import apply
    from fabrica.nets.segmenters import SegmenterUNet
    from fabrica.recipe.found import Fingerprint
    from fabrica.recipe.schema import DataConfig

size, mm, limit = json.loads(sys.argv[1])
window = [64, 96, 96]
torch.manual_seed(0)
network = SegmenterUNet(1, 25, [4, 8], [[1] * 3, [2] * 3], [[3] * 3] * 2, [0, 0]).eval()
with torch.no_grad():  # of an untrained network as it is, one class wins everywhere
    for values in network.heads.parameters():
        values.normal_().sub_(values.mean(1, keepdim=True) if values.ndim > 1 else values)
spent = 0.0

def net(windows):
    global spent
    began = time.monotonic()
    with torch.inference_mode():
        found = (2 * network(torch.from_numpy(np.ascontiguousarray(windows))).softmax(1) - 1).numpy()
    spent += time.monotonic() - began
    return found

def kib(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))

net(np.zeros((1, 1, *window), dtype=np.float32))  # its threads are there now
resident, spent = kib("VmRSS"), 0.0
taken = kib("VmSize") * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken + limit, resource.RLIM_INFINITY))
began = time.monotonic()
values = np.empty((1, *size), dtype=np.float32)
for k in range(size[0]):  # plane by plane, or random numbers stand in memory twice
    values[0, k] = np.random.default_rng(k).standard_normal(size[1:], dtype=np.float32)
image = Image(values, np.diag([1.0, 1.0, 1.0, 1.0]), origin={"format": "nifti"})
way = Way(net, Codec("window", -3, 3), Codec("label", classes=25, unit="label"), DataConfig(size=window),
          Fingerprint(spacing=[mm] * 3), "SEG")
began = time.monotonic()
result = apply(image, way, overlap=0.25, batch=1).result
seconds = time.monotonic() - began
numbers = np.bincount(result.data[0, ::7, ::7, ::7].astype(int).ravel(), minlength=25)
print(json.dumps({"gib": (kib("VmHWM") - resident) / 2**20, "seconds": seconds, "network": spent,
                  "size": list(result.data.shape), "numbers": int((numbers > 0).sum()),
                  "max": float(result.data.max())}))
"""


def worked(size: list[int], mm: float, limit: float) -> dict[str, float]:
    """What a process of its own says that may take so many GiB more than its imports and its network do."""
    asked = json.dumps([size, mm, int(limit * GIB)])
    done = subprocess.run([sys.executable, "-c", CODE, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mm", [1.0, 1.5])
def test_it_finishes_within_four_gib(mm: float) -> None:
    found = worked([800, 512, 512], mm, 4.0)
    assert found["size"] == [1, 800, 512, 512] and found["numbers"] > 5 and found["max"] <= 24
    assert found["gib"] < 4.0


def test_memory_is_that_of_a_slab() -> None:
    """Of 25 classes 128 planes of 128 x 128 would be 0.2 GiB, and a third of it more at the network's spacing."""
    found = worked([128, 128, 128], 1.5, 0.5)
    assert found["size"] == [1, 128, 128, 128] and found["numbers"] > 5 and found["gib"] < 0.25
