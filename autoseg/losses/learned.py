"""Similarities that were learnt: scores of a patch classifier, and features of a segmentation network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.losses.local_correlation import standardised
from autoseg.nn.similarity import FeatureEncoder, PatchClassifier


def patch_loss(classifier: PatchClassifier, fixed: Tensor, warped: Tensor) -> Tensor:
    """Mean of -log probability that the patches of two images are aligned; 0 is perfect.

    Args:
        classifier: see `training.patch_metric`.
        fixed, warped: (B, C, *spatial), any scale and offset: they are standardised, as in its training.
    Source: Simonovsky et al. 2016; the logarithm instead of the score itself, so that what is aligned pulls no more.
    """
    return functional.softplus(-classifier(standardised(fixed), standardised(warped))).mean()


def feature_loss(encoder: FeatureEncoder, fixed: Tensor, warped: Tensor) -> Tensor:
    """One minus the cosine between the features of two images, mean over places, then over resolutions; in [0, 2].

    Args:
        fixed, warped: (B, C, *spatial), normalised as the encoder's network was trained.
    Returns:
        Scalar; places where one has no feature at all count as a right angle.
    Source: Czolbe et al. 2021 (DeepSim), eq. 3.
    """
    with torch.no_grad():
        wanted = encoder(fixed)
    terms = [1 - functional.cosine_similarity(first, second, dim=1, eps=1e-6).mean()
             for first, second in zip(wanted, encoder(warped), strict=True)]
    return torch.stack(terms).mean()
