"""Values are read, written and converted as OmegaConf does it, whether it is asked or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fabrica.recipe.found import Found
from fabrica.recipe.values import Unfit, filled, read, written
from tests.draws import draws
from tests.shipped import shipped

LOOKS = ["1", "-3", "1e-4", "2e4", "1_000", "0x1f", "010", ".5", "1.", ".nan", "nan", "inf", "1:30", "1:30.5", "yes"]
LOOKS += ["No", "on", "y", "null", "~", "2024-01-31", "- a", "a: b", "#", "'", '"', " x ", "two\nlines", "*a", "ä", "="]
texts = st.sampled_from([*LOOKS, "", "x" * 100]) | st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12
)
texts = texts.filter(lambda text: "$" not in text and text != "???")
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(plain, lambda each: st.lists(each, max_size=3) | st.dictionaries(texts, each, max_size=3))
quickly = settings(max_examples=draws(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])


def of_omegaconf(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


@quickly
@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_written_is_read_by_us_and_by_omegaconf(held: dict[str, Any]) -> None:
    text = written(held)
    assert read(text) == held == of_omegaconf(text)


@pytest.mark.parametrize("name", list(shipped())[::4])
def test_files_are_those_that_omegaconf_writes(name: str) -> None:
    for held in (asdict(shipped()[name]), asdict(Found.asked(shipped()[name]))):
        assert written(held) == OmegaConf.to_yaml(OmegaConf.create(held))


@pytest.mark.parametrize("value", [*LOOKS, "1e3", "-2.5E-3", "[1e2, 07]", "{a: 1e5, b: '1e5'}", "&x [1]", "!!str 1"])
def test_texts_of_others_mean_what_they_mean_to_omegaconf(value: str) -> None:
    text = f"key: {value}\n"
    try:
        expected = of_omegaconf(text)
    except (yaml.YAMLError, ValueError) as error:
        with pytest.raises(type(error)):
            read(text)
    else:
        assert repr(read(text)) == repr(expected)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: &x [1]\nb: *x\n", "", "- 1\n", "a: !!python/name:os.system\n"])
def test_what_only_omegaconf_can_decide_it_decides(text: str) -> None:
    try:
        expected = of_omegaconf(text)
    except yaml.YAMLError as error:
        with pytest.raises(type(error)):
            read(text)
    else:
        assert read(text) == expected


@dataclass(frozen=True)
class Inner:
    ratio: float = 0.5
    limit: float | None = None
    sure: bool | None = None


@dataclass(frozen=True)
class Outer:
    """A field of every type that recipes have."""

    needed: int
    name: str = "x"
    flag: bool = False
    rate: float = 1.0
    sizes: list[int] = field(default_factory=lambda: [4, 4])
    flags: list[bool] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    matrix: list[list[float]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    method: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)


FITTING: dict[str, st.SearchStrategy[Any]] = {
    "name": texts,
    "flag": st.booleans(),
    "rate": st.floats(allow_nan=False) | st.integers(-5, 5),
    "sizes": st.lists(st.integers(0, 9), max_size=3),
    "flags": st.lists(st.booleans(), max_size=3),
    "shares": st.lists(st.floats(allow_nan=False) | st.integers(), max_size=3),
    "matrix": st.lists(st.lists(st.floats(allow_nan=False) | st.integers(), max_size=2), max_size=2),
    "steps": st.lists(st.dictionaries(texts, plain, max_size=2), max_size=2),
    "method": st.dictionaries(texts, values, max_size=3),
    "rates": st.dictionaries(texts, st.floats(allow_nan=False) | st.integers(), max_size=2),
    "classes": st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2),
    "inner": st.fixed_dictionaries(
        {}, optional={"ratio": st.floats(0, 1) | st.just(1), "limit": st.none() | st.just(2)}
    ),
    "inners": st.lists(st.fixed_dictionaries({}, optional={"sure": st.none() | st.booleans()}), max_size=2),
}


def outcome(made: Any, raw: dict[str, Any]) -> str:
    try:
        return repr(made(raw))  # repr: 1 and 1.0 are not the same
    except (Unfit, OmegaConfBaseException, TypeError) as error:
        theirs = error.__cause__ if isinstance(error, Unfit) else error
        return f"{type(theirs).__name__}: {error}"


@quickly
@given(st.fixed_dictionaries({"needed": st.integers(-5, 5)}, optional=FITTING))
def test_values_of_their_type_fill_a_dataclass_as_omegaconf_fills_it(raw: dict[str, Any]) -> None:
    def of_theirs(raw: dict[str, Any]) -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Outer), raw))

    assert outcome(lambda raw: filled(Outer, raw), raw) == outcome(of_theirs, raw)


@quickly
@given(st.sampled_from(sorted(FITTING)), values | st.sampled_from([["1", "2"], {"ratio": "0.5"}, [{"ratio": 2}]]))
def test_any_value_of_any_key_is_converted_or_refused_as_omegaconf_does_it(key: str, value: Any) -> None:
    def of_theirs(raw: dict[str, Any]) -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Outer), raw))

    raw = {"needed": 1, key: value}
    assert outcome(lambda raw: filled(Outer, raw), raw) == outcome(of_theirs, raw)


def test_what_is_filled_shares_nothing_with_what_filled_it() -> None:
    raw: dict[str, Any] = {"needed": 1, "sizes": [1], "method": {"deep": [{"a": [1]}]}, "inners": [{}]}
    made = filled(Outer, raw)
    raw["method"]["deep"][0]["a"].append(2)
    raw["sizes"].append(2)
    assert made.method == {"deep": [{"a": [1]}]} and made.sizes == [1] and made.inners == [Inner()]
