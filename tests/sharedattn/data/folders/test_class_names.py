"""Names of ImageNet's classes, by a head's outputs and by folders."""

from __future__ import annotations

import pytest
from timm.data import ImageNetInfo

from sharedattn.data.folders.class_names import imagenet_class_names, wordnet_names


@pytest.mark.parametrize(
    ("num_classes", "first", "last"),
    [
        (1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue"),
        (11_221, "benthos", None),
        (11_821, None, None),
        (21_841, None, None),
        (21_842, "tench, Tinca tinca", None),
        (21_843, None, None),
    ],
)
def test_a_name_for_each_output(num_classes: int, first: str | None, last: str | None) -> None:
    names = imagenet_class_names(num_classes)
    assert names is not None and len(names) == len(set(names)) == num_classes
    assert all(names) and first in (None, names[0]) and last in (None, names[-1])


def test_equal_lemmas_are_told_apart_by_their_numbers() -> None:
    names = imagenet_class_names(1000)
    assert names is not None
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")
    plain = ImageNetInfo().label_descriptions()
    assert sum(name != other for name, other in zip(names, plain, strict=True)) == 2


@pytest.mark.parametrize("num_classes", [0, 1, 2, 10, 512, 999, 1001, 21_000, -1])
def test_other_heads_have_no_names(num_classes: int) -> None:
    assert imagenet_class_names(num_classes) is None


def test_folders_by_number_in_their_own_order() -> None:
    folders = ["n02123045", "n01440764", "n02085620"]
    assert wordnet_names(folders) == ("tabby, tabby cat", "tench, Tinca tinca", "Chihuahua")
    assert wordnet_names(["n02012849"]) == ("crane",)
    for others in (
        [],
        ["cat", "dog"],
        ["n02123045", "cat"],
        ["n99999999"],
        ["n02123045 "],
        ["N02123045"],
        ["n0212304५"],
        ["v02123045"],
    ):
        assert wordnet_names(others) is None
