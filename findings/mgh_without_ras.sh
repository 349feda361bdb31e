#!/bin/bash
# An MGH volume whose header says that its directions are not good (goodRASFlag 0) is coronal by FreeSurfer's rule:
# setDirectionCosine(MRI_CORONAL) in utils/mri.cpp has x from right to left, y from head to neck (y_s = -1), z from back
# to front (z_a = +1). nibabel 5.4.2 fills the same nine numbers into its header transposed: y runs from neck to head and z
# from front to back. The volume is turned by 180 degrees about the left-right axis: upside down, and face to the back.
# No voxel is lost and nothing is said, so that a network or a registration is given such heads upside down. nibabel's own
# vox2ras-tkr of the same file, which knows the rule as a matrix, is the right one, so that its two answers differ.
# Seen: nibabel 5.4.2, numpy 2.2.6, Python 3.11:
#   affine      y -> [0, 0, 1]   z -> [0, -1, 0]
#   vox2ras-tkr y -> [0, 0, -1]  z -> [0, 1, 0]
# Exit 0 while that is so, 1 once it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check nibabel==5.4.2 numpy==2.2.6 2>/dev/null
venv/bin/python - <<'PY'
import nibabel, numpy as np

nibabel.save(nibabel.MGHImage(np.zeros((4, 6, 8), np.int16), np.eye(4)), "x.mgh")
raw = bytearray(open("x.mgh", "rb").read())
raw[28:30] = b"\0\0"  # goodRASFlag
open("x.mgh", "wb").write(raw)
image = nibabel.load("x.mgh")
found, tkr = image.affine[:3, :3], image.header.get_vox2ras_tkr()[:3, :3]
for name, matrix in (("affine     ", found), ("vox2ras-tkr", tkr)):
    print(name, "y ->", matrix[:, 1].astype(int), " z ->", matrix[:, 2].astype(int))
coronal = [[-1, 0, 0], [0, 0, 1], [0, -1, 0]]  # FreeSurfer's: columns x, y, z
assert np.array_equal(tkr, coronal)
raise SystemExit(not np.array_equal(found, np.transpose(coronal)))
PY
echo "nibabel has the axes of an MGH volume without directions the other way round"
