"""Writes an nnU-Net model with freshly initialised weights, by nnU-Net's own trainer, for measuring its prediction.

Runs in nnU-Net's environment, after nnU-Net has planned the dataset; nnUNet_raw, nnUNet_preprocessed and nnUNet_results
are set. Speed does not depend on the weights. Usage: python nnunet_model.py Dataset004_Hippocampus 3d_fullres
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def main(dataset: str, configuration: str) -> None:
    planned = Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112  nnU-Net's own spelling
    plans = json.loads((planned / "nnUNetPlans.json").read_text())
    description = json.loads((planned / "dataset.json").read_text())
    torch.manual_seed(0)
    # The trainer takes `continue_training` out of the dictionary, so the files get a copy of their own.
    trainer = nnUNetTrainer({**plans, "continue_training": False}, configuration, 0, description, torch.device("cpu"))
    trainer.initialize()
    # As when training starts: it sets the axes that prediction may mirror; without it the eight mirrorings are left out.
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    model = Path(trainer.output_folder_base)
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(description))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))


if __name__ == "__main__":
    main(*sys.argv[1:])
