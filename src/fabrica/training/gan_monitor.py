"""What goes wrong with a GAN while it trains, seen early and said in one sentence with the remedy.

Mode collapse   the samples are nearly alike: the MS-SSIM among them is above 1 - (1 - real) / 10, where `real` is that
                among real images (nine tenths of their variety are gone), at LOOKS looks in a row, none of them
                before step GRACE, because every generator starts by drawing one and the same grey.
No gradient     the generator learns nothing: at LOOKS rows of the log in a row the norm of its gradient is below
                FAINT of the largest one in the first LOOKS rows.
Runaway critic  its scores grow without bound and throw the generator about: at LOOKS rows in a row the norm of the
                generator's gradient is above VIOLENT, where healthy runs have some tens, and single rows of thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fabrica.conditioning.dataset import Conditioned
from fabrica.data.pairs import Pairs
from fabrica.data.standardise import middle
from fabrica.methods import Method
from fabrica.metrics import fidelity
from fabrica.model.synthesis import in_turn
from fabrica.model.task import drawn
from fabrica.model.tasks import task_of
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe

LogRow = Mapping[str, float]

LOOKS = 4
GRACE = 300  # steps
LOST = 9 / 10
FAINT = 1e-3
VIOLENT = 1e3
LOOKED, PAIRS = 32, 64  # samples, and pairs of them, in one look: a tenth of a second
REAL = 256  # real images


@dataclass
class GanMonitor:
    """Looks at each row of the log. The same rows give the same alarms, so a resumed run shows it its old ones.

    real       MS-SSIM among real images.
    diversity  (averaged method) -> MS-SSIM among its samples; None for those whose images are as diverse as their
               sources.
    """

    real: float
    diversity: Callable[[Method], float] | None
    rows: list[LogRow] = field(default_factory=list)
    ailing: set[str] = field(default_factory=set)

    def see(self, row: LogRow) -> list[str]:
        """One sentence for each trouble that is new with this row; again only after it had gone."""
        self.rows.append(row)
        found = {
            "collapse": collapse(self.rows, self.real),
            "gradient": no_gradient(self.rows),
            "runaway": runaway(self.rows) if self.diversity else "",  # translators weigh their losses by tens
        }
        fresh = [sentence for trouble, sentence in found.items() if sentence and trouble not in self.ailing]
        self.ailing = {trouble for trouble, sentence in found.items() if sentence}
        return fresh


def collapse(rows: Sequence[LogRow], real: float) -> str:
    """The sentence on mode collapse, "" while there is none. rows: those of the log, with ms_ssim at each look."""
    looks = [row for row in rows if "ms_ssim" in row and row["step"] >= GRACE][-LOOKS:]
    limit = 1 - (1 - real) * (1 - LOST)
    if len(looks) < LOOKS or any(row["ms_ssim"] <= limit for row in looks):
        return ""
    return (
        f"mode collapse: the samples are nearly alike since step {looks[0]['step']:.0f} "
        f"(MS-SSIM {looks[-1]['ms_ssim']:.2f} among them, {real:.2f} among real images); "
        "start again with a tenth of train.lr, or of train.lr_of.critic or .generator where one is set, "
        "or take method.name=modern-gan"
    )


def no_gradient(rows: Sequence[LogRow]) -> str:
    """The sentence on vanished gradients of the generator, "" while there are some."""
    norms = _norms(rows)
    if len(norms) < 2 * LOOKS:
        return ""
    usual = max(norm for _, norm in norms[:LOOKS])
    if any(norm >= FAINT * usual for _, norm in norms[-LOOKS:]):
        return ""
    return (
        f"the generator has learned nothing since step {norms[-LOOKS][0]:.0f}: its gradient norm is {norms[-1][1]:.1g}"
        f", at the start it was {usual:.1g}; start again with a tenth of train.lr, or of train.lr_of.critic where it "
        "is set"
    )


def runaway(rows: Sequence[LogRow]) -> str:
    """The sentence on a critic that runs away, "" while it does not."""
    norms = _norms(rows)[-LOOKS:]
    if len(norms) < LOOKS or any(norm <= VIOLENT for _, norm in norms):
        return ""
    return (
        f"the critic runs away: since step {norms[0][0]:.0f} the generator's gradient norm is above {VIOLENT:.0f} "
        f"({norms[-1][1]:.1g} now); start again with a tenth of train.lr, or of train.lr_of.critic where it is set, "
        "or hold the critic by penalties: method.name=modern-gan method.norm=none method.penalty=0.3"
    )


def _norms(rows: Sequence[LogRow]) -> list[tuple[float, float]]:
    return [(row["step"], row["grad_norm_generator"]) for row in rows if "grad_norm_generator" in row]


def open_monitor(
    method: Method, recipe: Recipe, found: Found, heldout: Conditioned | Pairs, device: torch.device
) -> GanMonitor:
    """The watch on a run whose held-out images are these."""
    task = task_of(method)
    if not task.diverse:
        return GanMonitor(1.0, None)
    images = task.judged(heldout)
    real = middle(images.read(range(min(len(images), REAL))), found.size)
    told = in_turn(recipe, found, LOOKED)

    def diversity(averaged: Any) -> float:
        made = middle(drawn(averaged, recipe, told, LOOKED, device), found.size)
        return fidelity.diversity(made, PAIRS)[0]

    alike = fidelity.diversity(real, REAL)[0] if len(real) > 1 else 1.0  # one image tells nothing of variety
    return GanMonitor(alike, diversity)
