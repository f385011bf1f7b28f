"""Figures of context broadcasting (ICCV 2023, arXiv:2210.08457): its added cost.

The paper's tables were not available; these are claims of its abstract and reviews.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from sharedattn.backbones import describe
from sharedattn.papers.counting import WHOLE
from sharedattn.papers.figures import Figure, Row
from sharedattn.placement import BackboneSpec

PAPER = "CB"
ABSTRACT = "abstract"
REVIEW = "a review of the paper"

BACKBONES = (
    ("DeiT-T", "deit_tiny_patch16_224"),
    ("DeiT-S", "deit_small_patch16_224"),
    ("DeiT-B", "deit_base_patch16_224"),
)

_OPERATIONS = 2
"""Per token and channel: adding it to the mean, and adding the mean to it."""


def rows() -> list[Row]:
    """All figures of the paper that need no training."""
    return [
        *(row for model, backbone in BACKBONES for row in _plain_rows(model, backbone)),
        *(_scaled_row(model, backbone) for model, backbone in BACKBONES),
    ]


def _plain_rows(model: str, backbone: str) -> Iterable[Row]:
    [stage] = describe(BackboneSpec.parse(backbone)).stages
    plain, with_cb = f"{backbone}: V12", f"{backbone}: V12/cb"
    yield Row(
        figure=Figure(
            paper=PAPER, source=ABSTRACT, model=model, metric="params added", printed="0"
        ),
        ours=Fraction(WHOLE.count(with_cb).params - WHOLE.count(plain).params),
        convention="all parameters",
        network=with_cb,
    )
    operations = _OPERATIONS * stage.num_tokens * stage.embed_dim * stage.max_depth
    yield Row(
        figure=Figure(
            paper=PAPER,
            source=ABSTRACT,
            model=model,
            metric="operations added",
            printed="minimal",
            shown_like="0 %",
        ),
        ours=Fraction(operations, WHOLE.count(plain).macs),
        convention="2 additions an element",
        note="printed in words; additions beside the network's multiply-adds, which stay as many",
        network=with_cb,
    )


def _scaled_row(model: str, backbone: str) -> Row:
    plain = f"{backbone}: V12"
    scaled = f"{backbone}(broadcasting_form=scaled): V12/cb"
    return Row(
        figure=Figure(
            paper=PAPER,
            source=REVIEW,
            model=f"{model}, CB_S",
            metric="params added",
            printed="negligible",
            shown_like="0",
        ),
        ours=Fraction(WHOLE.count(scaled).params - WHOLE.count(plain).params),
        convention="all parameters",
        note="the scaled form's formula was not at hand; ours is one scale a channel and layer",
        network=scaled,
        known=False,
    )
