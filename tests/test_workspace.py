from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from autoseg.core.errors import IncompatibleError
from autoseg.core.spec import DatasetSpec, LayoutSpec
from autoseg.tasks import load_task
from autoseg.workspace import require_known_options


@dataclass(frozen=True)
class Sharp:
    tolerance: float = 1.0


@dataclass(frozen=True)
class Named:
    classes: tuple[str, ...] = ()


# A task of two kinds of options, whose keys stand side by side in a specification.
TWO = replace(load_task("segmentation"), options=(Sharp, Named))


def spec_with(**options) -> DatasetSpec:
    return DatasetSpec("Toy", "two", (LayoutSpec("toy", {"image": ("{case}.png",)}),), options=options)


@pytest.mark.parametrize("options", [{}, {"tolerance": 2.0}, {"classes": ["a"], "tolerance": 2}])
def test_keys_of_any_type_of_options_are_known(options):
    require_known_options(spec_with(**options), TWO)


@pytest.mark.parametrize(("options", "words"), [
    ({"tolerence": 2.0}, ["Toy", "tolerence", "Did you mean 'tolerance'"]), ({"clases": []}, ["Did you mean 'classes'"]),
    ({"tolerance": "far", "classes": ["a"]}, ["tolerance", "'far'"]), ({"classes": "a"}, ["classes"])])
def test_a_misspelt_key_or_a_wrong_value_of_any_of_them_is_named(options, words):
    with pytest.raises(IncompatibleError) as caught:
        require_known_options(spec_with(**options), TWO)
    assert all(word in str(caught.value) for word in words)
