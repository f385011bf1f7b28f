"""Figures of external attention (TPAMI, arXiv:2105.02358): EAMLP, and its layers.

Full parameter counts are those of networks built by the paper's published code, without the fixed
position embedding; so are the MACs of its segmenter at 512 pixels, counted by fvcore. The paper's
own cost table was not available and is quoted from memory: its rows are marked, and count for
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from sharedattn.costs.model import CostModel
from sharedattn.mechanisms import external, vanilla
from sharedattn.mechanisms.external import DEFAULT_SLOTS
from sharedattn.papers.counting import macs_rows, params_rows
from sharedattn.papers.figures import Figure, Row
from sharedattn.placement import NetworkSpec

PAPER = "EA"
CODE = "counted on the paper's published code"
COMPARISON = "Vision Permutator's code, table of its README"
T2T_README = "README in the history of the paper's code"
QUESTION = "question 30 to the authors of the code"
KERAS = "Keras example of external attention on CIFAR-100"

NETWORKS = (
    # model, printed figure, source, our network
    ("EAMLP-7", "6,096,206", CODE, "t2t_ea_7: E7/mea"),
    ("EAMLP-14", "29,801,422", CODE, "t2t_ea_14: E14/mea"),
    ("EAMLP-19", "54,470,798", CODE, "t2t_ea_19: E19/mea"),
    ("EAMLP-14", "30 M", COMPARISON, "t2t_ea_14: E14/mea"),
    ("EAMLP-19", "55 M", COMPARISON, "t2t_ea_19: E19/mea"),
)

LAYERS = (
    # model, printed params of one attention layer, our network
    ("MEA of EAMLP-14", "1,189,888", "t2t_ea_14: E14/mea"),
    ("SA of T2T-ViT-14", "590,208", "t2t_ea_14: V14"),
)

T2T = (
    # model, params, MACs, the stand-in
    ("T2T-ViT-7", "4.3 M", "1.2 G", "t2t_ea_7: V7"),
    ("T2T-ViT-14", "21.5 M", "5.2 G", "t2t_ea_14: V14"),
    ("T2T-ViT-19", "39.2 M", "8.9 G", "t2t_ea_19: V19"),
    ("T2T-ViT_t-14", "21.5 M", "6.1 G", "t2t_ea_14: V14"),
)
_T2T_NOTE = "its tokens-to-token module attends to the tokens; ours is EAMLP's, to a memory"

_KERAS_NETWORK = (
    "vit(class_token=false,depth=8,embed_dim=64,global_pool=avg,mlp_ratio=1.0,num_classes=100,"
    "num_heads=4,patch_size=2)@32: E8/s16/mea"
)
_KERAS_NOTE = "the width of its MLPs was not at hand; ours is the tokens' own"

RECALLED_TABLE = "the paper's cost table at 512 x 128 x 128, from memory"
_RECALLED_DIM, _RECALLED_TOKENS, _RECALLED_SLOTS = 512, 128 * 128, 64


_SEGMENTER = (
    "resnet101(head=eanet,num_classes=21,output_stride=8,stem_type=deep)@512: V3 | V4 | V23 | V3"
)


def rows() -> list[Row]:
    """All figures of the paper that need no training."""
    return [
        *_layer_rows(),
        *_segmenter_rows(),
        *_network_rows(),
        _dearer_row(),
        *_stand_in_rows(),
        *_recalled_rows(),
    ]


def _figure(source: str, model: str, metric: str, printed: str) -> Figure:
    return Figure(paper=PAPER, source=source, model=model, metric=metric, printed=printed)


def _network_rows() -> Iterable[Row]:
    for model, printed, source, network in NETWORKS:
        yield from params_rows(_figure(source, model, "params", printed), network)


def _segmenter_rows() -> Iterable[Row]:
    """EANet of 21 classes; its multi-grid dilations, which ours has not, cost nothing."""
    model = "EANet, dilated ResNet-101"
    yield from params_rows(_figure(CODE, model, "params", "53,839,061"), _SEGMENTER)
    yield from macs_rows(_figure(CODE, model, "MACs", "230,764,314,624"), _SEGMENTER)


def _layer_rows() -> Iterable[Row]:
    for model, printed, network in LAYERS:
        spec = NetworkSpec.parse(network)
        layer = CostModel(spec.backbone).attention(0, spec.placement.stages[0][0])
        yield Row(
            figure=_figure(CODE, model, "params of the layer", printed),
            ours=Fraction(layer.params),
            convention="all parameters",
            network=network,
        )


def _dearer_row() -> Row:
    """The row on the code's layers, which cost more than self-attention."""
    network = "t2t_ea_14: E1V1/mea"
    spec = NetworkSpec.parse(network)
    costs = CostModel(spec.backbone)
    mea, sa = (costs.attention(0, choice).macs for choice in spec.placement.stages[0])
    stage = costs.shape.stages[0]
    # 2 c N D (D + S) of MEA against 2 N D (2 D + N) of self-attention.
    c, S, D = spec.backbone.options.external_expansion, DEFAULT_SLOTS, stage.embed_dim
    return Row(
        figure=Figure(
            paper=PAPER,
            source=QUESTION,
            model="MEA of EAMLP-14",
            metric="MACs against SA",
            printed="more",
            shown_like="0 %",
        ),
        ours=Fraction(mea, sa) - 1,
        convention="whole",
        note=f"printed in words; it is so below {(c - 2) * D + c * S:,} tokens, and here are "
        f"{stage.num_tokens}",
        network=network,
    )


def _stand_in_rows() -> Iterable[Row]:
    for model, params, macs, network in T2T:
        yield from params_rows(
            _figure(T2T_README, model, "params", params), network, reason=_T2T_NOTE, known=False
        )
        yield from macs_rows(
            _figure(T2T_README, model, "MACs", macs), network, reason=_T2T_NOTE, known=False
        )
    yield from params_rows(
        _figure(KERAS, "EANet", "params", "0.3 M"),
        _KERAS_NETWORK,
        reason=_KERAS_NOTE,
        known=False,
    )


def _recalled_rows() -> Iterable[Row]:
    D, N, S = _RECALLED_DIM, _RECALLED_TOKENS, _RECALLED_SLOTS
    with_bias, macs = external.params(D, S), external.macs(N, D, S)
    two, one = "no biases", "no biases, one memory for keys and values"
    from_memory = "from memory, not seen in a source: holds nothing"
    for model, metric, printed, ours, convention in (
        ("SA", "params", "1.00 M", vanilla.params(D, qkv_bias=False, proj_bias=False), two),
        ("SA", "MACs", "292 G", vanilla.macs(N, D), two),
        ("EA", "params", "0.55 M", with_bias - D, two),
        ("EA", "params", "0.55 M", with_bias - D - S * D, one),
        ("EA", "MACs", "9.2 G", macs, two),
        ("EA", "MACs", "9.2 G", macs - N * S * D, one),
    ):
        yield Row(
            figure=Figure(
                paper=PAPER,
                source=RECALLED_TABLE,
                model=f"{model} layer",
                metric=metric,
                printed=printed,
                recalled=True,
            ),
            ours=Fraction(ours),
            convention=convention,
            note=from_memory,
        )
