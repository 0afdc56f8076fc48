from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.profiles import FEWEST_CASES, content_digest, find_suspects, measure_profile


def t1_and_t2(seed):
    """Two channels of a head in air with a scale of their own, and a label that is dark in the first, bright in the second."""
    rng = np.random.default_rng(seed)
    tissue = np.zeros((12, 20, 22), bool)
    tissue[2:-2, 3:-3, 4:-4] = True
    lesion = np.zeros_like(tissue)
    lesion[4:7, 6:11, 7:12] = True
    white = rng.random(tissue.shape) < 0.5
    first = np.where(white, 1.0, 0.6) + rng.normal(0, 0.05, tissue.shape)
    second = np.where(white, 0.35, 0.5) + rng.normal(0, 0.05, tissue.shape)
    first[lesion], second[lesion] = 0.4, 1.0
    scales = rng.uniform(50, 5000, 2)
    return [np.where(tissue, channel, 0.02) * scale for channel, scale in zip((first, second), scales, strict=True)], lesion


def profiles(seed, *, swapped=False, with_label=True):
    channels, lesion = t1_and_t2(seed)
    found = [measure_profile(channel, lesion.astype(np.uint8) if with_label else None) for channel in channels]
    return found[::-1] if swapped else found


@pytest.mark.parametrize("with_label", [True, False])
def test_swapped_channels_are_found_whatever_the_scale_of_the_scanner(with_label):
    cases = [profiles(seed, swapped=seed in (2, 5), with_label=with_label) for seed in range(9)]
    assert [(suspect.case, suspect.order) for suspect in find_suspects(cases)] == [(2, (1, 0)), (5, (1, 0))]


@pytest.mark.parametrize("with_label", [True, False])
def test_nobody_is_suspected_where_nothing_was_swapped(with_label):
    assert find_suspects([profiles(seed, with_label=with_label) for seed in range(20)]) == []


def test_three_channels_in_a_ring_are_found_with_their_order():
    cases = []
    for seed in range(8):
        channels, lesion = t1_and_t2(seed)
        third = np.exp(3 * channels[0] / channels[0].max())  # another shape of the histogram
        cases.append([measure_profile(channel, lesion.astype(np.uint8)) for channel in (*channels, third)])
    cases[3] = [cases[3][1], cases[3][2], cases[3][0]]
    assert [(suspect.case, suspect.order) for suspect in find_suspects(cases)] == [(3, (1, 2, 0))]


def test_few_cases_and_single_channels_are_not_compared():
    assert find_suspects([]) == []
    assert find_suspects([profiles(seed, swapped=seed == 0) for seed in range(FEWEST_CASES - 1)]) == []
    assert find_suspects([profiles(seed)[:1] for seed in range(8)]) == []


def test_a_profile_does_not_depend_on_scale_and_offset():
    (channel, _), lesion = t1_and_t2(0)
    first, second = (measure_profile(voxels, lesion.astype(np.uint8)) for voxels in (channel, 3 * channel + 100))
    assert first.levels == pytest.approx(second.levels) and first.labels == pytest.approx(second.labels)
    assert first.labels[1] == pytest.approx(0.0, abs=0.2)  # dark among the tissue


def test_a_constant_image_has_a_profile():
    assert measure_profile(np.full((2, 3, 4), 7.0)).levels == (0.0,) * 5


def test_copies_share_a_digest_and_others_do_not():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 40, 60, 70)).astype(np.float32)  # more voxels than the digest looks at
    other = image.copy()
    other[1] += rng.normal(size=other[1].shape) * 1e-3
    assert content_digest([image]) == content_digest([image.copy()]) == content_digest([image.astype(np.float64)])
    digests = [content_digest(parts) for parts in ([image], [other], [image.transpose(0, 1, 3, 2)], [image[:1], image[1:]])]
    assert len(set(digests)) == 4


def test_the_digest_looks_at_every_column_of_a_large_image():
    """Places at a distance that is a multiple of the row would all fall into one column, which is air in most scans."""
    image = np.zeros((1, 100, 250, 400), np.float32)  # 100 rows of the first axis hold exactly 100,000 voxels each
    other = image.copy()
    other[..., 7] = 1
    assert content_digest([image]) != content_digest([other])


def test_real_channels_flair_and_t1_are_told_apart(real_data):
    from autoseg.io.dataset import examine_case, scan
    from autoseg.io.specs import load_spec

    folder = real_data / "Dataset106_BraTS15Sub"
    spec = load_spec(str(folder))
    cases = [list(examine_case(spec, case).profiles) for case in scan(spec, folder).cases]
    assert find_suspects(cases) == []
    found = [place for place in range(len(cases))
             if [suspect.case for suspect in find_suspects([*cases[:place], cases[place][::-1], *cases[place + 1:]])] == [place]]
    assert len(found) >= 4, found
