#!/bin/bash
# statsmodels 0.15 counts a missing rating (NaN) as a category of its own: `aggregate_raters`, which its documentation gives as
# the way from ratings to `fleiss_kappa`, puts NaN beside the grades, and then "not read" agrees with "not read" and disagrees
# with every grade. No warning. Four raters who share the cases, each case read by two of them who always agree, have Fleiss's
# kappa 1 by the pairs of ratings that there are; statsmodels says less than chance.
# Seen: statsmodels 0.15.0, numpy 2.4.6, pandas 3.1.1, Python 3.11:
#   categories 1, 2, nan; statsmodels -0.07, by pairs 1.00
# Exit 0 while that is so, 1 once it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check statsmodels==0.15.0 numpy==2.4.6 pandas==3.1.1 2>/dev/null
cat > missing.py <<'PY'
import numpy as np
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

rng = np.random.default_rng(0)
ratings = np.repeat(rng.integers(1, 3, (400, 1)), 4, axis=1).astype(float)  # (cases, raters), who all agree
ratings[:200, :2] = np.nan  # half of the cases are read by two of the raters, half by the others
ratings[200:, 2:] = np.nan
table, categories = aggregate_raters(ratings)
theirs = fleiss_kappa(table)

pairs = np.array([row[np.isfinite(row)] for row in ratings])
share = (pairs == 1).mean()
expected = share**2 + (1 - share) ** 2
by_pairs = ((pairs[:, 0] == pairs[:, 1]).mean() - expected) / (1 - expected)
print(f"categories {', '.join(f'{c:g}' for c in categories)}; statsmodels {theirs:.2f}, by pairs {by_pairs:.2f}")
raise SystemExit(not (len(categories) == 3 and theirs < 0.1 and by_pairs == 1))
PY
venv/bin/python missing.py || exit 1
echo "statsmodels takes missing ratings for a category of their own"
