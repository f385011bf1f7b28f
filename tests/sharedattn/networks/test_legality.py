"""What a backbone's sizes let a placement and options be."""

from __future__ import annotations

import pytest

from sharedattn.backbones import build, describe, resolve
from sharedattn.errors import InputError
from sharedattn.placement import BackboneSpec, NetworkSpec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "pvt(dia_reduction=129): V1 | V1 | V1/dia1 | V1",
            None,
        ),
        (
            "pvt(dia_reduction=129): V1 | V2/dia1 | V1/dia1 | V1",
            "stage 2 of 'V1 . V2/dia1 .*: `dia_reduction` is 129, more than `embed_dim`, 128.*; "
            "the most that fits is dia_reduction=128",
        ),
        ("pvt(dia_reduction=128): V1 | V2/dia1 | V1/dia1 | V1", None),
    ],
)
def test_dia_units_that_have_no_channel(text: str, message: str | None) -> None:
    spec = NetworkSpec.parse(text)
    for attempt in (resolve, build):
        if message is None:
            attempt(spec)
        else:
            with pytest.raises(InputError, match=message):
                attempt(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swin(class_token_in_mean=false)", "without prefix tokens.*leave it out"),
        ("hvt(class_token_in_mean=false)", "without prefix tokens.*leave it out"),
        (
            "vit(external_expansion=1000001)",
            "external_expansion` is 1000001, and at most",
        ),
    ],
)
def test_options_that_mean_nothing_on_a_backbone(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(BackboneSpec.parse(text))
