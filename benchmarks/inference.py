"""python -m benchmarks.inference NNUNET_PYTHON [--size D,H,W] [--mm M]: a volume of 25 classes, beside nnU-Net.

One NIfTI volume of 400 x 256 x 256 voxels of 1 mm, networks at 1.5 mm: read, resampled, segmented by overlapping
windows, brought back and written, each in a process of its own. Both have a plain U-Net with the same levels, kernels
and widths and random weights, windows of the same size that overlap by half, and no mirroring. Ours is `fabrica apply`,
theirs `nnUNetPredictor.predict_from_files_sequential`. Given are seconds from the start of the process to its end and
the largest resident memory, and the ratios ours / theirs. Results go to real/inference.json.

NNUNET_PYTHON is the interpreter of an environment with nnunetv2 2.8.1. Its networks need timm only for transformers,
and timm needs torchvision, so that this suffices:

    pip install torch==2.13.0 scipy scikit-learn scikit-image SimpleITK pandas graphviz tifffile requests nibabel tqdm
    pip install matplotlib seaborn imagecodecs yacs einops blosc2 batchgenerators connected-components-3d
    pip install --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 acvl-utils==0.2.6
    pip install --no-deps batchgeneratorsv2==0.3.6
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch

from fabrica.methods.segment import widths
from fabrica.recipe.found import found_in

KEPT = Path(__file__).parent / "real" / "inference.json"
CLASSES, WIDTH, WINDOW = 25, 8, (64, 96, 96)
THEIRS = """
import json, sys
from pathlib import Path
import numpy as np, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
plans, dataset, source, out = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(int(sys.argv[2]))
manager = PlansManager(plans)
configuration = manager.get_configuration("3d_fullres")
torch.manual_seed(0)
network = get_network_from_plans(
    configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
    configuration.network_arch_init_kwargs_req_import, 1, len(dataset["labels"]), deep_supervision=False)
predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=False, device=torch.device("cpu"),
                            perform_everything_on_device=False, allow_tqdm=False)
predictor.manual_initialization(network, manager, configuration, [network.state_dict()], dataset, "nnUNetTrainer", None)
predictor.predict_from_files_sequential([[source]], [out], save_probabilities=False, overwrite=True)
"""


def noise(path: Path, size: tuple[int, ...], mm: float, labels: Path | None = None, seed: int = 0) -> None:
    """A smooth random volume, and a label map of blocks with all classes."""
    rng = np.random.default_rng(seed)
    values = (200 * rng.standard_normal([n // 4 for n in size])).astype(np.float32)
    values = np.kron(values, np.ones((4, 4, 4), dtype=np.float32))
    affine = np.diag([mm, mm, mm, 1.0])
    nibabel.Nifti1Image(values.T.astype(np.int16), affine).to_filename(path)
    if labels:
        blocks = rng.integers(0, CLASSES, [n // 8 for n in size]).astype(np.uint8)
        blocks.ravel()[:CLASSES] = np.arange(CLASSES)
        nibabel.Nifti1Image(np.kron(blocks, np.ones((8, 8, 8), dtype=np.uint8)).T, affine).to_filename(labels)


def model(folder: Path, mm: float) -> Path:
    """A segmenter of 25 classes with weights of one step, from eight small volumes."""
    for name in ("imagesTr", "labelsTr"):
        (folder / "data" / name).mkdir(parents=True)
    for k in range(8):
        noise(folder / f"data/imagesTr/c{k}_0000.nii.gz", (64, 96, 96), mm, folder / f"data/labelsTr/c{k}.nii.gz", k)
    size = ",".join(map(str, WINDOW))
    words = f"train.steps=1 train.minutes=0 data.batch=2 method.width={WIDTH} data.size=[{size}] -o {folder / 'run'}"
    command = [sys.executable, "-m", "fabrica", "train", "segment", "--data", folder / "data", *words.split()]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return folder / "run"


def theirs(run: Path, mm: float, source: Path, out: Path, told: Path) -> None:
    """What nnU-Net is told: a plan with the levels, kernels and widths of ours."""
    plan = found_in(run)[1].plan
    stages = len(plan.levels)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": widths(WIDTH, stages, 3),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": plan.kernels,
            "strides": plan.levels,
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(WINDOW),
        "median_image_size_in_voxels": list(WINDOW),
        "spacing": [mm] * 3,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": False,
        "architecture": architecture,
    }
    plans = {
        "dataset_name": "Dataset001_X",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [mm] * 3,
        "original_median_shape_after_transp": list(WINDOW),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }
    labels = {"background": 0, **{f"label{k}": k for k in range(1, CLASSES)}}
    dataset = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    told.write_text(json.dumps([plans, dataset, str(source), str(out)]))


def measured(command: list[str]) -> dict[str, float]:
    """Seconds and the largest resident memory, GiB, of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[:4]} failed")
    return {"seconds": round(time.perf_counter() - began, 1), "gib": round(used.ru_maxrss / 2**20, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("--size", default="400,256,256")
    parser.add_argument("--mm", type=float, default=1.5)
    asked = parser.parse_args()
    size, threads = tuple(int(n) for n in asked.size.split(",")), str(torch.get_num_threads())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = model(folder, asked.mm)
        noise(folder / "volume_0000.nii.gz", size, 1.0)
        theirs(run, asked.mm, folder / "volume_0000.nii.gz", folder / "theirs", folder / "told.json")
        words = ["apply", run, folder / "volume_0000.nii.gz", "-o", folder / "ours", "--force", "--overlap", "0.5"]
        found = {
            "ours": measured([sys.executable, "-m", "fabrica", *map(str, words)]),
            "nnunetv2 2.8.1": measured([asked.python, "-c", THEIRS, str(folder / "told.json"), threads]),
        }
    ours, other = found["ours"], found["nnunetv2 2.8.1"]
    ratios = {f"{key}, ours / theirs": round(ours[key] / other[key], 3) for key in ours}
    scores = {"volume": list(size), "classes": CLASSES, "network mm": asked.mm, "threads": threads, **found, **ratios}
    KEPT.write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
