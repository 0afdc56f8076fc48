"""nnU-Net 2.8.1 as it is typed: folders, environment variables and commands of one installation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import measure

DATASET = "Dataset004_Hippocampus"
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@dataclass(frozen=True)
class NnUNet:
    """An environment made by `peers/nnunet.sh`, and a folder for what nnU-Net writes.

    Attributes:
        folder: of the environment.
        work: receives `raw/`, `planned/`, `results/` and the folders that single runs write.
        processes: what nnU-Net takes where it has no option; without it, it starts 8.
    """

    folder: Path
    work: Path
    processes: int

    def require(self) -> None:
        """Raises SystemExit where the environment is missing or was not finished."""
        if not (self.folder / "complete").exists():
            raise SystemExit(f"there is no nnU-Net in {self.folder}; build it: bash benchmarks/peers/nnunet.sh {self.folder}")

    def program(self, name: str) -> str:
        """Path of one of nnU-Net's programs."""
        return str(self.folder / "bin" / name)

    def environment(self, preprocessed: Path) -> dict[str, str]:
        """nnU-Net's variables; `preprocessed` receives what it plans and preprocesses."""
        return {"nnUNet_raw": str(self.work / "raw"), "nnUNet_preprocessed": str(preprocessed),
                "nnUNet_results": str(self.work / "results"), "nnUNet_def_n_proc": str(self.processes)}

    def plan_and_preprocess(self, *, fitted: bool) -> list[str]:
        """The command; `fitted`: as many processes as there are cores, where nnU-Net would start 8."""
        processes = ["-npfp", str(self.processes), "-np", str(self.processes)] if fitted else []
        return [self.program("nnUNetv2_plan_and_preprocess"), "-d", "4", "--verify_dataset_integrity",
                "-c", "2d", "3d_fullres", *processes]

    def predict(self, source: Path, output: Path, *, mirror: bool, fitted: bool) -> list[str]:
        """The command for the model of `make_model`; `fitted`: one process to read and one to write instead of three."""
        return [self.program("nnUNetv2_predict_from_modelfolder"), "-i", str(source), "-o", str(output),
                "-m", str(self.model), "-f", "0", "-device", "cpu", *([] if mirror else ["--disable_tta"]),
                *(["-npp", "1", "-nps", "1"] if fitted else [])]

    @property
    def model(self) -> Path:
        return self.work / "results" / DATASET / MODEL

    def link_dataset(self, data: Path, name: str = DATASET) -> None:
        """Makes `data` nnU-Net's dataset of that name, by a link."""
        link = self.work / "raw" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(data.resolve(), target_is_directory=True)

    def make_model(self) -> None:
        """Plans the dataset and writes a model of the planned network with fresh weights; nothing where it is there.

        The dataset is preprocessed too, because nnU-Net's trainer looks for the folder.
        """
        if (self.model / "fold_0" / "checkpoint_final.pth").exists():
            return
        planned = self.work / "planned"
        for folder in (planned, self.work / "results"):
            folder.mkdir(parents=True, exist_ok=True)
        self._run(self.plan_and_preprocess(fitted=True), planned)
        script = Path(__file__).with_name("nnunet_model.py")
        self._run([self.program("python"), str(script), DATASET, "3d_fullres"], planned)

    def _run(self, command: list[str], preprocessed: Path) -> None:
        measure(command, log=self.work / "make_model.log", environment=self.environment(preprocessed))
