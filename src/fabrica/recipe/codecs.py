"""From a recipe's codec section to a codec, and back."""

from __future__ import annotations

from dataclasses import asdict

from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.recipe.schema import CodecConfig


def codec_of(config: CodecConfig) -> Codec:
    """The codec whose values a trained recipe holds."""
    if config.kind == "auto" or config.low is None or config.high is None:
        raise UsageError("codec.kind is still 'auto': this recipe has not been trained yet")
    limits = (config.default_limits[0], config.default_limits[1]) if config.default_limits else None
    clip = config.clip is not False
    numbers = tuple(config.numbers)
    regions = tuple(tuple(each) for each in config.regions)
    return Codec(config.kind, config.low, config.high, config.unit, config.classes, limits, clip, numbers, regions)


def codec_config(codec: Codec) -> CodecConfig:
    """The recipe's section that says the same as this codec."""
    values = asdict(codec)
    values["default_limits"], values["numbers"] = list(codec.default_limits or ()), list(codec.numbers)
    values["regions"] = [list(each) for each in codec.regions]
    return CodecConfig(**values)
