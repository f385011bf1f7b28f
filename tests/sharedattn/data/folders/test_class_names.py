"""Names of ImageNet's classes by folders."""

from __future__ import annotations

from timm.data import ImageNetInfo

from sharedattn.data.folders.class_names import wordnet_names


def test_equal_lemmas_are_told_apart_by_their_numbers() -> None:
    names = wordnet_names(ImageNetInfo().label_names())
    assert names is not None and len(names) == len(set(names)) == 1000
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")
    plain = ImageNetInfo().label_descriptions()
    assert sum(name != other for name, other in zip(names, plain, strict=True)) == 2


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
