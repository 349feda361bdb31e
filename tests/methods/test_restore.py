"""Restoration: the losses are what they say, noise goes away with clean images, with few, and with none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from fabrica.diffusion.drifting import drifting_loss
from fabrica.errors import UsageError
from fabrica.methods.restore import Restore
from fabrica.methods.srgan import SRGAN
from fabrica.nets.losses import ssim

GREY = (1, 32, 32)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(a: tuple[int, ...] = GREY, b: tuple[int, ...] = GREY, **config: Any) -> Restore:
    torch.manual_seed(0)
    return Restore(Restore.Config(**{"network": "redcnn", "width": 8, "critic_width": 8, **config}), a, b)


def clean(n: int, seed: int = 0, side: int = 32) -> Tensor:
    """Discs and ramps (n, 1, side, side), with edges that smoothing would lose."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    draw = torch.rand(n, 4, 1, 1, generator=rng(seed + 10_000))
    disc = (y - side * draw[:, 0]) ** 2 + (x - side * draw[:, 1]) ** 2 < (side * (0.15 + 0.25 * draw[:, 2])) ** 2
    return (0.8 * disc + 0.5 * (x / side - 0.5) * draw[:, 3] - 0.4)[:, None].float()


def noisy(images: Tensor, seed: int, sigma: float = 0.25) -> Tensor:
    return images + sigma * torch.randn(images.shape, generator=rng(seed))


def batch(step: int, n: int = 4) -> dict[str, Tensor]:
    wanted = clean(n, step)
    return {"a": noisy(wanted, step), "b": wanted, "index": torch.arange(step * n, step * n + n)}


def psnr(made: Tensor, wanted: Tensor) -> float:
    return float(10 * torch.log10(4 / (made - wanted).square().mean()))


def trained(method: Any, steps: int, lr: float = 3e-3) -> Any:
    optimisers = {
        player: torch.optim.Adam([p for n in names for p in getattr(method, n).parameters()], lr)
        for player, names in method.players.items()
    }
    for step in range(steps):
        for turn in method.turns(batch(step % 50), rng(step)):
            optimisers[turn.player].zero_grad()
            turn.loss.backward()
            optimisers[turn.player].step()
    return method.eval()


@torch.no_grad()
def gain(method: Restore) -> float:
    """dB over the noisy images, on images that training never saw."""
    wanted = clean(32, 999)
    given = noisy(wanted, 999)
    return psnr(method.translate(given, "a2b"), wanted) - psnr(given, wanted)


def test_without_clean_images_most_of_the_gain_remains() -> None:
    supervised, alone = (gain(trained(small(target=target), 100)) for target in ("clean", "self"))
    assert supervised > 5
    assert alone > 0.7 * supervised


def test_few_clean_images_and_the_noisy_rest_are_better_than_few() -> None:
    method = small(clean=0.25)
    known = method._known(torch.arange(4000))
    assert float(known.double().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(method._known(torch.arange(100, 200)), known[100:200])
    assert gain(trained(method, 100)) > 4


def test_of_unknown_images_the_clean_one_is_never_looked_at() -> None:
    for config in ({"target": "self"}, {"clean": 0.3}):
        method = small(**config)
        given = batch(0)
        spoilt = dict(given)
        spoilt["b"] = torch.where(method._known(given["index"])[:, None, None, None], given["b"], torch.nan)
        (one,), (other,) = (list(method.turns(some, rng())) for some in (given, spoilt))
        assert float(one.loss.detach()) == float(other.loss.detach())


def test_neighbours_are_two_different_pixels_side_by_side_of_each_square() -> None:
    method = small(target="self")
    shown: list[Tensor] = []

    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x)
            return x

    method.network = Seen()
    image = torch.arange(16 * 16, dtype=torch.float32).reshape(1, 1, 16, 16)
    loss = method._from_neighbours(image, rng(3))
    (both,) = shown
    assert both.shape == (2, 1, 8, 8)
    squares = []
    for half in both.long():
        y, x = half // 16, half % 16
        squares.append(torch.stack([y // 2, x // 2])[:, 0])
        assert torch.equal(squares[-1], torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")))
    apart = (both[0] - both[1]).abs().long()
    assert set(apart.unique().tolist()) == {1, 16}  # side by side, or one above the other
    assert 0 < float(loss) < 256


def test_pixels_count_by_the_inverse_of_the_noise_around_them() -> None:
    method = small(target="self")
    method.network = nn.Identity()
    image = torch.randn(1, 1, 256, 256, generator=rng())
    image[..., 128:] *= 4
    # of differences with variances 2 and 32 the harmonic mean; a plain mean would be 17
    assert float(method._from_neighbours(image, rng())) == pytest.approx(2 / (1 / 2 + 1 / 32), rel=0.15)
    for constant in (0.0, 0.7):
        assert float(method._from_neighbours(torch.full((1, 1, 32, 32), constant), rng())) == 0


def test_presets_and_weights_are_sums_of_their_terms() -> None:
    made, wanted = noisy(clean(4), 1), clean(4)
    l1, structure = (made - wanted).abs().mean((1, 2, 3)), 1 - ssim(made, wanted)
    torch.testing.assert_close(small(loss="l1+ssim")._distance(made, wanted), 0.7 * l1 + 0.3 * structure)
    torch.testing.assert_close(small(loss="l1+ssim+critic")._distance(made, wanted), 0.5 * l1 + 0.3 * structure)
    assert small(loss="l1+ssim+critic").weights["critic"] == 0.2 and "critic" not in small().players
    many = small(weights={"ms_ssim": 0.5, "gradient": 0.1, "frequency": 0.1})
    assert (many._distance(made, wanted) > l1).all()
    flat = torch.zeros(2, *GREY)
    assert torch.isfinite(many._distance(flat.requires_grad_(), flat.detach())).all()


@pytest.mark.parametrize("network", ["nafnet", "redcnn", "unet++"])
@pytest.mark.parametrize(("loss", "drift"), [("l1", 0.0), ("l1", 0.3), ("l1+ssim+critic", 0.0)])
def test_every_network_learns_every_loss_and_each_player_in_its_own_turn(network: str, loss: str, drift: float) -> None:
    torch.manual_seed(0)
    config = Restore.Config(
        network=network, size="tiny", width=4, loss=loss, weights={"drift": drift}, critic_width=4, unshuffle=2
    )
    method = Restore(config, (3, 32, 32), GREY)  # the middle one of three slices is restored
    wanted = clean(4)
    given = {"a": torch.cat([noisy(wanted, k) for k in range(3)], 1), "b": wanted, "index": torch.arange(4)}
    for turn in method.turns(given, rng()):
        method.zero_grad()
        turn.loss.backward()
        moved = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == set(method.players[turn.player])
    assert method.eval().translate(given["a"], "a2b").shape == (4, *GREY)
    assert method.validation(given, rng()).shape == (4,)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"network": "nafnt"}, "did you mean nafnet?"),
        ({"loss": "l2"}, "no loss 'l2'"),
        ({"weights": {"ssm": 1.0}}, "did you mean ssim?"),
        ({"weights": {"l1": -1.0}}, "method.weights.l1 is -1.0; expected 0 or more"),
        ({"weights": {"l1": 0.0}}, "are all 0"),
        ({"target": "none"}, "no target 'none'"),
        ({"clean": 0.0}, "method.clean is 0.0"),
    ],
)
def test_what_cannot_be_is_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        small(**config)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("network", ["nafnet", "unet++"])
def test_drifting_moves_the_answer_where_the_field_of_what_is_taken_away_does(network: str) -> None:
    """The gradient in the answers of its share is that of the drifting loss of residuals, whatever else is learned."""
    torch.manual_seed(0)
    wanted = clean(4)
    given = {"a": noisy(wanted, 0), "b": wanted, "index": torch.arange(4)}
    grads = {}
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        method = small(network=network, size="tiny", weights={"drift": weight}, supervised=False)
        answers: list[Tensor] = []
        method.network.register_forward_hook(lambda _, __, made, seen=answers: seen.append(made))
        (turn,) = method.turns(given, rng())
        answer = answers[0][-1] if isinstance(answers[0], list) else answers[0]
        (grads[weight],) = torch.autograd.grad(turn.loss, answer)
    field = (answer.detach() - given["a"]).requires_grad_()
    (direction,) = torch.autograd.grad(drifting_loss(field, wanted - given["a"], rng=rng()), field)
    alone = grads[0.5] - grads[0.0]
    assert float(alone.norm() / grads[0.0].norm()) == pytest.approx(0.5, rel=1e-3)
    assert float((alone * direction).sum() / alone.norm() / direction.norm()) == pytest.approx(1, abs=1e-3)
    assert method.least_batch == 2 and small().least_batch == 1


def test_volumes_and_crops_too_small_for_the_critic_are_refused() -> None:
    with pytest.raises(UsageError, match="restore sees slices"):
        small((1, 8, 32, 32), (1, 8, 32, 32))
    with pytest.raises(UsageError, match="takes 24 or more"):
        small((1, 16, 16), (1, 16, 16), loss="l1+ssim+critic")


class TestSRGAN:
    @staticmethod
    def small(**config: Any) -> SRGAN:
        torch.manual_seed(0)
        return SRGAN(SRGAN.Config(**{"width": 8, "blocks": 1, "critic_width": 8, **config}), GREY, GREY)

    @staticmethod
    def batch(step: int = 0) -> dict[str, Tensor]:
        wanted = clean(4, step)
        low = interpolate(avg_pool2d(wanted, 2), scale_factor=2)
        return {"a": low, "b": wanted, "index": torch.arange(4)}

    def test_the_critic_begins_after_the_training_by_distance(self) -> None:
        method = self.small(pretrain=2)
        for method.step, wanted in enumerate([["generator"], ["generator"], ["generator", "critic"]]):
            assert [turn.player for turn in method.turns(self.batch(), rng())] == wanted
        assert [t.player for t in self.small(pretrain=-1).turns(self.batch(), rng())] == ["generator"]

    def test_each_player_learns_in_its_own_turn(self) -> None:
        method = self.small()
        for turn in method.turns(self.batch(), rng()):
            method.zero_grad()
            turn.loss.backward()
            moved = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
            assert moved == {turn.player}

    def test_it_starts_as_the_bicubic_image_and_learns(self) -> None:
        method = self.small(pretrain=-1)
        optimiser = torch.optim.Adam(method.generator.parameters(), 2e-3)
        held = self.batch()
        with torch.no_grad():
            bicubic = method.eval().translate(held["a"], "a2b")
        expected = interpolate(held["a"][..., ::2, ::2], scale_factor=2, mode="bicubic").clamp(-1, 1)
        torch.testing.assert_close(bicubic, expected)
        method.train()
        for _ in range(150):
            (turn,) = method.turns(held, rng())
            optimiser.zero_grad()
            turn.loss.backward()
            optimiser.step()
        with torch.no_grad():
            assert psnr(method.eval().translate(held["a"], "a2b"), held["b"]) > psnr(bicubic, held["b"]) + 0.05

    def test_a_network_file_sees_in_the_critics_place(self, tmp_path: Path) -> None:
        with pytest.warns(DeprecationWarning):
            seer = torch.jit.script(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()))  # type: ignore[no-untyped-call]
        seer.save(str(tmp_path / "seer.pt"))
        method = self.small(network=str(tmp_path / "seer.pt"), l1=0.0, adversarial=0.0)
        given = self.batch()
        generator, _ = method.turns(given, rng())
        made = method.generator(given["a"])
        wanted = (seer(made) - seer(given["b"])).square().mean()
        assert float(generator.loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-3)
        (tmp_path / "no.pt").write_text("weights")
        with pytest.raises(UsageError, match=r"no\.pt is no TorchScript file"):
            list(self.small(network=str(tmp_path / "no.pt")).turns(given, rng()))

    def test_what_cannot_be_is_one_line(self) -> None:
        with pytest.raises(UsageError, match="expected 2 or 4"):
            self.small(scale=3)
        with pytest.raises(UsageError, match="makes slices finer"):
            SRGAN(SRGAN.Config(), (3, 32, 32), GREY)
        with pytest.raises(UsageError, match="takes 32 or more"):
            SRGAN(SRGAN.Config(), (1, 24, 24), (1, 24, 24))


class Shown(nn.Module):
    """Keeps what it sees, and gives its first channel back."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return x[:, :1] * self.gain


def test_contrasts_beside_are_dropped_one_by_one_and_the_degraded_image_never() -> None:
    method = Restore(Restore.Config(network="redcnn", width=8, drop=0.3), (3, 8, 8), GREY, 2)
    method.network = Shown()
    n = 2000
    given = {"a": torch.rand(n, 5, 8, 8, generator=rng()), "b": torch.rand(n, 1, 8, 8), "index": torch.arange(n)}
    before = given["a"].clone()
    list(method.turns(given, rng(7)))
    seen = method.network.seen[0]
    assert torch.equal(given["a"], before)  # the batch itself is left as it is
    assert torch.equal(seen[:, :3], before[:, :3])
    gone = (seen[:, 3:] == -1).flatten(2).all(2)
    assert torch.equal(seen[:, 3:][~gone], before[:, 3:][~gone])
    both = (gone[:, 0] & gone[:, 1]).double().mean()
    assert gone.double().mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.04)
    assert float(both) == pytest.approx(0.09, abs=0.03)  # each of its own accord
    list(method.turns(given, rng(7)))
    assert torch.equal(method.network.seen[1], seen)  # the seed decides
    method.network.seen.clear()
    method.validation(given, rng(7))
    assert torch.equal(method.network.seen[0], before)  # held-out images keep all


def test_without_clean_images_contrasts_are_dropped_from_both_neighbours() -> None:
    method = Restore(Restore.Config(network="redcnn", width=8, drop=0.3, target="self"), (3, 8, 8), GREY, 2)
    method.network = Shown()
    given = {"a": torch.rand(100, 5, 8, 8, generator=rng()), "b": torch.full((100, 1, 8, 8), torch.nan)}
    list(method.turns({**given, "index": torch.arange(100)}, rng(7)))
    gone = (method.network.seen[0] == -1).flatten(2).all(2)
    assert torch.equal(gone[:100], gone[100:]) and not gone[:, :3].any()
    assert 20 < int(gone[:100, 3].sum()) < 40


def test_neighbours_are_those_of_the_degraded_image_whatever_stands_beside() -> None:
    given, losses = torch.rand(2, 3, 16, 16, generator=rng()), []
    for beside in (0, 2):
        method = Restore(Restore.Config(network="redcnn", width=8, target="self"), GREY, GREY, beside)
        method.network = Shown()
        losses.append(method._from_neighbours(given[:, : 1 + beside], rng(3)))
    assert torch.equal(*losses)


def test_colours_of_a_contrast_go_together() -> None:
    method = Restore(Restore.Config(network="redcnn", width=8, drop=0.5), (3, 8, 8), (3, 8, 8), 2)
    seen = method._dropped(torch.rand(200, 9, 8, 8, generator=rng()), rng(1))
    gone = (seen == -1).flatten(2).all(2)
    assert not gone[:, :3].any()
    for first in (3, 6):
        assert 60 < int(gone[:, first].sum()) < 140 and (gone[:, first : first + 3] == gone[:, first : first + 1]).all()


@pytest.mark.parametrize("drop", [-0.1, 1.0, float("nan")])
def test_a_share_to_drop_that_cannot_be_is_one_line(drop: float) -> None:
    with pytest.raises(UsageError, match=r"method.drop is .*; expected a share from 0 to below 1"):
        small(drop=drop)
