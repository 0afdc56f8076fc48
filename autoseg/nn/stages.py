"""Which stage of a network a weight belongs to: for rates that fall towards the image, and for stages that do not move."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from autoseg.core.networks import Start

# Parts of a network that are lists of stages, from the image on; everything else follows the last stage.
_STAGE = re.compile(r"(?:encoder|attentions)\.(\d+)\.")


def stages_of(network: nn.Module) -> dict[str, int]:
    """Name of every parameter -> its stage: 0 sees the image; what follows the encoder has the number of its stages.

    The encoder is what the network calls `encoder`, a list; without one everything is of stage 0.
    """
    count = _stage_count(network)
    return {name: int(found[1]) if (found := _STAGE.match(name)) else count for name, _ in network.named_parameters()}


def trained_names(network: nn.Module, start: Start | None) -> list[str]:
    """Names of the parameters that training moves, in the network's order: all without a start, else as `start.trained` says.

    What is fresh is what the start has no part for: it is trained always.
    """
    stages = stages_of(network)
    if start is None or start.trained == "all":
        return list(stages)
    last = _stage_count(network) - 1
    choices: dict[str, Callable[[str], bool]] = {"last": lambda name: stages[name] >= last, "fresh": lambda name: False}
    return [name for name in stages if not name.startswith(start.parts) or choices[start.trained](name)]


def trained_parameters(network: nn.Module, start: Start | None) -> list[nn.Parameter]:
    """The parameters of `trained_names`: those of an optimisation phase, which leaves all others as they are."""
    parameters = dict(network.named_parameters())
    return [parameters[name] for name in trained_names(network, start)]


def rate_factors(network: nn.Module, start: Start | None) -> list[float]:
    """Factors of the learning rate for `trained_parameters`: 1 after the encoder, and `start.rate_decay` less per stage before.

    Source: Howard and Ruder 2018 (ULMFiT, arXiv 1801.06146), section 3.2, discriminative fine-tuning.
    """
    stages, decay = stages_of(network), 1.0 if start is None else start.rate_decay
    count = _stage_count(network)
    return [decay ** (count - stages[name]) for name in trained_names(network, start)]


def _stage_count(network: nn.Module) -> int:
    encoder = getattr(network, "encoder", None)
    return len(encoder) if isinstance(encoder, (nn.ModuleList, nn.Sequential)) else 0
