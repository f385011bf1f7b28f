"""The size of images: one number for squares, height and width for others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.placement import BackboneSpec, NetworkSpec


@pytest.mark.parametrize(
    ("text", "size", "document", "spaced"),
    [
        ("224", ImageSize(224, 224), 224, "224 x 224"),
        ("800x1280", ImageSize(800, 1280), [800, 1280], "800 x 1280"),
    ],
)
def test_forms_of_a_size(text: str, size: ImageSize, document: Any, spaced: str) -> None:
    assert ImageSize.parse(text) == size == ImageSize.of(size.given)
    assert (str(size), f"{size}", size.spaced) == (text, text, spaced)
    assert size.to_json() == document and ImageSize.of(json.loads(json.dumps(document))) == size
    assert size.num_pixels == size.height * size.width


def test_a_square_has_one_form() -> None:
    assert ImageSize.parse("29x29").given == 29 == ImageSize.of((29, 29)).to_json()
    specs = [BackboneSpec(name="vit", image_size=size) for size in (29, (29, 29))]
    assert specs[0] == specs[1] and str(specs[1]) == "vit@29"
    assert specs[1].to_json()["image_size"] == 29


@pytest.mark.parametrize(
    "size", [0, -3, 1.0, True, "32", None, (32,), (3, 0), (3, 4, 5), (3, 4.0)]
)
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(InputError, match="`image_size` is .* at least 1, or two of them, height"):
        ImageSize.of(size)


@pytest.mark.parametrize("text", ["", "x", "24x", "x40", "24x40x3", "24 x 40", "-3", "1e3"])
def test_text_that_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="is no image size; write"):
        ImageSize.parse(text)


def test_the_size_of_a_spec() -> None:
    spec = NetworkSpec.parse("vit(patch_size=8)@24x40: V2")
    assert spec.backbone.image_size == (24, 40)
    assert str(spec) == "vit(patch_size=8)@24x40: V2"
    document = json.loads(json.dumps(spec.to_json()))
    assert document["backbone"]["image_size"] == [24, 40]
    again = NetworkSpec.from_json(document)
    assert again == spec and again.key == spec.key and hash(again.backbone) == hash(spec.backbone)
    turned = NetworkSpec.parse("vit(patch_size=8)@40x24: V2")
    assert turned != spec and turned.key != spec.key


def test_sizes_that_do_not_fit_a_spec() -> None:
    for text in ("vit@24x: V2", "vit@24x0: V2", "vit@24X40: V2"):
        with pytest.raises(InputError):
            NetworkSpec.parse(text)
