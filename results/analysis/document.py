"""The JSON document of an analysis: each figure with its control and its definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sharedattn.networks.measures import broadcasting_entropy
from sharedattn.results.analysis import Analysis, Figure
from sharedattn.results.analysis.measuring import (
    Layer,
    Name,
    comparable_pairs,
    consecutive_pairs,
    gate_pairs,
    share_unit,
)
from sharedattn.results.records import Document

ANALYSIS_FORMAT = 1

DEFINITIONS = {
    "figure": "value: of the network, a mean over images; undefined: values left out of it since "
    "they were NaN; control_mean, control_sd: of randomly initialised networks of the same spec, "
    "over the seeds under control",
    "entropy": "entropy of attention rows over the logarithm of the number of keys (of an "
    "external layer, of slots), mean over heads, queries and images: 0 one-hot, 1 uniform. "
    "Prefix tokens, such as the class token, count as queries and as keys; without_prefix leaves "
    "out their rows and columns and scales what remains of a row to 1. Where a backbone mixes "
    "maps over heads, these are the maps before",
    "broadcasting": "change: entropy with context broadcasting less entropy without. The weights "
    "are the same both ways, so one way is off their distribution; the control is paired by "
    "seed. trained_change compares with a network trained the other way. map_entropy: of the "
    "fixed map that plain context broadcasting is, in closed form, by stage. null where layers "
    "are residual blocks of convolutions, which cannot broadcast",
    "similarity": "between the maps of vanilla and less layers of one stage, over the same "
    "queries and keys (layers of unequal window shift are not compared), averaged over heads, "
    "mean over images: cosine, which is high for any two maps without negative weights, and "
    "Pearson correlation over all entries, which compares departures from uniform attention. A "
    "less layer begins as plain reuse, so its control is 1. Consecutive: with no comparable "
    "layer between",
    "diagonality": "the diagonality term of less attention on each layer with as many queries as "
    "keys N: -(N-1)/N for the identity, 0 for uniform maps, at most 3/N",
    "gates": "Pearson correlation over channels between the gates of two layers of a stage, "
    "for each image; mean over pairs, then over images. A shared unit scores high by itself: "
    "shared and independent pairs are averaged apart, and unshared_control is that of random "
    "networks with a unit for every layer. pooled: over images and channels together, which "
    "the channels' means inflate",
}


def analysis_document(analysis: Analysis) -> Document:
    """All figures of an analysis with their definitions, without NaN."""
    return {
        "format": ANALYSIS_FORMAT,
        "network": str(analysis.spec),
        "images": analysis.num_images,
        "control": {"seeds": list(analysis.control_seeds), "init": analysis.init},
        "definitions": DEFINITIONS,
        "entropy": _entropy(analysis),
        "broadcasting": _broadcasting(analysis),
        "similarity": _similarity(analysis),
        "diagonality": _diagonality(analysis),
        "gates": _gates(analysis),
    }


def figure_document(figure: Figure) -> Document:
    """The document of one figure."""
    return {
        "value": figure.value,
        "undefined": figure.num_undefined,
        "control_mean": figure.control_mean,
        "control_sd": figure.control_sd,
    }


def _layer(layer: Layer) -> Document:
    return {"layer": layer.label, "choice": str(layer.choice)}


def _with_attention(analysis: Analysis) -> list[Layer]:
    return [layer for layer in analysis.layers if layer.maps is not None]


def _entropy(analysis: Analysis) -> list[Document]:
    documents = []
    for layer in _with_attention(analysis):
        assert layer.maps is not None
        document = _layer(layer) | {"keys": layer.maps.num_columns}
        document |= figure_document(analysis.figures["entropy", layer.position])
        without = analysis.figures.get(("entropy without prefix", layer.position))
        if without is not None:
            document["without_prefix"] = figure_document(without)
        documents.append(document)
    return documents


def _broadcasting(analysis: Analysis) -> Document | None:
    if analysis.counterpart is None:
        return None
    options = analysis.spec.backbone.options
    stages = {layer.stage: layer.sizes for layer in analysis.layers}.values()
    trained = analysis.trained_change
    layers = []
    for layer in _with_attention(analysis):
        document = _layer(layer)
        document |= figure_document(analysis.broadcasting_change[layer.position])
        if trained is not None:
            document["trained_change"] = trained[layer.position]
        layers.append(document)
    return {
        "placement": str(analysis.spec.placement),
        "counterpart": str(analysis.counterpart),
        "layers": layers,
        "map_entropy": [
            None
            if options.broadcasting_form != "plain" or stage.num_tokens == 1
            else broadcasting_entropy(
                stage.num_tokens,
                0 if options.class_token_in_mean else stage.num_prefix_tokens,
            )
            for stage in stages
        ],
    }


def _similarity(analysis: Analysis) -> Document:
    pairs = list(comparable_pairs(analysis.layers))
    return {
        "groups": [
            {
                "layers": [layer.label for layer in group],
                **{
                    measure: matrices(analysis.figures, measure, group)
                    for measure in ("cosine", "correlation")
                },
            }
            for group in groups_of(pairs)
        ],
        "consecutive": [
            {
                "layers": [one.label, other.label],
                **{
                    measure: figure_document(
                        analysis.figures[measure, one.position, other.position]
                    )
                    for measure in ("cosine", "correlation")
                },
            }
            for one, other in consecutive_pairs(analysis.layers)
        ],
    }


def groups_of(pairs: Iterable[tuple[Layer, Layer]]) -> list[list[Layer]]:
    """Group the layers of pairs, so that all layers of a group are comparable."""
    groups: dict[tuple[int, int], dict[int, Layer]] = {}
    for pair in pairs:
        for layer in pair:
            groups.setdefault((layer.stage, layer.frame), {})[layer.position] = layer
    return [list(group.values()) for group in groups.values()]


def matrices(figures: Mapping[Name, Figure], measure: str, group: Sequence[Layer]) -> Document:
    """A measure of pairs as symmetric matrices: the network's, and the controls' mean and SD.

    The diagonal is 1, for the controls too; undefined entries are None.
    """

    def entry(one: Layer, other: Layer) -> Figure:
        if one.position == other.position:
            return Figure(1.0, 0, 1.0, 0.0)
        first, second = sorted((one.position, other.position))
        return figures[measure, first, second]

    rows = [[entry(one, other) for other in group] for one in group]
    return {
        "value": [[figure.value for figure in row] for row in rows],
        "control_mean": [[figure.control_mean for figure in row] for row in rows],
        "control_sd": [[figure.control_sd for figure in row] for row in rows],
    }


def _diagonality(analysis: Analysis) -> list[Document]:
    documents = []
    for layer in analysis.layers:
        if not layer.has_scores:
            continue
        figure = analysis.figures.get(("diagonality", layer.position))
        sizes = layer.sizes.attention
        documents.append(
            _layer(layer)
            | {
                "figure": None if figure is None else figure_document(figure),
                "refused": None
                if figure is not None
                else f"{sizes.num_queries} queries and {sizes.num_keys} keys: no diagonal",
            }
        )
    return documents


def _gates(analysis: Analysis) -> Document | None:
    pairs = list(gate_pairs(analysis.layers))
    if not pairs:
        return None
    unshared = analysis.unshared_gates

    def figures(*name: str | int) -> Document | None:
        if name not in analysis.figures:
            return None
        document = figure_document(analysis.figures[name])
        if unshared is not None and name in unshared:
            control = unshared[name]
            document["unshared_control_mean"] = control.control_mean
            document["unshared_control_sd"] = control.control_sd
        return document

    documents = []
    for one, other in pairs:
        documents.append(
            {
                "layers": [one.label, other.label],
                "shared_unit": share_unit(one, other),
                **(figures("gates", one.position, other.position) or {}),
                "pooled": figures("gates pooled", one.position, other.position),
            }
        )
    return {
        "mean": figures("gates mean"),
        "shared": figures("gates mean", "of shared"),
        "independent": figures("gates mean", "of independent"),
        "pooled": figures("gates pooled mean"),
        "stages": [
            {
                "stage": stage + 1,
                "figure": figures("gates mean", "of stage", stage),
                "pooled": figures("gates pooled mean", "of stage", stage),
            }
            for stage in sorted({one.stage for one, _ in pairs})
        ],
        "pairs": documents,
    }
