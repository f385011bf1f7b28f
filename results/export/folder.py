"""Export one placement as config.yaml, model.safetensors, a model card and optionally ONNX.

The folder rebuilds exactly the network that was measured, which `sharedattn.results.export.verify`
checks. It is written atomically, beside its place. Reading one executes nothing from it: YAML by
`safe_load`, weights by safetensors, and every file by a fixed name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sharedattn.backbones import build, resolve
from sharedattn.costs.model import CONVENTION, CostModel
from sharedattn.data.folders.class_names import wordnet_names
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.registry import plugins_of, registry
from sharedattn.networks.network import Network
from sharedattn.objectives import OBJECTIVES, cost_objectives
from sharedattn.placement import NetworkSpec
from sharedattn.results.artifacts.folders import check_replaceable, folder_in_place_of, write_text
from sharedattn.results.artifacts.weights import read_weights, write_weights
from sharedattn.results.export.diffusers import write_diffusers
from sharedattn.results.export.drawing import drawing_key, placement_drawing
from sharedattn.results.export.onnx import check_extra, onnx_metadata, write_onnx
from sharedattn.results.records import (
    Document,
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    LatencyRecord,
    Origin,
    Start,
)
from sharedattn.tasks import DENOISE, NETWORKS, head_kind
from sharedattn.units import format_fraction, format_quantity
from sharedattn.weights.pretrained import CONFIG_NAME, WEIGHTS_NAME
from sharedattn.yaml_text import read_yaml, write_yaml

CONFIG_FORMAT = 1
CARD_NAME = "README.md"
ONNX_NAME = "model.onnx"
NUM_CLASSES_SHOWN = 8  # names on a card; config.yaml lists all

_CONFIG_TYPES = {"params": int, "macs": int, "recipe": dict, "data": dict}
_EVALUATION_TYPES = {
    "split": str,
    "num_images": int,
    "seed": int,
    "device": str,
    "threads": int,
    "versions": dict,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """The content of an exported network's config.yaml.

    Attributes:
        spec: the network.
        params: number of parameters, by the closed form.
        macs: multiply-accumulates per image, by the closed form.
        recipe: the training recipe's document.
        data: the data's document.
        evaluation: the exported run; `weights_sha256` is that of the exported file.
        test_top1: accuracy on the test split, which no choice depended on, measured once for this
            export; or None if the data has no test split.
        num_test_images: images in that split.
        top1_by_seed: accuracy of every seed of this placement, including this run's.
        study: name of its study, or None if it was trained alone.
        trial: number of the search trial, or None if it was trained alone.
        starts_from: sha256 of the weights that the training started from, or None for a training
            from scratch.
        origin: what those weights are, or None if they are a supernet's.
        latency: latency on the study's device, or None if it was not measured.
        start: the trained model that its search started from, or None without one.
        baselines: networks made by hand beside its search's front, as `baseline_document` has
            them.
    """

    spec: NetworkSpec
    params: int
    macs: int
    recipe: Document
    data: Document
    evaluation: EvaluationRecord
    test_top1: float | None
    num_test_images: int
    top1_by_seed: Mapping[int, float] = field(default_factory=dict)
    study: str | None = None
    trial: int | None = None
    starts_from: str | None = None
    origin: Origin | None = None
    latency: LatencyRecord | None = None
    start: Start | None = None
    baselines: Sequence[Document] = ()

    @property
    def quality(self) -> str:
        """Name of what was measured, such as top1."""
        return head_kind(self.spec.backbone.head).quality

    def to_json(self) -> Document:
        """The document of config.yaml."""
        evaluation, quality = self.evaluation, self.quality
        layers = self.spec.placement.layers
        plugins = {
            part: {"name": plugin.name, "version": plugin.version}
            for part, plugin in plugins_of(
                (layer.kind for layer in layers),
                (layer.gate.gate for layer in layers if layer.gate is not None),
            ).items()
        }
        return {
            "format": CONFIG_FORMAT,
            "network": str(self.spec),
            "spec": self.spec.to_json(),
            "params": self.params,
            "macs": self.macs,
            "convention": CONVENTION,
            "recipe": self.recipe,
            "data": self.data,
            "evaluation": {
                "split": evaluation.split,
                quality: evaluation.top1,
                "loss": evaluation.loss,
                "num_images": evaluation.num_images,
                "seed": evaluation.identity.seed,
                "fidelity": evaluation.identity.fidelity.to_json(),
                "recipe_key": evaluation.identity.recipe_key,
                "data_fingerprint": evaluation.identity.data_fingerprint,
                "device": evaluation.device,
                "threads": evaluation.threads,
                "wall_time_s": evaluation.wall_time_s,
                "versions": dict(evaluation.versions),
            },
            "test": (
                None
                if self.test_top1 is None
                else {quality: self.test_top1, "num_images": self.num_test_images}
            ),
            "weights_sha256": evaluation.weights_sha256,
            f"{quality}_by_seed": dict(self.top1_by_seed),
            "study": self.study,
            "trial": self.trial,
            **({} if self.starts_from is None else {"starts_from": self.starts_from}),
            **({} if self.origin is None else {"origin": self.origin.to_json()}),
            "latency": None if self.latency is None else self.latency.to_json(),
            # Only if there are any, so that other exports keep their format.
            **({} if self.start is None else {"start": self.start.to_json()}),
            **({"baselines": list(self.baselines)} if self.baselines else {}),
            **({"plugins": plugins} if plugins else {}),
        }

    @classmethod
    def from_json(cls, document: Any) -> ExportRecord:
        """Invert `to_json`.

        Raises:
            InputError: another format, missing fields, a text that differs from the spec's, or a
                kind or gate of a plug-in that is not installed.
        """
        if not isinstance(document, dict) or document.get("format") != CONFIG_FORMAT:
            raise InputError(
                f"this config has format "
                f"{document.get('format') if isinstance(document, dict) else document!r}, but "
                f"this version reads {CONFIG_FORMAT}"
            )
        try:
            _check_plugins(document)
            spec = NetworkSpec.from_json(document["spec"])
            if document["network"] != str(spec):
                raise InputError(
                    f"`network` is {document['network']!r}, but `spec` means {str(spec)!r}; both "
                    f"describe the same network, so edit neither alone"
                )
            _check_types(document, _CONFIG_TYPES)
            quality = head_kind(spec.backbone.head).quality
            _check_types(document, {f"{quality}_by_seed": dict})
            test = document["test"]
            if test is not None:
                _check_types(document, {"test": dict})
                _check_types(test, {quality: float, "num_images": int})
            return cls(
                spec=spec,
                params=document["params"],
                macs=document["macs"],
                recipe=document["recipe"],
                data=document["data"],
                evaluation=_evaluation(document, spec),
                test_top1=None if test is None else test[quality],
                num_test_images=0 if test is None else test["num_images"],
                top1_by_seed=document[f"{quality}_by_seed"],
                study=document["study"],
                trial=document["trial"],
                starts_from=document.get("starts_from"),
                origin=Origin.from_json(document["origin"]) if "origin" in document else None,
                # Exports from before latencies were measured lack this field.
                latency=(
                    None
                    if document.get("latency") is None
                    else LatencyRecord.from_json(document["latency"])
                ),
                start=None if "start" not in document else Start.from_json(document["start"]),
                baselines=document.get("baselines", ()),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this config lacks a field, or has one of another type or range: "
                f"{type(error).__name__}: {error}"
            ) from error


def check_target(folder: Path, *, onnx: bool = False) -> None:
    """Check that an export can be written, before any work and without leaving anything.

    Args:
        folder: the folder to export to.
        onnx: whether the export includes model.onnx.

    Raises:
        InputError: the folder holds something else or cannot be written, its parent cannot be
            created, or the extra `onnx` is missing.
    """
    check_replaceable(folder, "an export", _is_export)
    if onnx:
        check_extra()


def export(
    folder: Path,
    record: ExportRecord,
    state_dict: Mapping[str, torch.Tensor],
    *,
    onnx: bool = False,
) -> None:
    """Write an exported network, replacing an older export.

    Args:
        folder: the folder; its parent is created.
        record: the network's record; the sha256 of its weights is taken from the written file.
        state_dict: the weights of the stand-alone network.
        onnx: whether to also write model.onnx, which needs the extra `onnx`.

    Raises:
        InputError: the weights do not fit the spec, the folder holds something else or cannot be
            written, or the extra is missing. An existing folder stays as it was.
    """
    check_target(folder, onnx=onnx)
    # ONNX has no fused kernel, and torch cannot rewrite one with window masks.
    network = rebuild(record.spec, state_dict, fused=not onnx)
    with folder_in_place_of(folder) as made:
        sha256 = write_weights(made / WEIGHTS_NAME, state_dict)
        document = record.to_json() | {"weights_sha256": sha256}
        write_text(made / CONFIG_NAME, write_yaml(document))
        diffusers = write_diffusers(made, network)
        write_text(made / CARD_NAME, model_card(record, onnx=onnx, diffusers=diffusers))
        if onnx:
            metadata = onnx_metadata(
                network=str(record.spec),
                image_size=record.evaluation.identity.fidelity.image_size,
                in_chans=record.spec.backbone.in_chans,
                pixels=recorded_pixels(record.data),
                class_names=recorded_classes(record.data),
                quality=record.quality,
                value=record.evaluation.top1,
                test_value=record.test_top1,
            )
            write_onnx(made / ONNX_NAME, network, metadata)


def read_export(folder: Path) -> ExportRecord:
    """Read an exported folder, or its config.yaml alone.

    Args:
        folder: the folder, or the file.

    Raises:
        InputError: no such file, not YAML, or not a config of a known format.
    """
    # `Path.is_dir` raises on a path that is too long.
    path = folder / CONFIG_NAME if os.path.isdir(folder) else folder
    try:
        document = read_yaml(path.read_text(encoding="utf-8"), {}, number_keys=True)
    except OSError as error:
        raise InputError(
            f"there is no {CONFIG_NAME} to read at {path}: {error.strerror}"
        ) from error
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML of plain values: {error}") from error
    return ExportRecord.from_json(document)


def load_network(folder: str | Path) -> Network:
    """Load the exported network with its weights, in eval mode on the CPU.

    Args:
        folder: an exported folder.

    Raises:
        InputError: the config cannot be read, or the weights are not the recorded ones.
    """
    record = read_export(Path(folder))
    return rebuild(record.spec, exported_weights(Path(folder), record))


def exported_weights(folder: Path, record: ExportRecord) -> dict[str, torch.Tensor]:
    """Load the weights of an exported folder, checked against its config.

    Raises:
        InputError: they are absent, or not the recorded ones.
    """
    return read_weights(folder / WEIGHTS_NAME, record.evaluation.weights_sha256 or "")


def recorded_pixels(data: Document) -> Document | None:
    """The preprocessing of an export's images: fields of `sharedattn.data.Pixels`, and the size.

    Args:
        data: the data's document, of an export of any version.

    Returns:
        `image_size`, `in_chans`, `mean`, `std`, `interpolation`, `crop_pct` and `crop_mode`, or
        None if the data has no image files.
    """
    pixels = data.get("pixels")
    if pixels is None:
        # Exports from before pixels were recorded have them in the data's identity, with the only
        # crop mode of that time. That of digit pairs is a text.
        pixels = data.get("identity", {}).get("transform")
    return {"crop_mode": "center", **pixels} if isinstance(pixels, Mapping) else None


def recorded_classes(data: Document) -> list[str] | None:
    """The names of an export's classes, by number, or None if none are recorded.

    Folders named by WordNet numbers, such as ImageNet's, get WordNet's names.
    """
    classes = data.get("classes")
    if classes is None:
        return None
    names = [str(name) for name in classes]
    return list(wordnet_names(names) or names)


def _other_costs(record: ExportRecord) -> list[tuple[str, float, str]]:
    """Label, value and formatted value of the closed-form costs other than MACs and params."""
    costs = CostModel(record.spec.backbone, recorded=True)
    return [
        (cost.label, value, cost.unit.format(value))
        for cost in cost_objectives()
        if cost.value_of is not None and not cost.adds_up
        for value in (cost.value_of(costs, record.spec.placement),)
    ]


def model_card(record: ExportRecord, *, onnx: bool = False, diffusers: str | None = None) -> str:
    """The model card: description, figures, loading and retraining, in Markdown.

    Args:
        record: the network's record.
        onnx: whether the folder has a model.onnx.
        diffusers: result of `write_diffusers`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    task = head_kind(record.spec.backbone.head).task
    accuracies = list(record.top1_by_seed.values())
    count, mean = len(accuracies), sum(accuracies) / max(len(accuracies), 1)
    squares = sum((top1 - mean) ** 2 for top1 in accuracies)
    error = (squares / (count - 1) / count) ** 0.5 if count > 1 else None
    return environment.get_template("card.md.j2").render(
        record=record,
        evaluation=record.evaluation,
        fidelity=record.evaluation.identity.fidelity,
        image_size=ImageSize.of(record.evaluation.identity.fidelity.image_size),
        drawing=placement_drawing(record.spec),
        drawing_key=drawing_key(record.spec),
        params=format_quantity(record.params),
        macs=format_quantity(record.macs),
        other_costs=_other_costs(record),
        num_seeds=count,
        mean=format_fraction(mean, error),
        convention=CONVENTION,
        pixels=recorded_pixels(record.data),
        class_names=recorded_classes(record.data),
        num_classes_shown=NUM_CLASSES_SHOWN,
        onnx_name=ONNX_NAME,
        has_onnx=onnx,
        diffusers=diffusers,
        quality=OBJECTIVES[record.quality].label,
        quality_name=record.quality,
        what=NETWORKS[task],
        takes_timesteps=task == DENOISE,
    )


def _evaluation(document: Document, spec: NetworkSpec) -> EvaluationRecord:
    """The evaluation that a config describes."""
    measured = document["evaluation"]
    _check_types(measured, _EVALUATION_TYPES)
    return EvaluationRecord(
        identity=EvaluationIdentity(
            spec_key=spec.key,
            recipe_key=measured["recipe_key"],
            data_fingerprint=measured["data_fingerprint"],
            fidelity=Fidelity.from_json(measured["fidelity"]),
            seed=measured["seed"],
        ),
        split=measured["split"],
        top1=measured[head_kind(spec.backbone.head).quality],
        loss=measured["loss"],
        num_images=measured["num_images"],
        wall_time_s=measured["wall_time_s"],
        device=measured["device"],
        threads=measured["threads"],
        versions=measured["versions"],
        weights_sha256=document["weights_sha256"],
    )


def _check_plugins(document: Document) -> None:
    """Check that the plug-ins of the network's kinds and gates are installed."""
    if "plugins" not in document:
        return
    _check_types(document, {"plugins": dict})
    known = registry()
    for part, plugin in document["plugins"].items():
        what, name = part.split(" ")
        _check_types(plugin, {"name": str, "version": str})
        here = known.plugins.get(part)
        is_known = name in (known.branches if what == "branch" else known.gates)
        if not is_known or (here is not None and here.name != plugin["name"]):
            layer = f"of kind {name}" if what == "branch" else f"with the gate {name}"
            raise InputError(
                f"this network has a layer {layer} from the plug-in {plugin['name']} "
                f"{plugin['version']}, which is not installed; pip install {plugin['name']}"
            )


def _check_types(document: Document, types: Mapping[str, type]) -> None:
    for name, kind in types.items():
        if type(document[name]) is not kind:
            raise TypeError(f"{name} is {document[name]!r} and no {kind.__name__}")


def rebuild(
    spec: NetworkSpec, state_dict: Mapping[str, torch.Tensor], *, fused: bool = True
) -> Network:
    """Build the network of a spec with these weights, in eval mode on the CPU.

    Args:
        spec: the network.
        state_dict: its weights.
        fused: whether attention uses the fused kernel.

    Raises:
        InputError: the spec cannot be built, or the weights do not fit it.
    """
    network = build(resolve(spec, recorded=True), fused=fused)
    for name, weight in network.state_dict().items():
        if name in state_dict and state_dict[name].shape != weight.shape:
            raise InputError(
                f"the weights do not fit {spec}: {name} has shape "
                f"{tuple(state_dict[name].shape)} but the network needs {tuple(weight.shape)}; "
                f"weights of another image size are resampled by "
                f"sharedattn.weights.interpolate.at_image_size"
            )
    try:
        network.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        why = " ".join(str(error).split())  # torch lists keys over several lines
        raise InputError(f"the weights do not fit {spec}: {why}") from error
    return network.eval()


def _is_export(folder: Path) -> bool:
    try:
        read_export(folder)
    except InputError:
        return False
    return True
