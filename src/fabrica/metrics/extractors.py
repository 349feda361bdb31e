"""Feature extractors: what a distance between two sets of images is measured on.

`extractor("radiomic")` needs nothing and is the default. The others are networks, by name where a package
and its weights are installed, or by file. Each owns its input: it takes images in [-1, 1] and brings them to
the range, size and channels its network was trained on. A network fed another range gives figures that look
like figures. Scores by different extractors are not comparable; report more than one.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64
from fabrica.metrics.distribution import IMAGES_PER_DIMENSION
from fabrica.metrics.radiomics import FEATURE_NAMES, middle_planes, radiomic_features, standardised, standardiser

if TYPE_CHECKING:
    import torch

Network = Callable[["torch.Tensor"], "torch.Tensor"]
Scaling = Callable[[Float64], Float64]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 32


def _as_they_are(real: Float64) -> Scaling:
    return lambda features: features


def _z_scored(real: Float64) -> Scaling:
    centre, scale = standardiser(real)
    return lambda features: standardised(features, centre, scale)


@dataclass(frozen=True)
class Extractor:
    """A named way from images to features.

    name            goes into every report.
    dims            F.
    features        images float32 (N, C, H, W) or (N, C, D, H, W) in [-1, 1] -> features float64 (N, F).
                    Of volumes the three middle planes are measured and averaged.
    needs_at_least  images in each set below which a Frechet distance is mostly bias.
    scaling         from the features (N, F) of the REAL set, the function that every set's features must
                    pass before a distance: robust z-scores for radiomics, nothing for networks.
    """

    name: str
    dims: int
    features: Callable[[Float32], Float64]
    needs_at_least: int
    scaling: Callable[[Float64], Scaling] = _as_they_are


@dataclass(frozen=True)
class NetworkInput:
    """What a network takes: values low..high for black..white, then (x - mean) / std a channel.

    size is the side of the square it wants, or None where any will do. Grey images are repeated to
    `channels`; colour ones are averaged to 1.
    """

    low: float
    high: float
    channels: int = 3
    size: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def extractor(name_or_path: str | Path, device: str = "cpu", *, allow_download: bool = False) -> Extractor:
    """The extractor of this name, or from a network file.

    Names: "radiomic"; "torchxrayvision" (1024 features), "radimagenet" (2048), "inception" (2048), "dinov2"
    (768). Weights come from FABRICA_<NAME> (a file or folder, see the loaders below) or the package's cache,
    and are fetched only with allow_download. Files: .pt2 (torch.export), .pt (TorchScript), .onnx, with a
    JSON of the same stem beside it: {"range": [low, high], "channels": 3, "size": 224, "mean": [...],
    "std": [...]}; all but the range may be left out. The network gives (N, F), or (N, F, h, w), which is
    averaged over h and w. Open only network files that you trust: they are programs.

    Raises UsageError for an unknown name, a missing package, weights, file or range.
    """
    name = str(name_or_path)
    if name == "radiomic":
        count = len(FEATURE_NAMES)
        return Extractor(name, count, radiomic_features, IMAGES_PER_DIMENSION * count, _z_scored)
    if name in LOADERS:
        return _from_network(name, *LOADERS[name](device, allow_download), device)
    path = Path(name_or_path)
    if path.suffix not in FILES:
        raise UsageError(
            f"no extractor {name!r}; expected radiomic, {', '.join(LOADERS)}, or a network file ({', '.join(FILES)})"
        )
    if not path.is_file():
        raise UsageError(f"no network file {path}; give the path of a {path.suffix} file")
    wanted = _read_input(path.with_suffix(".json"))
    return _from_network(path.name, _opened(path, device), wanted, device)


def _opened(path: Path, device: str) -> Network:
    try:
        return FILES[path.suffix](path, device)
    except UsageError:
        raise
    except Exception as error:  # every runtime has errors of its own
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UsageError(f"{path.name} cannot be opened as a {path.suffix} network: {reason}") from None


def _from_network(name: str, network: Network, wanted: NetworkInput, device: str) -> Extractor:
    def features(images: Float32) -> Float64:
        planes = middle_planes(images)
        return np.asarray(np.mean([_run(network, plane, wanted, device) for plane in planes], axis=0))

    side = wanted.size or 64
    try:  # three, because a network exported for one batch size would fail only later
        dims = features(np.zeros((3, 1, side, side), dtype=np.float32)).shape[1]
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{name} fails on 3 images of {wanted.channels} x {side} x {side} ({reason}); "
            "check channels and size, and export it with a free batch size"
        ) from None
    return Extractor(name, dims, features, IMAGES_PER_DIMENSION * dims)


def _run(network: Network, plane: Float32, wanted: NetworkInput, device: str) -> Float64:
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, len(plane), _BATCH):
            found = network(prepared(plane[start : start + _BATCH], wanted, device))
            if found.ndim == 4:
                found = found.mean((2, 3))
            if found.ndim != 2:
                shape = tuple(found.shape)
                raise UsageError(f"the network gives shape {shape}; expected (N, F) or (N, F, h, w)")
            parts.append(found.double().cpu().numpy())
    return np.concatenate(parts)


def prepared(plane: Float32, wanted: NetworkInput, device: str = "cpu") -> torch.Tensor:
    """Images (N, C, H, W) in [-1, 1] as the tensor (N, channels, size, size) that a network takes."""
    import torch
    from torch.nn.functional import interpolate

    x = torch.from_numpy(np.ascontiguousarray(np.clip(plane, -1, 1), dtype=np.float32)).to(device)
    if x.shape[1] != wanted.channels:
        x = x.mean(1, keepdim=True).expand(-1, wanted.channels, -1, -1)
    if wanted.size is not None and x.shape[2:] != (wanted.size, wanted.size):
        x = interpolate(x, (wanted.size, wanted.size), mode="bilinear", antialias=True)
    x = (x + 1) * ((wanted.high - wanted.low) / 2) + wanted.low
    mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    return (x - mean) / std


def _read_input(path: Path) -> NetworkInput:
    example = '{"range": [-1, 1], "channels": 3, "size": 224}'
    if not path.is_file():
        raise UsageError(f"no {path.name} beside the network; write one with its input range: {example}")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        low, high = (float(v) for v in found["range"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path.name} has no readable input range ({error!r}); expected {example}") from None
    unknown = set(found) - {"range", "channels", "size", "mean", "std"}
    if unknown:
        raise UsageError(f"{path.name} has unknown keys {', '.join(sorted(unknown))}; expected {example}")
    channels = int(found.get("channels", 3))
    mean, std = tuple(found.get("mean", [0.0])), tuple(found.get("std", [1.0]))
    if not low < high or {len(mean), len(std)} - {1, channels}:
        raise UsageError(f"{path.name}: range must rise, mean and std have 1 or {channels} values: {example}")
    return NetworkInput(low, high, channels, found.get("size"), mean, std)


def _torchscript(path: Path, device: str) -> Network:
    import torch

    with warnings.catch_warnings():
        # TorchScript is deprecated, but it is the format most published feature networks come in.
        warnings.simplefilter("ignore", DeprecationWarning)
        network: Network = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
    return network


def _exported(path: Path, device: str) -> Network:
    import torch

    network: Network = torch.export.load(path).module().to(device)
    return network


def _onnx(path: Path, device: str) -> Network:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as in `fabrica.runtime.onnx`
    runtime = _package("onnxruntime", "onnxruntime")
    import torch

    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {entry: x.cpu().numpy()})[0])


FILES: dict[str, Callable[[Path, str], Network]] = {".pt2": _exported, ".pt": _torchscript, ".onnx": _onnx}


def _package(module: str, distribution: str) -> Any:
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:  # a torchvision of another build raises RuntimeError
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"this extractor needs the package {distribution} ({reason}); "
            f"run `pip install {distribution}`, or use the radiomic extractor, which needs none"
        ) from None


def _require(found: bool, weights: Path, variable: str, allow_download: bool) -> None:
    if not found and not allow_download:
        raise UsageError(f"no weights at {weights}; put them there, set {variable}, or allow the download")


def _torchxrayvision(device: str, allow_download: bool) -> tuple[Network, NetworkInput]:
    """DenseNet-121 on chest radiographs (Cohen et al. 2022). FABRICA_TORCHXRAYVISION: its weights folder."""
    package = _package("torchxrayvision", "torchxrayvision")
    kind = "densenet121-res224-all"
    file = Path(package.models.model_urls[kind]["weights_url"]).name
    cache = Path(os.environ.get("FABRICA_TORCHXRAYVISION", Path.home() / ".torchxrayvision" / "models_data"))
    _require((cache / file).is_file(), cache / file, "FABRICA_TORCHXRAYVISION", allow_download)
    model = package.models.DenseNet(weights=kind, cache_dir=str(cache)).eval().to(device)
    return lambda x: model.features(x).relu(), NetworkInput(-1024.0, 1024.0, channels=1, size=224)


def _radimagenet(device: str, allow_download: bool) -> tuple[Network, NetworkInput]:
    """ResNet-50 on RadImageNet (Mei et al. 2022), from MONAI's hub. FABRICA_RADIMAGENET: a hub folder."""
    import torch

    hub = Path(os.environ.get("FABRICA_RADIMAGENET", torch.hub.get_dir()))
    pattern = "RadImageNet-ResNet50*.pth"
    _require(any(hub.rglob(pattern)), hub / pattern, "FABRICA_RADIMAGENET", allow_download)
    model = torch.hub.load(  # type: ignore[no-untyped-call]
        "Project-MONAI/perceptual-models:main", "radimagenet_resnet50", cache_dir=str(hub), trust_repo=True
    )
    model = model.eval().to(device)
    # Trained on BGR without division by the standard deviation.
    return lambda x: model(x[:, [2, 1, 0]]), NetworkInput(0.0, 1.0, size=224, mean=IMAGENET_MEAN)


def _inception(device: str, allow_download: bool) -> tuple[Network, NetworkInput]:
    """Inception-v3 as in the FID of Heusel et al. 2017, ported by torch-fidelity, which resizes to 299 and
    maps 0..255 to [-1, 1] itself. FABRICA_INCEPTION: the file weights-inception-2015-12-05-6726825d.pth."""
    import torch

    package = _package("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity")
    cache = Path(torch.hub.get_dir()) / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    weights = Path(os.environ.get("FABRICA_INCEPTION", cache))
    _require(weights.is_file(), weights, "FABRICA_INCEPTION", allow_download)
    model = package.FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048"],
        feature_extractor_weights_path=str(weights) if weights.is_file() else None,
    )
    model = model.eval().to(device)
    return lambda x: model(x.round().to(torch.uint8))[0], NetworkInput(0.0, 255.0)


def _dinov2(device: str, allow_download: bool) -> tuple[Network, NetworkInput]:
    """DINOv2 ViT-B/14 class token (Oquab et al. 2023; for FID: Stein et al. 2023). FABRICA_DINOV2: a folder
    saved by transformers."""
    package = _package("transformers", "transformers")
    source = os.environ.get("FABRICA_DINOV2", "facebook/dinov2-base")
    try:
        model = package.AutoModel.from_pretrained(source, local_files_only=not allow_download)
    except OSError:
        raise UsageError(
            f"no weights for dinov2 at {source} on this machine; set FABRICA_DINOV2 to a folder saved by "
            "transformers, or allow the download"
        ) from None
    model = model.eval().to(device)
    wanted = NetworkInput(0.0, 1.0, size=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return lambda x: model(pixel_values=x).last_hidden_state[:, 0], wanted


LOADERS: dict[str, Callable[[str, bool], tuple[Network, NetworkInput]]] = {
    "torchxrayvision": _torchxrayvision,
    "radimagenet": _radimagenet,
    "inception": _inception,
    "dinov2": _dinov2,
}
