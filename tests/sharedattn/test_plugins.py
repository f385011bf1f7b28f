"""What other distributions add: read in order, named where it fails, refused where it clashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sharedattn.backbones import FAMILIES, describe, families
from sharedattn.backbones import registry as backbones
from sharedattn.backbones.vit import VIT
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec
from sharedattn.plugins import added, load

GROUP = "sharedattn.backbones"


@pytest.fixture(autouse=True)
def families_are_asked_anew() -> Iterator[None]:
    known = (families, backbones.describe, backbones._plain)
    for cached in known:
        cached.cache_clear()
    yield
    for cached in known:
        cached.cache_clear()


def test_a_family_from_outside_is_a_backbone(entry_point) -> None:
    other = replace(VIT, base_name="outside_vit", names={})
    entry_point(GROUP, "it", other)
    assert families() == (*FAMILIES, other)
    sizes = "(depth=2,embed_dim=12,num_heads=2,patch_size=4)@16"
    shapes = [describe(BackboneSpec.parse(f"{name}{sizes}")) for name in ("vit", "outside_vit")]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (VIT, "outside 2 takes the name vit, which another backbone has; .*uninstall outside"),
        (7, "outside 2 registers 7 as a backbone; its entry point names a .*Family"),
        (OSError("no such\n disk"), "outside 2 cannot be imported: .* raised OSError: no such"),
    ],
)
def test_what_is_no_family_of_its_own_is_refused(entry_point, loaded, message) -> None:
    entry_point(GROUP, "it", loaded)
    with pytest.raises(InputError, match=message):
        families()


def test_other_groups_are_left_alone(entry_point) -> None:
    entry_point("sharedattn.searchers", "it", 7)
    assert list(load(GROUP)) == []
    assert families() == FAMILIES


def test_names_are_taken_once_among_plug_ins_too(entry_point) -> None:
    entry_point(GROUP, "seven", 7)
    found = added(
        GROUP,
        ["one"],
        what="a number",
        wanted="a number",
        fits=lambda x: x == 7,
        names_of=lambda point, _: [point, "lucky"],
    )
    assert found == [("seven", 7)]
    with pytest.raises(InputError, match="takes the name lucky, which another number has"):
        added(
            GROUP,
            ["lucky"],
            what="a number",
            wanted="a number",
            fits=lambda x: x == 7,
            names_of=lambda point, _: [point, "lucky"],
        )
