"""What a plan may cost, and what was measured on the machine to keep to it."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from autoseg.core.spec import STRICT

Target = Literal["cpu", "cuda"]


@dataclass(frozen=True, config=STRICT)
class StepTime:
    """A candidate configuration, timed.

    Attributes:
        candidate: key of what was timed (see `planning.budget.candidate_key`).
        seconds_per_step: median duration of one optimisation step, batch included.
    """

    candidate: str
    seconds_per_step: float


@dataclass(frozen=True, config=STRICT)
class Footprint:
    """Memory that a candidate is predicted to need; kept, so that the same file gives the same plan with another torch.

    Attributes:
        candidate: key of what was looked at (see `planning.budget.footprint_key`).
        training_bytes: peak of a training step.
        forward_bytes: peak of one batch of windows through the network, weights included.
    """

    candidate: str
    training_bytes: int
    forward_bytes: int


@dataclass(frozen=True, config=STRICT)
class CaseTime:
    """Pilot cases of a candidate configuration, timed.

    Attributes:
        candidate: key of what was timed (see `planning.budget.case_key`).
        prepare_seconds: to read, prepare and store one case.
        window_seconds: the network's part of one window, once, by the engine that predicts.
        prepared_voxels: mean of the cases that were prepared, on the model grid.
        shape: of the case that was predicted, on the model grid, z y x; empty in files of before, which are measured anew.
        windows: of this case that went through the network, mirrored ones included.
        predict_seconds: what predicting it took besides: reading, preparing, adding up, restoring, writing.
        validate_seconds: what validating it took besides, prepared as it was: adding up, restoring, writing, scoring.
        start_seconds: once for all cases, to convert and compile the network.
    """

    candidate: str
    prepare_seconds: float
    window_seconds: float
    prepared_voxels: float = 0.0
    shape: tuple[float, ...] = ()
    windows: float = 0.0
    predict_seconds: float = 0.0
    validate_seconds: float = 0.0
    start_seconds: float = 0.0


@dataclass(frozen=True, config=STRICT)
class Finding:
    """A number that a task's planner found on pilot units; kept, so that the same file gives the same plan.

    Attributes:
        name: what was measured, and on what: numbers of other data have other names.
    """

    name: str
    value: float


@dataclass(frozen=True, config=STRICT)
class Budget:
    """Inputs of the plan that are not the dataset.

    Attributes:
        target: where training will run.
        memory_bytes: peak that training may reach.
        minutes: training steps of one fold may take this long; None: the dataset decides.
        supports_bf16: the target multiplies bfloat16 faster than float32.
        threads: CPU threads that training will use.
        device: name of the processor, for the reader.
        measured: step times; what is missing is measured by the probe and added.
        footprints: predicted memory of candidates, likewise.
        case_times: times of pilot cases, likewise.
        findings: what tasks found on pilot units, likewise.
    """

    target: Target
    memory_bytes: int
    minutes: float | None = None
    supports_bf16: bool = False
    threads: int = 1
    device: str = ""
    measured: tuple[StepTime, ...] = ()
    footprints: tuple[Footprint, ...] = ()
    case_times: tuple[CaseTime, ...] = ()
    findings: tuple[Finding, ...] = ()

    def seconds_per_step(self, candidate: str) -> float | None:
        """The measured time of a candidate, None when it was not measured."""
        return next((m.seconds_per_step for m in self.measured if m.candidate == candidate), None)

    def footprint(self, candidate: str) -> Footprint | None:
        """The predicted memory of a candidate, None when it was not predicted."""
        return next((entry for entry in self.footprints if entry.candidate == candidate), None)

    def case_time(self, candidate: str) -> CaseTime | None:
        """The measured times of pilot cases, None when they were not measured."""
        return next((entry for entry in self.case_times if entry.candidate == candidate and entry.shape), None)

    def found(self, name: str) -> float | None:
        """What was found on pilot units under this name, None when it was not measured."""
        return next((entry.value for entry in self.findings if entry.name == name), None)
