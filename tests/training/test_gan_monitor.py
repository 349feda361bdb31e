"""What goes wrong with a GAN: the thresholds as they are stated, forced failures caught, healthy runs left alone."""

from pathlib import Path

import pytest

from fabrica.recipe.folder import ALARMS, read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.training.gan_monitor import GanMonitor, collapse, no_gradient, runaway
from fabrica.training.loop import train

REAL = 0.2  # of the real images, so that the limit is 1 - 0.8 / 10 = 0.92


def looks(*values: float, first: int = 300) -> list[dict[str, float]]:
    return [{"step": first + 50 * k, "ms_ssim": value} for k, value in enumerate(values)]


def norms(*values: float) -> list[dict[str, float]]:
    return [{"step": 25.0 * k, "grad_norm_generator": value} for k, value in enumerate(values)]


def test_four_looks_above_the_limit_are_a_collapse() -> None:
    assert collapse(looks(0.96, 0.97, 0.99), REAL) == ""
    said = collapse(looks(0.96, 0.97, 0.99, 0.98), REAL)
    assert "mode collapse" in said and "since step 300" in said and "0.98" in said and "0.20" in said
    assert "train.lr" in said and "\n" not in said
    assert collapse(looks(0.96, 0.97, 0.91, 0.98), REAL) == ""
    assert collapse(looks(0.3, 0.96, 0.97, 0.99, 0.98), REAL) != ""
    assert collapse(looks(*[0.93] * 4), REAL) != ""
    assert collapse(looks(*[0.93] * 4), real=0.5) == ""  # real images that are alike raise the limit


def test_the_grey_start_is_no_collapse() -> None:
    assert collapse(looks(*[0.99] * 6, first=0), REAL) == ""
    assert collapse(looks(*[0.99] * 10, first=0), REAL) != ""


def test_gradients_are_gone_below_a_thousandth_of_the_start() -> None:
    assert no_gradient(norms(1, 5, 2, 1, *[0.004] * 3)) == ""
    said = no_gradient(norms(1, 5, 2, 1, *[0.004] * 4))
    assert "learned nothing since step 100" in said and "0.004" in said and "train.lr" in said
    assert no_gradient(norms(1, 5, 2, 1, *[0.006] * 4)) == ""
    assert no_gradient(norms(1, 0, 0, 0, 0)) == ""  # too few rows to say


def test_a_critic_runs_away_when_four_rows_are_violent() -> None:
    assert runaway(norms(20, 1500, 20, 1500, 2000, 15000)) == ""
    said = runaway(norms(20, 1500, 20, 1500, 2000, 15000, 1001))
    assert "the critic runs away: since step 75" in said and "method.name=modern-gan" in said


def test_an_alarm_is_raised_once_and_again_only_after_it_had_gone() -> None:
    monitor = GanMonitor(REAL, lambda method: 0.0)
    said = [monitor.see(row) for row in looks(*[0.96] * 5, 0.3, *[0.96] * 4)]
    assert [len(sentences) for sentences in said] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 1]


def small(method: str, *overrides: str) -> Recipe:
    """A GAN on chest phantoms of 32 x 32, 500 steps."""
    base = [
        f"method.name={method}",
        "data.size=32",
        "data.batch=16",
        "data.count=200",
        "train.steps=500",
        "train.minutes=0",
        "train.decay=constant",
        "train.validate_every=500",
        "train.checkpoint_every=500",
        "train.sample_every=500",
    ]
    return load_recipe("dcgan-xray", [*base, "data.source=phantom:chest", *overrides])


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        pytest.param("mlp-gan", [], marks=pytest.mark.slow),
        pytest.param("dcgan", ["method.width=16"], marks=pytest.mark.slow),
        pytest.param("modern-gan", ["method.width=16", "train.betas=[0.5,0.99]"], marks=pytest.mark.slow),
    ],
)
def test_a_healthy_run_raises_no_alarm(method: str, overrides: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    train(small(method, *overrides), tmp_path / "run", warn=said.append)
    assert said == [] and not (tmp_path / "run" / ALARMS).exists()
    rows = read_log(tmp_path / "run/log.csv")
    for key in ("real_accuracy", "fake_accuracy", "grad_norm_critic", "grad_norm_generator", "ms_ssim", "frd"):
        assert any(key in row for row in rows), key


@pytest.mark.parametrize(
    ("method", "overrides", "trouble"),
    [
        ("mlp-gan", ["train.lr_of.critic=0.05", "data.count=64"], "the critic runs away"),  # 250 times the usual rate
        pytest.param("mlp-gan", ["train.lr_of.critic=0"], "mode collapse", marks=pytest.mark.slow),
    ],
)
def test_a_forced_failure_is_caught_within_500_steps(
    method: str, overrides: list[str], trouble: str, tmp_path: Path
) -> None:
    """A huge rate of the critic; and a critic that stands still, so that one image is the best answer to it."""
    said: list[str] = []

    def stop(sentence: str) -> None:
        said.append(sentence)
        if trouble in sentence:
            raise KeyboardInterrupt  # nothing more is to be seen

    with pytest.raises(KeyboardInterrupt):
        train(small(method, *overrides), tmp_path / "run", warn=stop)
    assert int(said[-1].split(":")[0].removeprefix("step ")) <= 500, said
    assert trouble in (tmp_path / "run" / ALARMS).read_text()
