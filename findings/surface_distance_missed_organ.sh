#!/bin/bash
# DeepMind's surface-distance 0.1, by which surface Dice and HD95 are usually checked, measures a missed organ (truth there,
# answer empty) with numpy 1: all distances infinite, so that surface Dice is 0 and HD95 infinite. With numpy 2 the same call
# raises AttributeError, and only then: two masks that both show something are measured as ever, so that an evaluation runs
# for hours and ends at the first organ that a model missed. The package names no numpy version, so pip puts it beside
# numpy 2. Whoever catches the error and goes on has dropped the missed organs from the mean.
# Seen: surface-distance 0.1, scipy 1.15.3, Python 3.11:
#   numpy 1.26.4: both there 1.0   missed: surface Dice 0.0, HD95 inf
#   numpy 2.2.6:  both there 1.0   missed: AttributeError
# Exit 0 while that is so, 1 once it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > measured.py <<'PY'
import sys
import numpy as np
import surface_distance

truth, empty = np.zeros((16, 16, 16), bool), np.zeros((16, 16, 16), bool)
truth[4:10, 4:10, 4:10] = True
both = surface_distance.compute_surface_distances(truth, truth, (1.0, 1.0, 1.0))
said = [f"both there {surface_distance.compute_surface_dice_at_tolerance(both, 1.0)}"]
try:
    missed = surface_distance.compute_surface_distances(truth, empty, (1.0, 1.0, 1.0))
    near = surface_distance.compute_surface_dice_at_tolerance(missed, 1.0)
    far = surface_distance.compute_robust_hausdorff(missed, 95)
    said.append(f"missed: surface Dice {near}, HD95 {far}")
except Exception as error:
    said.append(f"missed: {type(error).__name__}")
print(f"numpy {np.__version__}: {'   '.join(said)}")
raise SystemExit(said != ["both there 1.0", sys.argv[1]])
PY
changed=0
for pair in "1.26.4|missed: surface Dice 0.0, HD95 inf" "2.2.6|missed: AttributeError"; do
    python3 -m venv "venv-${pair%%|*}"
    "venv-${pair%%|*}/bin/pip" install --quiet --disable-pip-version-check surface-distance==0.1 scipy==1.15.3 "numpy==${pair%%|*}" 2>/dev/null
    "venv-${pair%%|*}/bin/python" -W ignore measured.py "${pair##*|}" || changed=1
done
[ "$changed" = 0 ] || exit 1
echo "surface-distance raises on a missed organ with numpy 2, and measures it with numpy 1"
