"""The text encoder is blind to padding; conditions reach MONAI's network, each with its null."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor
from torch.nn.functional import mse_loss

from fabrica.errors import UsageError
from fabrica.nets.conditions import ConditionEmbedding, dropped, unknown
from fabrica.nets.text import TextEncoder
from fabrica.recipe.conditions import Category, Features, Number, Text
from fabrica.text.tokenizer import LEAST, Vocabulary

CPU = torch.device("cpu")
ALL = {"text": Text(LEAST, context=12, layers=2, heads=2), "sex": Category(2), "age": Number(20, 90)}
PLACES = 12 + 1 + 1


def words(*texts: str, length: int = 12) -> Tensor:
    return torch.stack([torch.from_numpy(Vocabulary().encode(text, length).ids) for text in texts])


def values(*texts: str, length: int = 12) -> dict[str, Tensor]:
    number = len(texts)
    return {
        "text": words(*texts, length=length),
        "sex": torch.arange(number) % 2,
        "age": torch.linspace(30, 80, number),
    }


@pytest.fixture
def conditions() -> ConditionEmbedding:
    torch.manual_seed(0)
    return ConditionEmbedding(ALL, 32)


def denoiser(width: int) -> DiffusionModelUNet:
    torch.manual_seed(0)
    net = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=[8, 16],
        attention_levels=[False, True],
        num_res_blocks=1,
        num_head_channels=8,
        norm_num_groups=8,
        with_conditioning=True,
        cross_attention_dim=width,
        use_flash_attention=True,
    )
    with torch.no_grad():
        for p in net.parameters():  # its last layers start as zeros, which hide faults
            p.add_(0.05 * torch.randn(p.shape))
    return net.eval()


def context(conditions: ConditionEmbedding, given: dict[str, Tensor], hidden: Tensor | None = None) -> Tensor:
    return conditions(given, hidden)[0]


# --- the encoder ----------------------------------------------------------------------------------------------


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    net = TextEncoder(LEAST, 32, 2, 2, context=12).eval()
    short, long = words("abc", length=6), words("abc", length=12)
    alone, padded = net(short, short > 0)[:, :6], net(long, long > 0)[:, :6]
    torch.testing.assert_close(alone, padded)
    other = torch.where(long > 0, long, 200)  # whatever stands there
    torch.testing.assert_close(net(other, long > 0)[:, :6], padded)
    assert net(torch.zeros_like(long), long < 0).isfinite().all(), "nothing but padding"


def test_every_word_and_its_place_count() -> None:
    torch.manual_seed(0)
    net = TextEncoder(LEAST, 32, 2, 2, context=12).eval()
    ids = words("abcd", "abce", "bacd")
    out = net(ids, ids > 0)
    assert (out[0, 0] - out[1, 0]).abs().max() > 1e-3 and (out[0, 0] - out[2, 0]).abs().max() > 1e-4
    grown = words("abcdefghij", length=20)
    with pytest.raises(UsageError, match="at most 12"):
        net(grown, grown > 0)
    with pytest.raises(UsageError, match="multiple"):
        TextEncoder(LEAST, 32, heads=3)


# --- the context ----------------------------------------------------------------------------------------------


def test_context_depends_on_the_prompt_alone(conditions: ConditionEmbedding) -> None:
    together = context(conditions, values("ab", "abcdefgh"))
    assert together.shape == (2, PLACES, 32) and together.dtype == torch.float32
    one = {name: given[:1] for name, given in values("ab", "x").items()}
    torch.testing.assert_close(context(conditions, one), together[:1])
    torch.testing.assert_close(context(conditions, {**one, "text": words("ab", length=6)}), together[:1])
    assert torch.equal(together[0, 5:12], conditions.pads["text"].expand(7, 32)), "behind the end"


@pytest.mark.parametrize("nothing", [words("", "", length=12), words("", ""), torch.zeros(2, 1, dtype=torch.int64)])
def test_what_is_not_known_is_the_null(conditions: ConditionEmbedding, nothing: Tensor) -> None:
    missing = {"text": nothing, "sex": torch.tensor([-1, 1]), "age": torch.tensor([40.0, math.nan])}
    found = context(conditions, missing)
    null = conditions.nulls
    assert torch.equal(found[:, :12], null["text"].expand(2, 12, 32))
    assert torch.equal(found[0, 12], null["sex"]) and torch.equal(found[1, 13], null["age"])
    assert not torch.equal(found[1, 12], null["sex"]) and not torch.equal(found[0, 13], null["age"])
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in conditions.parameters() if p.requires_grad)


def test_the_gist_is_the_first_place_of_each(conditions: ConditionEmbedding) -> None:
    found, gist = conditions(values("ab", ""))
    assert torch.equal(gist, torch.cat([found[:, 0], found[:, 12], found[:, 13]], dim=1))


def test_hidden_is_the_same_as_not_known(conditions: ConditionEmbedding) -> None:
    known, nothing = values("ab", "cd", "ef"), unknown(ALL, 3, CPU)
    everything = torch.ones(3, 3, dtype=torch.bool)
    assert torch.equal(context(conditions, known, everything), context(conditions, nothing))
    assert torch.equal(context(conditions, known, ~everything), context(conditions, known))
    alone = context(conditions, known, torch.tensor([[False, True, False]] * 3))
    assert torch.equal(alone, context(conditions, {**known, "sex": nothing["sex"]}))
    assert torch.equal(context(conditions, nothing)[:1], context(conditions, unknown(ALL, 1, CPU)))


def test_numbers_are_told_apart_and_clipped(conditions: ConditionEmbedding) -> None:
    given = {**values("a", "a", "a", "a"), "age": torch.tensor([20.0, 21.0, 90.0, 120.0])}
    age = context(conditions, {**given, "sex": torch.zeros(4, dtype=torch.int64)})[:, 13]
    assert (age[0] - age[1]).abs().max() > 1e-3 and torch.equal(age[2], age[3])


def test_all_are_dropped_together_and_each_alone(conditions: ConditionEmbedding) -> None:
    hidden = dropped(20_000, 3, 0.1, torch.Generator().manual_seed(0))
    assert hidden.shape == (20_000, 3) and hidden.dtype == torch.bool
    assert hidden.all(1).float().mean().item() == pytest.approx(0.1 + 0.9 * 0.001, abs=0.01)
    assert hidden.float().mean().item() == pytest.approx(0.19, abs=0.01)
    single = dropped(20_000, 1, 0.1, torch.Generator().manual_seed(0))
    assert single.shape == (20_000, 1) and single.float().mean().item() == pytest.approx(0.1, abs=0.01)
    again = dropped(20_000, 3, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(hidden, again)


def test_wrong_use_is_explained(conditions: ConditionEmbedding) -> None:
    good = values("ab", "cd")
    for changed, message in (
        ({"txt": good["text"]}, "no condition 'txt'; did you mean text"),
        ({"sex": torch.tensor([0.0, 1.0])}, "'sex' has float32 values of shape \\(2,\\); expected int64"),
        ({"sex": torch.tensor([0, 2])}, "the value 2; expected at most 1"),
        ({"age": torch.tensor([30, 40])}, "expected float32 \\(B,\\)"),
        ({"text": torch.zeros(2, 13, dtype=torch.int64)}, "expected int64 \\(B, at most 12\\)"),
        ({"age": torch.zeros(3)}, "of 2 and 3 images"),
    ):
        with pytest.raises(UsageError, match=message):
            context(conditions, {**good, **changed})
    with pytest.raises(UsageError, match="'age' has no values"):
        context(conditions, {name: given for name, given in good.items() if name != "age"})
    for declared, message in (
        ({}, "no condition is declared"),
        ({"sex": Category(1)}, "has 1 classes"),
        ({"age": Number(3, 3)}, "goes from 3 to 3"),
        ({"a.b": Category(2)}, "without full stops"),
    ):
        with pytest.raises(UsageError, match=message):
            ConditionEmbedding(declared, 32)


def test_copies_and_state_are_whole(conditions: ConditionEmbedding) -> None:
    twin, given = copy.deepcopy(conditions), values("ab", "cd")
    torch.manual_seed(1)
    fresh = ConditionEmbedding(ALL, 32)
    assert not torch.equal(context(fresh, given), context(twin, given))
    fresh.load_state_dict(conditions.state_dict())
    assert torch.equal(context(fresh, given), context(twin, given))


# --- MONAI's network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precise", [True, False])
def test_the_network_attends_to_each_condition(conditions: ConditionEmbedding, precise: bool) -> None:
    net = denoiser(32)
    x, t = torch.randn(1, 1, 8, 8), torch.full((1,), 500.0)
    base = {name: given[:1] for name, given in values("ab").items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise), torch.no_grad():
        seen = net(x, t, context(conditions, base))
        assert torch.equal(net(x, t, context(conditions, base)), seen) and seen.isfinite().all()
        for changed in ({"text": words("cd")}, {"sex": torch.tensor([1])}, {"age": torch.tensor([80.0])}):
            assert (net(x, t, context(conditions, {**base, **changed})) - seen).abs().max() > 1e-4, changed
        assert (net(x, t, context(conditions, unknown(ALL, 1, CPU))) - seen).abs().max() > 1e-4


def test_gradients_in_bf16_reach_every_part(conditions: ConditionEmbedding) -> None:
    net = denoiser(32)
    with torch.autocast("cpu", torch.bfloat16):
        seen = context(
            conditions, {**values("ab", ""), "sex": torch.tensor([1, -1]), "age": torch.tensor([40.0, math.nan])}
        )
        out = net(torch.randn(2, 1, 8, 8), torch.full((2,), 500.0), seen)
    out.float().square().mean().backward()
    for name, p in conditions.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_it_learns_what_the_words_mean() -> None:
    """Bright or dark as the text says, from noise alone."""
    torch.manual_seed(0)
    conditions, net = ConditionEmbedding({"text": Text(LEAST, context=20, layers=1, heads=2)}, 32), denoiser(32).train()
    texts, t = words("bright lungs", "dark lungs", length=20), torch.full((8,), 999.0)
    target = torch.stack([torch.ones(1, 8, 8), -torch.ones(1, 8, 8)])
    optimiser = torch.optim.Adam([*conditions.parameters(), *net.parameters()], 5e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(80):
        which, noise = torch.randint(2, (8,), generator=rng), torch.randn(8, 1, 8, 8, generator=rng)
        loss = mse_loss(net(noise, t, context(conditions, {"text": texts[which]})), target[which])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        seen = net(noise[:1].expand(2, 1, 8, 8), t[:2], context(conditions, {"text": texts})).mean((1, 2, 3))
    assert seen[0] > 0.5 and seen[1] < -0.5


def test_features_of_a_frozen_encoder_are_a_text_like_any_other() -> None:
    torch.manual_seed(0)
    declared = {"text": Features(6, 5), "sex": Category(2)}
    told = ConditionEmbedding(declared, 8)
    given = torch.randn(3, 4, 6)
    given[0, 2:], given[1] = math.nan, math.nan
    sex = torch.tensor([0, 1, -1])
    context, gist = told({"text": given, "sex": sex})
    assert context.shape == (3, 6, 8) and gist.shape == (3, 16) and bool(context.isfinite().all())
    torch.testing.assert_close(context[0, :2], told.readers["text"](given[0, :2]))
    assert torch.equal(context[0, 2:5], told.pads["text"].expand(3, 8)), "behind the end"
    assert torch.equal(context[1, :5], told.nulls["text"].expand(5, 8)), "nothing known"
    longer = torch.cat([given, torch.full((3, 1, 6), math.nan)], dim=1)
    assert torch.equal(told({"text": longer, "sex": sex})[0], context)
    nothing, _ = told(unknown(declared, 2, CPU))
    assert torch.equal(nothing[0, :5], told.nulls["text"].expand(5, 8))
    (context.sum() + gist.sum()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in told.parameters())
    for wrong in (torch.zeros(3, 6, 6), torch.zeros(3, 4, 7), torch.zeros(3, 4), torch.zeros(3, 4, 6).long()):
        with pytest.raises(UsageError, match=r"expected float32 \(B, at most 5, 6\)"):
            told({"text": wrong, "sex": sex})
