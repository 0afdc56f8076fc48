"""Similarities that were learnt: scores of a patch classifier, and features of a segmentation network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoseg.losses.local_correlation import standardised
from autoseg.nn.similarity import FeatureEncoder, PatchClassifier


def learned_loss(part: nn.Module, fixed: Tensor, warped: Tensor) -> Tensor:
    """How unlike two images are by a part of `nn.similarity`: `patch_loss` of a classifier, `feature_loss` of an encoder."""
    return patch_loss(part, fixed, warped) if isinstance(part, PatchClassifier) else \
        feature_loss(part, fixed, warped)  # type: ignore[arg-type]


def patch_classification_loss(scores: Tensor, aligned: Tensor) -> Tensor:
    """Binary cross-entropy of one score per pair of patches, (B, 1, ...), and whether they are aligned, bool (B,).

    After it scores are log odds, of which `patch_loss` takes the probability.
    """
    return functional.binary_cross_entropy_with_logits(scores.flatten(), aligned.to(scores.dtype))


def patch_loss(classifier: PatchClassifier, fixed: Tensor, warped: Tensor) -> Tensor:
    """Mean of -log probability that the patches of two images are aligned; 0 is perfect.

    Args:
        classifier: trained by `patch_classification_loss`.
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
