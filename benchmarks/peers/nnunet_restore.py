"""nnU-Net's own export of logits to a label map on the case grid; runs in nnU-Net's environment.

Usage: python nnunet_restore.py CASE.json PRECISION RESULT_FOLDER   (with the repository in PYTHONPATH)
Writes label.npy and usage.json: seconds of the export, peak of resident memory beyond that before the logits were there.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from benchmarks.logits import Case, smooth_planes
from benchmarks.resident import peak_bytes, resident_bytes


def main(case_file: str, precision: str, folder: str) -> None:
    case = Case(**json.loads(Path(case_file).read_text()))
    before = resident_bytes()
    logits = torch.empty((case.classes, *case.model_shape), dtype=getattr(torch, precision))
    for place, plane in enumerate(smooth_planes(case)):
        logits[:, place] = torch.from_numpy(plane)
    # nnU-Net's defaults for probabilities, `default_experiment_planner.py`.
    resampling = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    labels = LabelManager({"background": 0, **{f"label {index}": index for index in range(1, case.classes)}}, None)
    started = time.perf_counter()
    label = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2]),
        SimpleNamespace(spacing=list(case.model_spacing_mm), resampling_fn_probabilities=resampling), labels,
        {"spacing": list(case.spacing_mm), "shape_after_cropping_and_before_resampling": list(case.shape),
         "shape_before_cropping": list(case.shape), "bbox_used_for_cropping": [[0, size] for size in case.shape]},
        num_threads_torch=torch.get_num_threads())
    seconds = time.perf_counter() - started
    result = {"seconds": seconds, "source_seconds": 0.0, "peak_bytes": peak_bytes() - before}
    np.save(Path(folder) / "label.npy", label)
    (Path(folder) / "usage.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
