"""Options that several verbs share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Dataset = Annotated[str | None, typer.Option("-d", "--dataset", help="Name of a specification, path of one, or a folder "
                                             "in nnU-Net or Decathlon layout; default: the dataset planned last.")]
DataFolder = Annotated[Path | None, typer.Option("-i", "--input", help="Folder with the images as downloaded; remembered. "
                                                 "Default: the one used last, else ROOT/raw/NAME.")]
Root = Annotated[Path | None, typer.Option("--root", help="Folder for all that is written; default: AUTOSEG_HOME, "
                                           "else ./autoseg_home.")]
AsJson = Annotated[bool, typer.Option("--json", help="Results as one JSON document on standard output.")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes for reading and preprocessing; default: by "
                                          "cores, memory and amount of data.")]
TaskPath = Annotated[str | None, typer.Option("--task", help="Dotted module path of a task outside autoseg that you "
                                              "trust; it runs code.")]
Target = Annotated[str | None, typer.Option("--target", help="cpu or cuda; default: cuda where there is one.")]
Memory = Annotated[str | None, typer.Option("--memory", help="Memory that training may use, for example 8GB; default: "
                                            "8GB on cuda, half of the free memory on cpu.")]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0.01, help="Time for the training steps of one fold; the "
                                               "plan turns it into a number of iterations. Default: by dataset size.")]
Configurations = Annotated[list[str] | None, typer.Option("-c", "--configuration", help="2d, 3d_fullres; repeat for "
                                                          "several. Default: all that the dataset allows.")]
PlanName = Annotated[str | None, typer.Option("--plan", help="Rule book (default, nnunet) when planning; name of a plan "
                                              "otherwise. Default: the plan made last.")]
StartFrom = Annotated[Path | None, typer.Option("--start", help="A bundle whose weights training starts from, where the task can "
                                                "use them; a folder, or the name of an imported one.")]
DeviceName = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N; default: the plan's target.")]
Tta = Annotated[str | None, typer.Option("--tta", help="Test-time augmentation: none or mirror; default: as planned.")]
EngineName = Annotated[str, typer.Option("--engine", help="What runs the network: torch, openvino, or auto: torch on a GPU, "
                                         "OpenVINO on a CPU where it is installed.")]
TileStep = Annotated[float | None, typer.Option("--tile-step", help="Distance of windows / window size, above 0 and at most 1; "
                                                "default: as decided by cross-validation, else as planned.")]
PrecisionName = Annotated[str | None, typer.Option("--precision", help="fp32, bf16 or fp16, where the processor has it; default: "
                                                   "as decided by cross-validation, else as planned.")]
