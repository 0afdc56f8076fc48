"""Whether a planned configuration can run in the memory that there is, told before anything is allocated."""

from __future__ import annotations

import math
from pathlib import Path

from autoseg.core.errors import ResourceError
from autoseg.core.networks import Classifier, Network, Registrar
from autoseg.core.plan import Configuration
from autoseg.core.task import Task
from autoseg.io.done import is_as_written
from autoseg.training.device import detect_device

# Parameters are kept in 32 bits whatever the precision; training keeps them, their gradients and at least one state.
PARAMETER_BYTES, COPIES_IN_TRAINING = 4, 3
# Classifiers whose convolutions are those of a U-Net's encoder.
ENCODERS = ("plain_encoder", "residual_encoder")
# Weights of a block of other classifiers over the square of its width, from below: a bottleneck of a quarter of the width has two
# 1 x 1 convolutions (He et al. 2016), attention four square matrices (Vaswani et al. 2017); a dense layer depends on its growth
# (Huang et al. 2017), and Inception's widths are its own.
LEAST_SHARE = {"resnet": 0.5, "vit": 4.0, "densenet": 0.0, "inception": 0.0}


def require_training_fits(task: Task, configuration: Configuration, plan_file: Path, device: str) -> None:
    """Raises a ResourceError where training surely does not fit into the free memory of `device`.

    The planner made every plan fit. What is left are files that were edited: for these the peak is predicted anew, with
    the same function that the planner uses.
    """
    found = detect_device(device)
    least = least_bytes(configuration, configuration.batch_size, training=True)
    if least <= found.memory_bytes and is_as_written(plan_file):
        return
    if least <= found.memory_bytes:
        from autoseg.training.memory import predict_peaks

        least, _ = predict_peaks(task, configuration, target=found.kind, threads=found.threads)
    size = " x ".join(map(str, configuration.patch_size))
    _require(least, found.memory_bytes, f"{plan_file}: training {configuration.name!r} with {configuration.batch_size} patches "
             f"of {size} voxels (z, y, x) in a batch", found.name)


def require_prediction_fits(configuration: Configuration, source: Path, device: str) -> None:
    """Raises a ResourceError where one batch of windows surely does not fit into the free memory of `device`."""
    found = detect_device(device)
    least = least_bytes(configuration, configuration.inference.tiles_per_batch, training=False)
    size = " x ".join(map(str, configuration.patch_size))
    _require(least, found.memory_bytes, f"{source}: predicting {configuration.inference.tiles_per_batch} windows of {size} "
             "voxels (z, y, x) at once", found.name)


def least_bytes(configuration: Configuration, batch: int, *, training: bool) -> int:
    """Bytes that a network cannot do without: its parameters, one batch, and the first feature map.

    A bound from below, in integers of any size: no plan that runs exceeds it, however absurd one that does not.
    """
    network = configuration.network
    voxels = batch * math.prod(configuration.patch_size)
    # Classifiers of every kind begin in a way of their own.
    features = 0 if isinstance(network, Classifier) else voxels // math.prod(network.strides[0]) * network.features[0]
    bytes_per_value = 4 if configuration.optimization.precision == "fp32" and configuration.inference.precision == "fp32" else 2
    copies = COPIES_IN_TRAINING if training else 1
    return PARAMETER_BYTES * copies * least_parameters(network) + 4 * voxels * network.in_channels + bytes_per_value * features


def least_parameters(network: Network | Classifier | Registrar) -> int:
    """Weights of the encoder's convolutions, without biases and norms; of a classifier what its kind cannot do without."""
    if isinstance(network, Classifier) and network.kind not in ENCODERS:
        per_block = sum(count * width**2 for count, width in zip(network.blocks, network.features, strict=True))
        return network.out_channels + int(LEAST_SHARE[network.kind] * per_block) + network.growth**2 * sum(network.blocks)
    blocks = network.blocks if isinstance(network, Classifier) else network.convs_encoder
    widths = (network.in_channels, *network.features)
    return sum(math.prod(kernel) * after * (before + (count - 1) * after) for kernel, before, after, count in zip(
        network.kernel_sizes, widths, network.features, blocks, strict=False))


def _require(needed: int, free: int, what: str, device: str) -> None:
    if needed > free:
        raise ResourceError(f"{what} needs at least {needed / 1e9:,.1f} GB of memory, and {device or 'the device'} has "
                            f"{free / 1e9:,.1f} GB free; plan again with a --memory that fits", code="E_PLAN_MEMORY")
