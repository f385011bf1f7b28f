"""Where no data is named, a network is trained on embedded data of as many classes as it has."""

import pytest

from sharedattn.placement import BackboneSpec
from sharedattn.search.config import DEFAULT_SPACE
from sharedattn.search.data_plan import DEFAULT_DATA, default_data
from sharedattn.search.evaluation import FromScratch
from sharedattn.spaces.space import Space


@pytest.mark.parametrize(
    ("num_classes", "data"),
    [(2, "digit-pairs"), (4, "digit-count"), (3, DEFAULT_DATA), (1000, DEFAULT_DATA)],
)
def test_data_is_chosen_by_the_number_of_classes(num_classes, data):
    backbone = BackboneSpec.parse(f"vit(num_classes={num_classes},in_chans=1,patch_size=4)@16")
    assert default_data(backbone) == data
    assert FromScratch().data_name(backbone) == data
    assert FromScratch(data="digit-pairs").data_name(backbone) == "digit-pairs"


@pytest.mark.parametrize(
    ("space", "data"),
    [
        (DEFAULT_SPACE, DEFAULT_DATA),
        ("digit-pairs-vit", "digit-pairs"),
        ("digit-pairs-cut", "digit-pairs"),
    ],
)
def test_embedded_presets_have_data_of_their_own(space, data):
    assert default_data(Space.load(space).backbone) == data
