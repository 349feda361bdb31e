"""Knowledge distillation: a small model that translates, restores or segments learns from a trained larger one.

Hinton, Vinyals, Dean: Distilling the knowledge in a neural network (2015), and Romero et al.: FitNets: hints for thin
deep nets (ICLR 2015). Beside its own loss the student learns what its teacher answers to the same images, of label maps
softened by a temperature, and, through a layer of 1 x 1 that is thrown away afterwards, what the teacher finds at its
coarsest resolution. Both count for less and less, and for nothing at the end (teacher annealing: Clark et al., BAM!,
ACL 2019), since a student that has come as far as its teacher is held back by it. The student's method goes on as it
does alone: its network is watched while it makes its turns, so that any method and any pair of networks will do, and
what is trained is a model like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, kl_div, log_softmax, logsigmoid

from fabrica.errors import UsageError
from fabrica.methods import Translator, Turn
from fabrica.nets.convolutions import CONVOLUTIONS
from fabrica.nets.device import autocast
from fabrica.recipe.schema import DistillConfig


class Lesson:
    """What a student learns beside its own loss, with a module `hint` that it trains and does not ship.

    done    how much of the training is over, 0 to 1, set by the loop.
    """

    done = 0.0

    def __init__(
        self, config: DistillConfig, student: Translator, teacher: Translator, shape: Sequence[int], precision: str
    ) -> None:
        """shape: (C, *S) of what both see. precision: in which the teacher answers. UsageError for a student or a
        teacher that is more than one network, and for two that see or answer with other channels."""
        self.config, self.precision = config, precision
        self.student, self.teacher = _network(student, "the student"), _network(teacher, "the teacher")
        self.labels, self.regions = student.task == "segmentation", bool(getattr(student, "regions", False))
        example = torch.zeros(1, *shape)
        self.guided, v, made = coarsest(self.student, example)
        try:
            self.hint, u, wanted = coarsest(self.teacher, example.to(next(self.teacher.parameters()).device))
        except RuntimeError as error:
            raise UsageError(
                f"the student sees {shape[0]} channel(s) of {len(shape) - 1} dimensions, and its teacher does not see "
                "these; take another teacher, or the same data.context, data.auxiliary and data.size"
            ) from error
        if made.shape != wanted.shape:
            raise UsageError(
                f"the student answers with {list(made.shape[1:])} and its teacher with {list(wanted.shape[1:])}; both "
                "must make the same of an image"
            )
        self.player = next(name for name, owned in student.players.items() if student.ships[0] in owned)
        student.logged = (*student.logged, "answers")
        if config.features:
            student.hint = CONVOLUTIONS[len(shape) - 1](v.shape[1], u.shape[1], 1)
            student.players = {**student.players, self.player: (*student.players[self.player], "hint")}
            student.logged = (*student.logged, "features")

    def turns(self, student: Translator, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        """The student's own turns; to that of its network is added what the teacher says of all that it saw since."""
        own, seen = student.turns(batch, rng), list[Seen]()
        while True:
            with watched(self.student, self.guided) as calls:
                turn = next(own, None)
            if turn is None:
                return
            seen += [call for call in calls if call.answer.requires_grad]
            if turn.player == self.player and seen:
                parts = [self._taught(student, call) for call in seen]
                told = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
                lesson = self.config.answers * told["answers"]
                if "features" in told:
                    lesson = lesson + self.config.features * as_large_as(told["features"], told["answers"])
                loss = self.config.own * turn.loss + (1 - self.done) * lesson
                shown = {name: float(value.detach()) for name, value in told.items()}
                turn = Turn(turn.player, loss, {**turn.metrics, **shown})
                seen.clear()
            yield turn

    def _taught(self, student: Translator, call: Seen) -> dict[str, Tensor]:
        with torch.no_grad(), autocast(self.precision, call.images.device), watched(self.teacher, self.hint) as calls:
            self.teacher(call.images)
        (teacher,) = calls
        if self.labels:
            answers = softened(call.answer, teacher.answer, self.config.temperature, self.regions)
        else:
            answers = (call.answer - teacher.answer).abs().mean()
        found = {"answers": answers}
        if self.config.features:
            found["features"] = hinted(student.get_submodule("hint")(call.feature), teacher.feature)
        return found


def softened(student: Tensor, teacher: Tensor, temperature: float, regions: bool = False) -> Tensor:
    """How far the student's soft labels are from its teacher's: the Kullback-Leibler divergence of logits (B, K, *S)
    divided by the temperature, times its square, so that its gradient is as large at any (Hinton et al., section 2).
    regions: channels are labels of their own, each in or out."""
    v, z = teacher / temperature, student / temperature
    if regions:
        entropy = -(v.sigmoid() * logsigmoid(v) + (-v).sigmoid() * logsigmoid(-v)).mean()
        return temperature**2 * (binary_cross_entropy_with_logits(z, v.sigmoid()) - entropy)
    each = kl_div(log_softmax(z, 1), log_softmax(v, 1), reduction="none", log_target=True).sum(1)
    return temperature**2 * each.mean()


def as_large_as(loss: Tensor, other: Tensor) -> Tensor:
    """The loss, brought to the size of another one without its gradient: squares of features are near 1 whatever is
    learned, and an L1 loss of images is a hundredth, beside which they would be all that is learned."""
    return loss * (other / loss.clamp(min=1e-12)).detach().abs()


def hinted(guided: Tensor, hint: Tensor) -> Tensor:
    """FitNets' eq. 3, the squared distance of r(v) (B, C, *s) from the teacher's u (B, C, *t), here by u's own
    variance, so that one weight serves networks whose features have any scale; u is brought to the size of r(v)."""
    if hint.shape[2:] != guided.shape[2:]:
        hint = interpolate(hint, guided.shape[2:], mode="trilinear" if hint.ndim == 5 else "bilinear")
    return (guided - hint).square().mean() / hint.var().clamp(min=1e-6)


@dataclass(frozen=True)
class Seen:
    """One pass of a network: images (B, C, *S), its answer (the finest of several), and a layer's output."""

    images: Tensor
    answer: Tensor
    feature: Tensor


@contextmanager
def watched(network: nn.Module, layer: nn.Module) -> Iterator[list[Seen]]:
    """The passes that a network makes meanwhile."""
    calls, features = list[Seen](), list[Tensor]()

    def passed(_: nn.Module, given: tuple[Tensor, ...], made: Tensor | list[Tensor]) -> None:
        answer = made if isinstance(made, Tensor) else made[-1]
        calls.append(Seen(given[0].detach(), answer.float(), features.pop().float()))

    hooks = [
        layer.register_forward_hook(lambda _, __, made: features.append(made)),
        network.register_forward_hook(passed),
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def coarsest(network: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """The layer that gives a network's coarsest features, what it makes of these images, and the network's answer. Of
    several, such as those of a network of one resolution, the outermost, and of these the middle one, as FitNets has
    it."""
    found: list[tuple[int, int, nn.Module, Tensor]] = []

    def noted(depth: int) -> Callable[..., None]:
        def note(layer: nn.Module, _: object, made: object) -> None:
            if isinstance(made, Tensor) and made.ndim == images.ndim:
                found.append((made[0, 0].numel(), depth, layer, made))

        return note

    layers = [(name.count("."), layer) for name, layer in network.named_modules() if name]
    hooks = [layer.register_forward_hook(noted(depth)) for depth, layer in layers]
    training = network.training
    try:
        answer = network.eval()(images)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    least = min(each[:2] for each in found)
    candidates = [each for each in found if each[:2] == least]
    _, _, layer, made = candidates[len(candidates) // 2]
    return layer, made, answer


def check_ways(method: type[Translator], which: str) -> None:
    """UsageError for a method that is more than one network from a to b."""
    if method.directions != ("a2b",) or not method.pairs:
        raise UsageError(
            f"{which} is {method.__name__}, which goes both ways or learns without pairs; expected restore, srgan, "
            "pix2pix or segment"
        )


def _network(method: Translator, which: str) -> nn.Module:
    """The one network that a method is."""
    check_ways(type(method), which)
    if getattr(method.config, "noise", 0):
        raise UsageError(f"{which} draws noise beside the image, of which nothing can be learned; set method.noise=0")
    return method.get_submodule(method.ships[0])
