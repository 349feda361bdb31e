"""What a person sees while something takes long: bars on stderr, gone when done; lines where stderr is a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def named_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each named piece of work that takes more than a moment; none where stderr is a file."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True)
    tasks: dict[str, Any] = {}

    def update(what: str, done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)
        if done >= total and all(task.finished for task in bar.tasks):
            bar.stop()

    try:
        yield update
    finally:
        bar.stop()


@contextmanager
def training_bar() -> Iterator[tuple[Callable[[dict[str, float]], None], Callable[[str], None]]]:
    """(report, warn) of a training: a bar with what matters and the time left, warnings above it, on stderr.

    Where stderr is a file: a line at each validation instead of the bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=None),  # what the text leaves; all of it fits a terminal of 80 columns
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, disable=not console.is_terminal, expand=True)
    task: list[Any] = []
    latest: dict[str, float] = {}

    def report(row: dict[str, float]) -> None:
        if not task:
            bar.start()
            task.append(bar.add_task("", total=1.0))
        latest.update(row)
        text = _progress_line(latest)
        bar.update(task[0], completed=row["done"], description=text)
        if not console.is_terminal and {"val_loss", "frd", "kid"} & row.keys():
            print(f"{row['done']:4.0%}  {text}", file=sys.stderr, flush=True)

    def warn(sentence: str) -> None:
        console.print(f"fabrica: warning: {sentence}", markup=False, highlight=False, soft_wrap=True)

    try:
        yield report, warn
    finally:
        bar.stop()


def _progress_line(row: dict[str, float]) -> str:
    """What a person wants to see while a model trains; `row` holds the last known value of each column.

    Of GANs: the distance from held-out images, the shares in per cent of real and of fake images that the critic
    tells apart, the gradient norms of critic and its opponent, the likeness of samples among each other, images/s.
    """
    said = [f"step {row['step']:.0f}"]
    if "real_accuracy" not in row:
        said.append(f"loss {row['loss']:.4f}")
    if "val_loss" in row:
        said.append(f"held-out {row['val_loss']:.4f}")
    if "frd" in row:
        said.append(f"FRD {_short(row['frd'])}")
    if "kid" in row:
        said.append(f"KID {_short(1000 * row['kid'])}")  # times 1000, as in reports
    if "real_accuracy" not in row:
        return " ".join([*said, f"{row['images_per_s']:.0f} images/s"])
    said.append(f"critic {100 * row['real_accuracy']:.0f}/{100 * row['fake_accuracy']:.0f} %")
    opponent = next(key for key in row if key.startswith("grad_norm_") and key != "grad_norm_critic")
    said.append(f"grad {_short(row['grad_norm_critic'])}/{_short(row[opponent])}")
    if "ms_ssim" in row:
        said.append(f"MS-SSIM {row['ms_ssim']:.2f}")
    return " ".join([*said, f"{row['images_per_s']:.0f}/s"])


def _short(value: float) -> str:
    """Two or three digits: 0.03, 0.3, 1.2, 55.1, 1234."""
    return f"{value:.{0 if abs(value) >= 99.95 else 1 if abs(value) >= 0.095 else 2}f}"
