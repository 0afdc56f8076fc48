"""The configurations whose memory is measured; no constant of the prediction was fitted on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from autoseg.core.geometry import Shape
from autoseg.core.plan import Augmentation, Configuration, Inference, Loss, MemoryFormat, Network, Precision, Resampling
from autoseg.planning import recipes
from autoseg.planning.memory import stage_widths
from autoseg.planning.topology import plan_topology

Builder = Literal["plain_unet", "residual_unet"]
# The builder of each kind, and how many convolutions (residual: blocks) a stage has.
KINDS: dict[str, tuple[Builder, int]] = {"plain": ("plain_unet", 2), "residual": ("residual_unet", 1)}
OPTIMIZERS = {"sgd": recipes.NNUNET_SGD, "adamw": recipes.SHORT_RUN_ADAMW, "muon": recipes.SHORT_RUN_MUON}


@dataclass(frozen=True)
class Trial:
    """One configuration.

    Attributes:
        patch: voxels, z y x; two numbers for 2-D.
        features: of the first stage, doubled per stage.
        labels: outputs of the network, background included.
        case: voxels, z y x, of the case whose prediction is measured; None: none is.
        windows: that are predicted together.
    """

    kind: str
    patch: tuple[int, ...]
    batch: int
    features: int
    labels: int
    optimizer: str
    memory_format: MemoryFormat
    channels: int = 1
    spacing_mm: tuple[float, ...] = ()
    case: Shape | None = None
    windows: int = 1

    @property
    def name(self) -> str:
        return (f"{self.kind} {' x '.join(map(str, self.patch))}, batch {self.batch}, {self.features} features, "
                f"{self.channels} in, {self.labels} out, {self.optimizer}, {self.memory_format}")

    def configuration(self, precision: Precision = "fp32") -> Configuration:
        kind, convs = KINDS[self.kind]
        dims: Literal[2, 3] = 2 if len(self.patch) == 2 else 3
        topology = plan_topology(self.spacing_mm or (1.0,) * dims, self.patch)
        stages = len(topology.strides)
        network = Network(
            kind, dims, self.channels, self.labels, stage_widths(stages, first=self.features, largest=16 * self.features),
            topology.strides, topology.kernel_sizes, (convs,) * stages, (convs,) * (stages - 1), kind == "plain_unet")
        optimization = replace(OPTIMIZERS[self.optimizer], memory_format=self.memory_format, precision=precision,
                               ema_decay=None if self.optimizer == "sgd" else 0.99)
        z, y, x = topology.patch_size if dims == 3 else (1, *topology.patch_size)
        return Configuration(
            "3d_fullres" if dims == 3 else "2d", (1.0, 1.0, 1.0), (z, y, x), (z, y, x), self.batch, Resampling(), network,
            Loss({"dice": 1.0, "cross_entropy": 1.0}), Augmentation(), optimization,
            Inference(0.5, 0.125, self.windows, (), False, precision, self.memory_format))


TRIALS = (
    Trial("plain", (64, 64, 64), 2, 32, 3, "sgd", "contiguous", case=(160, 192, 160)),
    Trial("plain", (64, 80, 56), 2, 32, 4, "adamw", "channels_last", channels=4, case=(155, 240, 240), windows=2),
    Trial("plain", (80, 80, 64), 2, 24, 15, "muon", "contiguous", channels=2, case=(140, 320, 320)),
    Trial("plain", (20, 128, 112), 2, 32, 4, "sgd", "contiguous", spacing_mm=(5.0, 1.4, 1.4)),
    Trial("residual", (96, 96, 80), 2, 16, 3, "muon", "channels_last", case=(180, 200, 180), windows=2),
    Trial("residual", (96, 80, 80), 2, 16, 5, "adamw", "contiguous", case=(240, 400, 400)),
    Trial("residual", (24, 160, 160), 2, 16, 2, "sgd", "channels_last", spacing_mm=(3.0, 0.8, 0.8), case=(24, 320, 320),
          windows=2),
    Trial("plain", (256, 224), 8, 32, 4, "adamw", "contiguous", case=(20, 256, 216)),
    Trial("plain", (320, 256), 6, 32, 2, "muon", "channels_last", channels=3),
    Trial("residual", (256, 256), 12, 32, 4, "sgd", "contiguous", case=(30, 512, 512), windows=12),
)
