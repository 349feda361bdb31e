"""Steps of the training loop one by one, for what watches them."""

from __future__ import annotations

from collections.abc import Callable

from fabrica.training import loop
from fabrica.training.run import Run


def stepping(run: Run) -> Callable[[], None]:
    """A function that makes the run's next step at its full learning rate, averages, and neither validates nor logs."""
    batches, meter = loop._batches(run), loop.Meter()

    def step() -> None:
        loop._step(run, [next(batches) for _ in range(run.recipe.train.accumulate)], 1.0, meter)
        loop._average(run)
        run.state.step += 1

    return step
