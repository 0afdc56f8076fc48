from __future__ import annotations

import pytest

from autoseg.planning.laterality import find_laterality, find_sides


@pytest.mark.parametrize("names", [
    ("left_kidney", "right_kidney"), ("Left-Hippocampus", "Right-Hippocampus"), ("hippocampus_l", "hippocampus_r"),
    ("L_hippocampus", "R_hippocampus"), ("kidney left", "kidney right"), ("LeftKidney", "RightKidney"),
    ("ctx-lh-cuneus", "ctx-rh-cuneus"), ("kidneyLeft", "kidneyRight"), ("Left-Lateral-Ventricle", "Right-Lateral-Ventricle"),
    ("lung_upper_lobe_left", "lung_upper_lobe_right"), ("rib_left_12", "rib_right_12"),
    ("left", "right"), ("L", "R"),
])
def test_spellings_of_a_pair(names):
    assert find_sides(names).pairs == ((0, 1),)
    assert find_sides(names[::-1]).pairs == ((1, 0),)
    assert find_sides(names).alone == ()


@pytest.mark.parametrize("names", [
    ("liver", "spleen"), ("vertebrae_L1", "vertebrae_L2"), ("left_ventricle", "right_ventricle"), ("heart_atrium_left",),
    ("type_r", "type_q"), ("l", "m"), ("bright", "cleft"), ("left_right_bundle",), ("LV", "RV"),
])
def test_names_without_a_side_chambers_of_the_heart_and_lone_letters_are_no_pairs(names):
    assert find_sides(names) == find_sides(())


def test_a_side_without_partner_is_alone():
    sides = find_sides(("lung_middle_lobe_right", "kidney_left", "kidney_right", "rib_left_1", "rib_right_2"))
    assert sides.pairs == ((1, 2),)
    assert sides.alone == ("lung_middle_lobe_right", "rib_left_1", "rib_right_2")


def test_pairs_are_indices_of_labels_and_outputs_with_the_background_at_zero():
    laterality = find_laterality(("liver", "right_kidney", "left_kidney"), None)
    assert (laterality.label_pairs, laterality.output_pairs, laterality.unclear) == (((3, 2),), ((3, 2),), "")


def test_one_side_alone_makes_the_swap_unclear():
    assert "left_lung" in find_laterality(("left_lung", "liver"), None).unclear
    assert not find_laterality(("liver",), None).has_sides


def test_regions_that_turn_into_each_other_are_swapped_and_symmetric_ones_stay():
    names = ("left_kidney", "left_tumour", "right_kidney", "right_tumour")
    regions = {"kidneys": (1, 2, 3, 4), "left_all": (1, 2), "right_all": (3, 4), "tumours": (2, 4)}
    laterality = find_laterality(names, regions)
    assert laterality.label_pairs == ((1, 3), (2, 4)) and laterality.output_pairs == ((1, 2),)


@pytest.mark.parametrize("regions", [
    {"left_all": (1, 2), "right_tumour": (4,)},  # mirrored, the first is no region
    {"all": (1, 2, 3, 4), "left": (2,)},
])
def test_regions_without_their_mirror_image_make_the_swap_unclear(regions):
    names = ("left_kidney", "left_tumour", "right_kidney", "right_tumour")
    assert "some region" in find_laterality(names, regions).unclear


def test_regions_with_sides_over_labels_without_any_are_unclear():
    assert find_laterality(("label_1", "label_2"), {"left_lung": (1,), "right_lung": (2,)}).unclear
    assert find_laterality(("label_1", "label_2"), {"left_lung": (1,), "lungs": (1, 2)}).unclear
    assert not find_laterality(("label_1", "label_2"), {"whole": (1, 2), "core": (2,)}).has_sides


def test_ventricles_beside_other_pairs_may_be_of_heart_or_brain_and_stop_the_swap():
    names = ("ventricle_left", "ventricle_right", "cerebellum_left", "cerebellum_right")
    assert "ventricle_left, ventricle_right may be" in find_laterality(names, None).unclear
    lateral = ("lateral_ventricle_left", "lateral_ventricle_right", *names[2:])
    assert find_laterality(lateral, None).label_pairs == ((1, 2), (3, 4))
    assert find_laterality(names[:2], None).unclear == ""  # chambers alone: a plain mirror image
