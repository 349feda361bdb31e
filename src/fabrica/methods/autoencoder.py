"""Autoencoder: an image as a few numbers at each of few places, and back: where latent diffusion works.

Rombach, Blattmann, Lorenz, Esser, Ommer: High-resolution image synthesis with latent diffusion models (CVPR 2022,
section 3.1 and appendix G); of radiographs Pinaya et al., Generative AI for medical imaging (2023). L1, a little
divergence from a normal distribution, features, and a critic of patches that begins later: without it reconstructions
are blurred. The paper compares features of a network trained on photographs; here they are those of a network file, or
of the critic, which has seen nothing but radiology.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn

from fabrica.adversarial.losses import PATCH, accuracy, frozen, least_squares, refuse_small
from fabrica.errors import UsageError
from fabrica.methods import Compressor, Turn
from fabrica.nets import losses, slabs
from fabrica.nets.autoencoder import halves
from fabrica.nets.detail import Detail, Velocity
from fabrica.nets.framing import inner
from fabrica.nets.perceptual import feature_distance, seen_otherwise
from fabrica.nets.translators import PatchCritic

STRENGTH = 0.1
"""Weight of how well the strength of detail is known: too little to change the images, which learn from the rest."""

TURNS, PIECE = 8, 160
"""Turns in which detail learns, for one of all else, and the side of the pieces that it sees in each, one an image."""


class Autoencoder(Compressor):
    """Networks see images (B, C, *S) in [-1, 1], S = H, W or D, H, W; latents are (B, L, *s), s = S / factor."""

    @dataclass
    class Config:
        channels: list[int] = field(default_factory=lambda: [64, 128, 128, 128])  # each but the last halves the sides
        latent_channels: int = 3
        res_blocks: int = 2
        attention: bool = False  # at the deepest level
        norm_groups: int = 32
        patch: int = 1  # the network sees patch x patch pixels as channels of one: larger is faster
        shortcut: bool = False  # means of blocks go past the networks, which learn the rest, sooner
        detail: bool = False  # what latents do not hold, texture and edges, is drawn anew: see `fabrica.nets.detail`
        l1: float = 1.0
        ms_ssim: float = 0.0  # weight of 1 - MS-SSIM, of volumes on axial slices
        frequency: float = 0.0  # weight of the distance of Fourier coefficients, likewise
        kl: float = 1e-6  # weight of the divergence from a normal distribution, summed over an image's latents
        features: float = 0.05  # weight of the distance of features, the perceptual loss
        network: str = ""  # TorchScript: images (B, C, *S) in [-1, 1] -> features; empty: the critic, once it begins
        adversarial: float = 0.005  # weight of the critic; 0: no critic at all
        critic_width: int = 64
        critic_side: int = 0  # of a piece of each image, at a random place, that the critic sees; 0: it sees all
        pretrain: int = 1000  # steps before the critic begins

    ships: tuple[str, ...] = ("encoder", "decoder")
    validated = True
    keep = "loss"
    logged = ("l1", "kl")
    files = ("network",)
    config: Config

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape (C, *S) of the images in [-1, 1]; classes must be 0."""
        super().__init__()
        _check(config, shape, classes)
        self.config, self.shape = config, shape
        self.encoder, self.decoder = halves(
            shape,
            config.channels,
            config.latent_channels,
            config.res_blocks,
            config.attention,
            config.norm_groups,
            config.patch,
            config.shortcut,
            config.detail,
        )
        self.factor = self.encoder.factor
        self.players: dict[str, tuple[str, ...]] = {"autoencoder": ("encoder", "decoder")}
        if config.detail:
            self.detail = Detail(shape[0], self.factor)
            self.detail.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.7 times as fast
            self.ships = (*self.ships, "detail")
            self.players["detail"] = ("detail.velocity",)
        if config.adversarial:
            refuse_small("autoencoder", shape)
            if 0 < config.critic_side < PATCH or config.critic_side < 0:
                raise UsageError(
                    f"method.critic_side is {config.critic_side}; the critic takes {PATCH} or more, 0: all"
                )
            self.critic: nn.Module = PatchCritic(shape[0], config.critic_width, dims=len(shape) - 1)
            self.players["critic"] = ("critic",)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(L, *s) of the latents of an image of the recipe's size."""
        return self._latent_shape(self.shape[1:])

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        images, config = batch["image"], self.config
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        noise = torch.randn(mean.shape, generator=rng).to(mean.device)
        both = inner(self.decoder(mean + (log_variance / 2).exp() * noise), images.shape[2:])
        made = both[:, : images.shape[1]]
        divergence = kl(mean, log_variance).mean()
        loss = self._distance(made, images).mean() + config.kl * divergence
        strength, left_over = both[:, images.shape[1] :], (images - made).detach()
        if config.detail:
            loss = loss + STRENGTH * self.detail.surprise(strength, left_over).mean()
        seen = {"l1": float((made - images).detach().abs().mean()), "kl": float(divergence.detach())}
        judged = self.step >= config.pretrain and config.adversarial > 0
        if config.network and config.features:
            axis = int(torch.randint(3, (), generator=rng)) if images.ndim == 5 else 0
            loss = loss + config.features * seen_otherwise(config.network, made, images, axis)
        if not judged:
            yield Turn("autoencoder", loss, seen)
            for _ in range(TURNS if config.detail else 0):
                piece = at_random(images.shape[2:], PIECE, rng, Velocity.MULTIPLE)
                off = self.detail.loss(left_over[piece], made.detach()[piece], strength.detach()[piece], rng)
                yield Turn("detail", off)
            return
        piece = at_random(images.shape[2:], config.critic_side, rng)
        seen_real, seen_made = images[piece], made[piece]
        with frozen(self.critic):
            scores, *features = self.critic(seen_made, features=True)
            if config.features and not config.network:
                with torch.no_grad():
                    _, *wanted = self.critic(seen_real, features=True)
                loss = loss + config.features * feature_distance(features, wanted)
        yield Turn("autoencoder", loss + config.adversarial * least_squares(scores, 1.0), seen)

        on_real, on_fake = self.critic(torch.cat([seen_real, seen_made.detach()])).chunk(2)
        conditions = accuracy(on_real, on_fake, threshold=0.5)._asdict()
        yield Turn("critic", 0.5 * (least_squares(on_real, 1.0) + least_squares(on_fake, 0.0)), conditions)

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """The distance (B,) of held-out images from themselves, without critic, features and divergence."""
        images = batch["image"]
        return self._distance(self.decode(self.encode(images), images.shape[2:]), images)

    def encode(self, images: Tensor) -> Tensor:
        """images (B, C, *S) in [-1, 1], of any size -> latents (B, L, *s), each channel on the scale of `measure`: the
        means, without noise."""
        return (self._means(images) - self._per_channel(self.encoder.mean)) / self._per_channel(self.encoder.std)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        if not self.config.detail:
            return ()
        return (self.shape[0] * self.factor ** (len(self.shape) - 1), *self.latent_shape[1:])

    def decoded(self, latents: Tensor, size: Sequence[int] = (), noise: Tensor | None = None) -> Tensor:
        """latents (B, L, *s) -> images (B, C, *S). size: S of what was encoded; empty: the recipe's. noise:
        Gaussian (B, C factor^2, *s), of which detail is made; None: no detail."""
        size = tuple(size) or self.shape[1:]
        expected = self._latent_shape(size)
        if tuple(latents.shape[1:]) != expected:
            raise UsageError(
                f"latents are {list(latents.shape[1:])}; those of images of {list(size)} are {list(expected)}: "
                "give the size of what was encoded"
            )
        raw = latents * self._per_channel(self.encoder.std) + self._per_channel(self.encoder.mean)
        made = self._in_parts(self.decoder, lambda part: slabs.decoded(self.decoder, part), raw, size)
        if noise is None:
            return inner(self.completed(made), size).float()
        most = max(1, slabs.LARGE[made.device.type] // Velocity.size_of(made.shape[2:]))
        count = -(-len(made) // most)
        parts = zip(made.chunk(count), noise.chunk(count), strict=True)
        return inner(torch.cat([self.completed(*part) for part in parts]), size).float()

    def completed(self, made: Tensor, noise: Tensor | None = None) -> Tensor:
        """The images of what the decoder made, with the detail of this noise; None: without."""
        images, strength = made[:, : self.shape[0]], made[:, self.shape[0] :]
        return images if noise is None else self.detail(images, strength, noise)

    @torch.no_grad()
    def measure(self, images: Iterable[Tensor]) -> None:
        """Set the scale of the latents, so that each channel has mean 0 and standard deviation 1 over these batches of
        images (B, C, *S)."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in images:
            found = self._means(batch).transpose(0, 1).flatten(1).double()
            count, total, squares = count + found.shape[1], total + found.sum(1), squares + found.square().sum(1)
        self.encoder.mean.copy_(total / count)
        self.encoder.std.copy_((squares / count - (total / count).square()).clamp_min(1e-12).sqrt())

    def _latent_shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.config.latent_channels, *(-(-side // self.factor) for side in size))

    def _means(self, images: Tensor) -> Tensor:
        size = images.shape[2:]
        found = self._in_parts(self.encoder, lambda part: slabs.encoded(self.encoder, part), images, size)
        return found.chunk(2, dim=1)[0].float()

    def _in_parts(
        self, whole: Callable[[Tensor], Tensor], by_slabs: Callable[[Tensor], Tensor], x: Tensor, size: Sequence[int]
    ) -> Tensor:
        """`whole(x)`, and so many images (C, *size) at once that memory stays bounded; one that is large by slabs."""
        places = prod(-(-side // self.config.patch) for side in size)
        each, most = 4 * max(self.config.channels[:2]) * places, slabs.LARGE[x.device.type]
        if x.requires_grad or len(x) * each <= most:
            return whole(x)
        net, count = (by_slabs, 1) if each > most else (whole, most // each)
        return torch.cat([net(x[k : k + count]) for k in range(0, len(x), count)])

    def _per_channel(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (len(self.shape) - 1))

    def _distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        """(B,): what needs neither critic nor network."""
        config = self.config
        found = config.l1 * (made - wanted).abs().flatten(1).mean(1)
        one, other = _planes(made), _planes(wanted)
        if config.ms_ssim:
            found = found + config.ms_ssim * (1 - losses.ms_ssim(one, other)).view(len(made), -1).mean(1)
        if config.frequency:
            found = found + config.frequency * losses.frequency_distance(one, other).view(len(made), -1).mean(1)
        return found


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(B,): the divergence of N(mean, exp(log_variance)) from N(0, 1), summed over (L, *s) (Kingma & Welling 2014,
    appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def at_random(size: Sequence[int], side: int, rng: torch.Generator, grid: int = 1) -> tuple[slice, ...]:
    """What takes a piece of this side out of images (B, C, *size), of each the same; 0: all. Its middle lies anywhere,
    as far as the image has it, so that borders are seen, too; it begins at a multiple of grid."""
    if not side:
        return (slice(None), slice(None))
    middles = [int(torch.randint(each + 1, (), generator=rng)) for each in size]
    starts = [max(0, min(k - side // 2, each - side)) // grid * grid for k, each in zip(middles, size, strict=True)]
    return (slice(None), slice(None), *(slice(start, start + side) for start in starts))


def _planes(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as they are; volumes (B, C, D, H, W) as their axial slices (B D, C, H, W)."""
    return images if images.ndim == 4 else images.transpose(1, 2).flatten(0, 1)


def _check(config: Autoencoder.Config, shape: tuple[int, ...], classes: int) -> None:
    if classes:
        raise UsageError("autoencoder takes no labels; set data.condition=''")
    weights = (config.l1, config.ms_ssim, config.frequency, config.kl, config.features, config.adversarial)
    if min(weights) < 0 or config.l1 + config.ms_ssim + config.frequency == 0:
        raise UsageError(
            "method.l1, ms_ssim, frequency, kl, features and adversarial are weights: 0 or more, and one of the first "
            "three above 0"
        )
    if config.detail and config.adversarial:
        raise UsageError(
            "method.detail draws the texture that a critic would have the decoder paint; set method.adversarial=0 "
            "method.features=0, or method.detail=false"
        )
    if config.detail and len(shape) != 3:
        raise UsageError("method.detail is of images in two dimensions; set method.detail=false for volumes")
    if config.features and not (config.network or config.adversarial):
        raise UsageError(
            "method.features compares what the critic sees, and method.adversarial is 0; set method.features=0, or "
            "method.network to a TorchScript file"
        )
