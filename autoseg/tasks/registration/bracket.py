"""How smooth: the weight of the smoothness, tried on a few pairs where the plan has minutes."""

from __future__ import annotations

from autoseg.core.plan import Configuration, Reason
from autoseg.planning.budget import Meter
from autoseg.planning.explain import Reasons
from autoseg.tasks.registration import recipes


def choose_smoothness(configuration: Configuration, meter: Meter) -> tuple[float, Reasons]:
    """The weight, and why."""
    similarity = str(configuration.task_values["similarity"])
    weight = configuration.loss.terms.get("smoothness", 0.0)
    if configuration.network.similarity is not None:  # type: ignore[union-attr]  # its weights are not there yet; see learned.py
        return weight, {}
    return weight, {"loss.terms": Reason(
        f"similarity {similarity}", "published weights beside this similarity; derivatives are in mm by mm", recipes.VOXELMORPH)}
