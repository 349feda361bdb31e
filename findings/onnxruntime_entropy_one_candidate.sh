#!/bin/bash
# onnxruntime 1.32.0, quantize_static with CalibrationMethod.Entropy and nothing else said, cuts nothing off: it gives the very
# ranges that MinMax gives. Calibration by entropy looks for where to cut the tail of a distribution (Migacz 2017); here the
# histogram has 128 bins, as many as there are levels, all data are counted in one histogram, and the search begins at 128 bins:
# one candidate is left, the whole range. A single value in a million, ten times as large as the next one, then leaves a sixth of
# the 256 steps to all others, which is what one asks for entropy to avoid. quantize_static has no option for the bins;
# create_calibrator takes extra_options={"num_bins": 2048}, with which the search does what it is meant to.
# Seen: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.2.6, Python 3.11, a million normal values, one of them 50:
#   MinMax             -4.7 to 50.0
#   Entropy            -4.7 to 50.0
#   Entropy, 2048 bins -4.7 to  7.6
# Exit 0 while Entropy gives the range of MinMax, and 2048 bins another one; 1 once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6 2>/dev/null
venv/bin/python -W ignore - <<'PY'
import contextlib
import io
import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization import CalibrationMethod

logging.disable(logging.WARNING)
rng = np.random.default_rng(0)
weights = numpy_helper.from_array(rng.standard_normal((4, 1, 3, 3)).astype(np.float32), "weights")
taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, 250, 250])
given = helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 4, 250, 250])
graph = helper.make_graph(
    [helper.make_node("Conv", ["images", "weights"], ["result"], pads=[1, 1, 1, 1])], "one", [taken], [given], [weights]
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "model.onnx")
images = [rng.standard_normal((1, 1, 250, 250)).astype(np.float32) for _ in range(16)]
images[3][0, 0, 100, 100] = 50.0


class Reader(quantization.CalibrationDataReader):
    def __init__(self):
        self.left = iter({"images": each} for each in images)

    def get_next(self):
        return next(self.left, None)


def of_static(method):
    """The range of "images" that quantize_static writes, from scale and zero point."""
    with contextlib.redirect_stdout(io.StringIO()):
        quantization.quantize_static("model.onnx", "made.onnx", Reader(), calibrate_method=method,
                                     activation_type=quantization.QuantType.QUInt8)
    kept = {each.name: numpy_helper.to_array(each) for each in onnx.load("made.onnx").graph.initializer}
    scale, zero = float(kept["images_scale"]), int(kept["images_zero_point"])
    return -zero * scale, (255 - zero) * scale


def of_bins(bins):
    with contextlib.redirect_stdout(io.StringIO()):
        calibrator = quantization.create_calibrator("model.onnx", None, "with-outputs.onnx", CalibrationMethod.Entropy,
                                                    extra_options={"num_bins": bins})
        calibrator.collect_data(Reader())
        low, high = calibrator.compute_data()["images"].range_value
    return float(low), float(high)


plain, entropy, finer = of_static(CalibrationMethod.MinMax), of_static(CalibrationMethod.Entropy), of_bins(2048)
for name, (low, high) in (("MinMax", plain), ("Entropy", entropy), ("Entropy, 2048 bins", finer)):
    print(f"{name:18} {low:4.1f} to {high:4.1f}")
same = np.allclose(plain, entropy, atol=0.3)
raise SystemExit(0 if same and finer[1] < plain[1] / 2 else 1)
PY
