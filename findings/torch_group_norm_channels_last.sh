#!/bin/bash
# torch 2.13.0 takes group norm in channels last on processors, and takes the gradient many times as slowly so as of the same
# values in contiguous order, where a group has few channels and values are bfloat16: U-Nets of diffusion have 32 groups of 64
# or 128 channels. Advice to train with channels last, since convolutions are faster so, makes such a network slower as a whole:
# its 27 norms cost more than its 35 convolutions gain. Contiguous order, or fewer groups, is the way out.
# Seen: torch 2.13.0 (CPU), numpy 2.2.6, Python 3.11, one thread of a processor with AVX-512, (32, C, 32, 32) in 32 groups:
#   C  64  bfloat16  contiguous   0.7 ms  channels last  21.2 ms
#   C 128  bfloat16  contiguous   1.4 ms  channels last  24.4 ms
# Exit 0 while the gradient in channels last takes more than four times as long at C = 64, 1 once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6 2>/dev/null
venv/bin/python -W ignore - <<'PY'
import statistics
import time

import torch

torch.set_num_threads(1)


def milliseconds(x, groups, rounds=15):
    norm = torch.nn.GroupNorm(groups, x.shape[1])
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    dy = torch.randn_like(y)
    assert y.dtype == x.dtype == torch.bfloat16 and y.stride() == x.stride()
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        torch.autograd.grad(y, (x, norm.weight, norm.bias), dy, retain_graph=True)
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


ratios = []
for channels in (64, 128):
    values = torch.randn(32, channels, 32, 32, dtype=torch.bfloat16)
    plain = milliseconds(values, 32)
    last = milliseconds(values.to(memory_format=torch.channels_last), 32)
    print(f"C {channels:3}  bfloat16  contiguous {plain:5.1f} ms  channels last {last:5.1f} ms")
    ratios.append(last / plain)
raise SystemExit(0 if ratios[0] > 4 else 1)
PY
