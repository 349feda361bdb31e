"""python -m benchmarks.translation [ROUNDS]: training images/s of CycleGAN at 128 x 128, our loop against the paper's.

Both train the same networks of the paper (64 channels, six blocks) on the same images. The paper's loop is written out
below, straight and in fp32: every translation in a pass of its own, images doubled before the convolution that follows,
plain Adam, and critics whose own gradients are computed in the generators' turn and thrown away. Rounds of the two
alternate in one process, so that the machine's mood cancels out.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss

from benchmarks.kept import keep
from benchmarks.ratio import told
from fabrica.adversarial.losses import History
from fabrica.codec import Codec
from fabrica.data.cache import build_cache
from fabrica.data.pairs import Pairs
from fabrica.methods.cyclegan import CycleGAN
from fabrica.nets.convolutions import Doubling, Narrowing
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.batches import batch_at
from fabrica.training.loop import train

SIZE, WIDTH, BLOCKS = 128, 64, 6
ROUNDS, STEPS, WARM = 3, 6, 2
CYCLE, IDENTITY = 10.0, 5.0  # lambda, and half of it


class Enough(Exception):
    """Raised in the middle of a run, so that no time goes into its held-out score and its pictures."""


def recipe(batch: int) -> Recipe:
    values = [f"data.size={SIZE}", f"data.batch={batch}", "data.count=64"]
    values += ["codec.kind=percentile", "codec.low=0.5", "codec.high=99.5", "codec.default_limits=[0.0,1.0]"]
    values += ["codec_b.kind=window", "codec_b.low=-1024", "codec_b.high=3071", "codec_b.unit=HU"]
    values += ["train.steps=10000", "train.minutes=0", "train.log_every=1"]
    values += [f"train.{period}_every=10000" for period in ("validate", "sample", "checkpoint")]
    networks = {"width": WIDTH, "blocks": BLOCKS, "critic_width": WIDTH}
    method = {"name": "cyclegan", **networks, "cycle": CYCLE, "identity": IDENTITY / CYCLE}
    return replace(load_recipe("cyclegan-head", values), method=method)


def ours(batch: int, steps: int) -> float:
    rates: list[float] = []

    def report(row: dict[str, float]) -> None:
        rates.append(row["images_per_s"])
        if len(rates) == steps:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        train(recipe(batch), Path(folder) / "run", report=report)
    return median(rates[WARM:])


def papers(batch: int, steps: int) -> float:
    data = sides(batch)
    method = CycleGAN(CycleGAN.Config(width=WIDTH, blocks=BLOCKS, critic_width=WIDTH), data.a.shape, data.b.shape)
    for generator in (method.a2b, method.b2a):
        generator.decode = nn.Sequential(*itertools.chain.from_iterable(map(_written_out, generator.decode)))
    a2b, b2a, critic_a, critic_b = method.a2b, method.b2a, method.critic_a, method.critic_b
    generators = torch.optim.Adam(itertools.chain(a2b.parameters(), b2a.parameters()), 2e-4, betas=(0.5, 0.999))
    critics = torch.optim.Adam(itertools.chain(critic_a.parameters(), critic_b.parameters()), 2e-4, betas=(0.5, 0.999))
    past_a, past_b = History(50, data.a.shape), History(50, data.b.shape)
    rng = torch.Generator().manual_seed(0)
    rates = []
    for step in range(steps):
        images = batch_at(data, step, batch, seed=0)
        a, b = images["a"], images["b"]
        began = time.perf_counter()
        fake_b, fake_a = a2b(a), b2a(b)
        again_a, again_b = b2a(fake_b), a2b(fake_a)
        same_b, same_a = a2b(b), b2a(a)
        generators.zero_grad()
        loss = IDENTITY * (l1_loss(same_a, a) + l1_loss(same_b, b))
        loss = loss + CYCLE * (l1_loss(again_a, a) + l1_loss(again_b, b))
        for critic, fake in ((critic_a, fake_a), (critic_b, fake_b)):
            scores = critic(fake)
            loss = loss + mse_loss(scores, torch.ones_like(scores))
        loss.backward()
        generators.step()
        critics.zero_grad()
        for critic, past, real, fake in ((critic_a, past_a, a, fake_a), (critic_b, past_b, b, fake_b)):
            on_real, on_fake = critic(real), critic(past(fake.detach(), rng))
            halves = mse_loss(on_real, torch.ones_like(on_real)) + mse_loss(on_fake, torch.zeros_like(on_fake))
            (0.5 * halves).backward()
        critics.step()
        rates.append(batch / (time.perf_counter() - began))
    return median(rates[WARM:])


def _written_out(layer: nn.Module) -> list[nn.Module]:
    """The layers that `Doubling` and `Narrowing` compute otherwise."""
    if isinstance(layer, Doubling):
        return [nn.Upsample(scale_factor=2), layer.convolution]
    return [layer.convolution] if isinstance(layer, Narrowing) else [layer]


def sides(batch: int) -> Pairs:
    chosen = recipe(batch)
    codec_b = Codec("window", -1024.0, 3071.0, "HU")
    codecs = {"a": Codec("percentile", 0.5, 99.5, default_limits=(0.0, 1.0)), "b": codec_b}
    a, b = (build_cache(chosen.data, codec, "train", side=side) for side, codec in codecs.items())
    return Pairs(a, b, False, (codecs["a"], codec_b))


def main(rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, str]:
    """Score by name, as `python -m benchmarks` keeps them. The goal is twice the paper's rate."""
    scores = {}
    for batch in (1, 4):
        pairs = [(ours(batch, steps), papers(batch, steps)) for _ in range(rounds)]
        scores[f"CycleGAN {SIZE} x {SIZE}, batch {batch}, ours / the paper's fp32 loop"] = told(pairs, 2)
    return scores


if __name__ == "__main__":
    results = Path(__file__).parent / "results.json"
    found = main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    for key, value in found.items():
        print(f"   {key:<60}{value}")
    keep(results, "translation", found)
