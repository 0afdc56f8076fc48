"""Our DenseNet and ResNet against MONAI's with the same weights: what differs is only what MONAI's cannot be asked for."""

from __future__ import annotations

import pytest
import torch
from nn.classifiers import built, image, per_axis

from autoseg.core.networks import Classifier

monai = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed: pip install 'autoseg[classification]'",
                            exc_type=ImportError)


def with_weights_of(network, reference):
    """Both name their tensors otherwise and register them in the same order."""
    own, theirs = network.state_dict(), list(reference.state_dict().values())
    network.load_state_dict(dict(zip(own, theirs, strict=True)))
    return network


def assert_same(network, reference, batch):
    for mode in (True, False):  # in training the statistics of norms move, which evaluation then uses
        with torch.no_grad():
            torch.testing.assert_close(network.train(mode)(batch), reference.train(mode)(batch), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dims", "norm"), [(2, "batch"), (3, "batch"), (2, "instance")])
def test_densenet(dims, norm):
    ours = Classifier("densenet", dims, 2, 3, (16,) * 4, per_axis(dims, 2, 2, 2, 2), per_axis(dims, 7, 3, 3, 3), (1, 2, 3, 1),
                      growth=8, norm=norm)
    monai_norm = ("instance", {"affine": True}) if norm == "instance" else norm
    reference = monai.DenseNet(dims, 2, 3, init_features=16, growth_rate=8, block_config=(2, 3, 1), norm=monai_norm).double()
    assert_same(with_weights_of(built(ours).double(), reference), reference, image(2, 2, *(48, 32, 32)[:dims]).double())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_resnet(dims, bottleneck):
    widths = (8, 16, 24, 32)
    ours = Classifier("resnet", dims, 2, 3, (8, *(4 * w if bottleneck else w for w in widths)), per_axis(dims, 2, 2, 2, 2, 2),
                      per_axis(dims, 7, 3, 3, 3, 3), (1, 1, 2, 1, 1), bottleneck=bottleneck)
    reference = monai.ResNet("bottleneck" if bottleneck else "basic", [1, 2, 1, 1], list(widths), dims, 2, conv1_t_stride=2,
                             bias_downsample=False, num_classes=3).double()
    assert_same(with_weights_of(built(ours).double(), reference), reference, image(2, 2, *(64, 32, 32)[:dims]).double())
