"""Start from a trained model: check its weights and load them into a network.

The weights are those of the published backbone, which is the all-vanilla placement of every
network over it: a plain state dict of timm's model, timm's own pretrained weights, or a folder
exported by this package. Other parts of the network keep their initialisation: maps of less
attention start as the identity, and DIA units with `dia_start=one` as a gate of 1;
`sharedattn.weights.branch_fit` fits the memories of external attention.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sharedattn.backbones import (
    build,
    build_network,
    canonical,
    describe,
    families,
    timm_num_classes,
    timm_weights,
)
from sharedattn.data import DataSource
from sharedattn.errors import InputError
from sharedattn.hashing import canonical_json
from sharedattn.networks.network import Network
from sharedattn.placement import (
    ANCHOR_SCALE,
    BackboneSpec,
    Envelope,
    MechanismOptions,
    NetworkSpec,
)
from sharedattn.tasks import CLASSIFY, head_kind, own_head
from sharedattn.weights.extract import own_weight
from sharedattn.weights.files import NUM_NAMED, read_state_dict
from sharedattn.weights.head_fit import NewHead, fitted_head
from sharedattn.weights.interpolate import at_image_size
from sharedattn.weights.published import (
    Shapes,
    head_name,
    of_pyramid_head,
    published,
    shapes_of,
    state_shapes,
    without_pyramid_head,
)
from sharedattn.yaml_text import read_yaml

TIMM = "timm"
"""The source that stands for timm's pretrained weights."""

CONFIG_NAME = "config.yaml"
"""The file of an exported folder that describes the network."""

WEIGHTS_NAME = "model.safetensors"
"""The file of an exported folder with the weights."""

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")


def load_pretrained(source: str | Path, backbone: BackboneSpec) -> dict[str, Tensor]:
    """Load the weights of a trained model, in the names and shapes of a backbone.

    Args:
        source: `timm`, for timm's pretrained weights; a safetensors or torch file with the state
            dict of timm's model, also below a key and with the prefixes of wrapped models
            (`sharedattn.weights.files`); or the folder of an exported all-vanilla network.
            Nothing in a file is executed.
        backbone: the backbone; its mechanism options do not matter.

    Returns:
        Tensors by name, on the CPU: the state dict of the backbone's all-vanilla network. Position
        parameters for another image size are resampled.

    Raises:
        InputError: the source does not exist or cannot be read, or its weights are of another
            family or shape, not finite, or for another number of classes. The message names the
            first tensors that differ.
    """
    path = Path(source)
    describe(backbone)
    if str(source) == TIMM:
        state = timm_weights(backbone)
    elif os.path.isdir(path):  # `Path.is_dir` raises on a text too long for a name
        return _of_export(path, backbone)[0]
    else:
        state = _of_file(path, shapes_of(backbone))
        _check_grid(state_shapes(state), backbone, str(source))
    fitted = _fitted(state, backbone, str(source))
    check_finite(fitted, str(source))
    return fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The weights of a trained model, under its own head.

    Attributes:
        backbone: the backbone, with as many classes as the weights' head.
        num_classes: classes of the weights' head, or 0 if they have none or do not say; of a
            classifier, the state dict then has a head of zeros for the classes asked for.
        state: tensors by name, as of `load_pretrained`.
        has_head: whether a detector's or segmenter's own head is among them; else they are those
            of its backbone alone. Always true of a classifier.
    """

    backbone: BackboneSpec
    num_classes: int
    state: dict[str, Tensor]
    has_head: bool = True


def load_trained(source: str | Path, backbone: BackboneSpec) -> TrainedModel:
    """Load the weights of a trained model, whatever classes its head has.

    Args:
        source: as of `load_pretrained`.
        backbone: the backbone; its number of classes matters only where a classifier's head is no
            linear map. If it is a detector or segmenter, the weights may be of a classifier, or
            of any other head, on the same backbone.

    Raises:
        InputError: as in `load_pretrained`, except that the number of classes may differ.
    """
    if backbone.head != own_head(backbone.name):
        return _load_under_pyramid_head(source, backbone)
    head = head_name(backbone)
    if head is None:
        state = load_pretrained(source, backbone)
        return TrainedModel(backbone=backbone, num_classes=backbone.num_classes, state=state)
    path, name = Path(source), str(source)
    if name != TIMM and os.path.isdir(path):
        state, own = _of_export(path, backbone, any_classes=True)
        return TrainedModel(backbone=own, num_classes=own.num_classes, state=state)
    wanted = shapes_of(backbone)
    if name == TIMM:
        num_classes = timm_num_classes(backbone)
        own = replace(backbone, num_classes=num_classes or backbone.num_classes)
        state = timm_weights(own, with_head=num_classes > 0)
    else:
        state = _of_file(path, wanted)
        num_classes = next(iter(state_shapes(state).get(f"{head}.bias", ())), 0)
        own = replace(backbone, num_classes=num_classes or backbone.num_classes)
        _check_grid(state_shapes(state), own, name)
    of_head = [f"{head}.{leaf}" for leaf in ("weight", "bias")]
    if not num_classes and not any(part in state for part in of_head):
        state |= {part: torch.zeros(wanted[part]) for part in of_head}
    fitted = _fitted(state, own, name)
    check_finite(fitted, name)
    return TrainedModel(backbone=own, num_classes=num_classes, state=fitted)


def _load_under_pyramid_head(source: str | Path, backbone: BackboneSpec) -> TrainedModel:
    """Load the weights that a detector or segmenter starts from; arguments as `load_trained`."""
    path, name = Path(source), str(source)
    classifier = replace(
        backbone,
        head=CLASSIFY,
        num_classes=head_kind(own_head(backbone.name)).num_classes,
        anchor_scale=ANCHOR_SCALE,
    )
    if name != TIMM and os.path.isdir(path):
        exported = _read_config(path)[0].backbone
        if exported.head != classifier.head:
            own = replace(
                backbone,
                head=exported.head,
                num_classes=exported.num_classes,
                anchor_scale=exported.anchor_scale,
            )
            state = _of_export(path, own)[0]
            return _for_pyramid_head(state, own.num_classes, backbone, has_head=own == backbone)
    elif name != TIMM:
        state = _of_file(path, shapes_of(backbone))
        of_head = state_shapes(of_pyramid_head(state))
        if of_head:
            own_head_shapes = of_pyramid_head(shapes_of(backbone))
            has_head = of_head == own_head_shapes
            if not has_head:
                # Zeros in its place, so that the rest is checked and resampled like any network.
                zeros = {part: torch.zeros(shape) for part, shape in own_head_shapes.items()}
                state = without_pyramid_head(state) | zeros
            fitted = _fitted(state, backbone, name)
            check_finite(fitted, name)
            num_classes = backbone.num_classes if has_head else 0
            return _for_pyramid_head(fitted, num_classes, backbone, has_head=has_head)
    model = load_trained(source, classifier)
    return _for_pyramid_head(model.state, model.num_classes, backbone, has_head=False)


def _for_pyramid_head(
    state: dict[str, Tensor], num_classes: int, backbone: BackboneSpec, *, has_head: bool
) -> TrainedModel:
    """The trained model of a detector or segmenter, with no more of a state dict than it uses."""
    if not has_head:
        state = {name: state[name] for name in without_pyramid_head(shapes_of(backbone))}
    return TrainedModel(backbone=backbone, num_classes=num_classes, state=state, has_head=has_head)


def with_new_head(
    model: TrainedModel, data: DataSource, *, seed: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The state dict of a trained model, with a head that is fitted to the classes of data.

    Args:
        model: the trained model.
        data: as of `sharedattn.weights.head_fit.fitted_head`, as are the others.
        seed: seed of the choice of images.
        device: device that computes the features.

    Raises:
        InputError: the model's head is no linear map.
        FloatingPointError: its features are not finite.
    """
    head = head_name(model.backbone)
    if head is None:
        raise InputError(
            f"the head of {model.backbone.name} is no linear map with a bias, so none of other "
            f"classes can be fitted; train the model on your classes first"
        )
    with torch.random.fork_rng(devices=[]):
        network = build(published(model.backbone))
    network.load_state_dict(model.state)
    weight, bias = fitted_head(network.to(device), head, data, seed=seed, device=device)
    return {**model.state, f"{head}.weight": weight, f"{head}.bias": bias}


def weights_digest(state: Mapping[str, Tensor], head: NewHead | None = None) -> str:
    """sha256 over names, types, shapes and contents of weights, in hexadecimal.

    Args:
        state: tensors by name.
        head: the new head that takes the place of theirs, or None if theirs is kept.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    if head is not None:
        digest.update(canonical_json(head.to_json()).encode())
    return digest.hexdigest()


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Check that all weights are finite.

    Args:
        state: tensors by name.
        source: name of the weights in the message.

    Raises:
        InputError: NaN or infinity among them; the message names the first tensors.
    """
    broken = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise InputError(
            f"the weights of {source} have numbers that are not finite (NaN or infinity) in "
            f"{_listed('', broken).strip()}; take weights from before the training diverged"
        )


def start_from(network: Network, state: Mapping[str, Tensor]) -> None:
    """Load a trained model's weights into a network, in place.

    Args:
        network: any network over the model's backbone. Its all-vanilla placement at full depth
            then gives the model's logits; parts that the model lacks keep their values.
        state: result of `load_pretrained`, or a `TrainedModel`'s, where a detector's or
            segmenter's head may be absent; copied to the network's device and dtype.

    Raises:
        InputError: the weights are not those of the network's backbone.
    """
    wanted = shapes_of(network.backbone)
    if not of_pyramid_head(state):
        wanted = without_pyramid_head(wanted)
    _check_fit(state_shapes(state), wanted, network.backbone, "the state dict")
    own = network.state_dict()
    for name, weight in own.items():
        of_model = own_weight(state, name, weight.shape)
        if of_model is not None:
            own[name] = of_model
    network.load_state_dict(own)


def pretrained_network(
    backbone: BackboneSpec,
    envelope: Envelope,
    source: str | Path,
    *,
    fused: bool = True,
    drop_path_rate: float = 0.0,
) -> Network:
    """Build a network that starts from a trained model.

    Args:
        backbone: the backbone, with the options of its mechanisms.
        envelope: as of `build_network`, as are `fused` and `drop_path_rate`.
        source: as of `load_pretrained`.
        fused: whether attention uses the fused kernel.
        drop_path_rate: stochastic depth of the backbone's last block.

    Returns:
        The network, in training mode.

    Raises:
        InputError: as in `build_network` and `load_pretrained`.
    """
    state = load_pretrained(source, backbone)
    network = build_network(backbone, envelope, fused=fused, drop_path_rate=drop_path_rate)
    start_from(network, state)
    return network


def _of_file(path: Path, wanted: Shapes) -> dict[str, Tensor]:
    """Read the state dict in a file, under the wanted names if it has them.

    Raises:
        InputError: no such file, or as in `sharedattn.weights.files.read_state_dict`.
    """
    if not os.path.isfile(path):
        raise InputError(
            f"the weights to start from are a file, an exported folder or {TIMM!r}, but there is "
            f"no {str(path)!r}"
        )
    return read_state_dict(path, wanted)


def _of_export(
    folder: Path, backbone: BackboneSpec, *, any_classes: bool = False
) -> tuple[dict[str, Tensor], BackboneSpec]:
    """Read the weights of an exported all-vanilla network of a backbone.

    Returns:
        The state dict, and the backbone with the export's classes if `any_classes` allows others.

    Raises:
        InputError: not an export, of another network, or weights other than the recorded ones.
    """
    spec, recorded = _read_config(folder)
    sha256 = _sha256_of(folder / WEIGHTS_NAME)
    if sha256 != recorded:
        raise InputError(
            f"the file {folder / WEIGHTS_NAME} was changed: its sha256 is {sha256}, but "
            f"{CONFIG_NAME} says {recorded}; export the network again"
        )
    vanilla = published(spec.backbone).placement
    if spec.placement != vanilla:
        raise InputError(
            f"the export {folder} is the network {str(spec.placement)!r}, but a training starts "
            f"from the all-vanilla network {str(vanilla)!r}; name an export of that"
        )
    if any_classes:
        backbone = replace(backbone, num_classes=spec.backbone.num_classes)
    stored, wanted = (
        canonical(replace(b, image_size=None, options=MechanismOptions()))
        for b in (spec.backbone, backbone)
    )
    if stored != wanted:
        raise InputError(
            f"the export {folder} has the backbone {stored}, but the network has {wanted}; name "
            f"an export of that backbone"
        )
    shapes = shapes_of(spec.backbone)
    state = _of_file(folder / WEIGHTS_NAME, shapes)
    check_finite(state, str(folder))
    _check_fit(state_shapes(state), shapes, spec.backbone, str(folder))
    return _resampled(state, spec.backbone, backbone), backbone


def _read_config(folder: Path) -> tuple[NetworkSpec, str]:
    """The network of an export, and the recorded sha256 of its weights.

    Raises:
        InputError: not an export.
    """
    try:
        text = (folder / CONFIG_NAME).read_text(encoding="utf-8")
        document = read_yaml(text, {}, number_keys=True)
        if not (folder / WEIGHTS_NAME).is_file():
            raise FileNotFoundError(f"there is no {WEIGHTS_NAME}")
        return NetworkSpec.from_json(document["spec"]), document["weights_sha256"]
    except InputError:
        raise
    except (OSError, UnicodeDecodeError, KeyError, TypeError) as error:
        files = [path for path in sorted(folder.glob("*")) if path.suffix in _SUFFIXES]
        if not (folder / CONFIG_NAME).exists() and files:
            raise InputError(
                f"the folder {folder} is no export: it has no {CONFIG_NAME}; name the file of "
                f"weights itself, such as {files[0]}"
            ) from error
        raise InputError(
            f"the folder {folder} cannot be read as an export ({type(error).__name__}: {error}); "
            f"name one with {CONFIG_NAME} and {WEIGHTS_NAME}"
        ) from error


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fitted(state: Mapping[str, Tensor], backbone: BackboneSpec, source: str) -> dict[str, Tensor]:
    """Convert a state dict to a backbone's shapes, from whatever image size it has.

    Raises:
        InputError: as in `load_pretrained`.
    """
    found, wanted = state_shapes(state), shapes_of(backbone)
    stored = backbone
    if found.keys() == wanted.keys() and found != wanted:
        stored = _at_size_of(found, wanted, backbone) or backbone
        if stored == backbone:
            _check_classes(found, wanted, backbone, source)
    _check_fit(found, shapes_of(stored), backbone, source)
    return _resampled(state, stored, backbone)


def _resampled(
    state: Mapping[str, Tensor], stored: BackboneSpec, backbone: BackboneSpec
) -> dict[str, Tensor]:
    """A backbone's state dict from its state dict at another image size, or at the same."""
    size = describe(backbone).image_size
    if describe(stored, recorded=True).image_size == size:
        return dict(state)
    network = build(published(stored))
    network.load_state_dict(state)
    return at_image_size(network, size).state_dict()


def _at_size_of(found: Shapes, wanted: Shapes, backbone: BackboneSpec) -> BackboneSpec | None:
    """The backbone at the image size of the given shapes, or None if they match no other size.

    The number of positions in a position parameter, (1, N, D), grows with the image's area. The
    given weights are taken to be of square images.
    """
    shape = describe(backbone)
    num_pixels = shape.image_size.num_pixels
    prefixes = {0, *(stage.num_prefix_tokens for stage in shape.stages)}
    sizes = {
        round((num_pixels * (found[name][1] - prefix) / (own[1] - prefix)) ** 0.5)
        for name, own in wanted.items()
        if len(own) == len(found[name]) == 3 and own != found[name]
        for prefix in prefixes
        if found[name][1] > prefix < own[1]
    }
    for size in sorted(sizes):
        try:
            if shapes_of(replace(backbone, image_size=size)) == found:
                return replace(backbone, image_size=size)
        except InputError:
            continue
    return None


def _check_grid(found: Shapes, backbone: BackboneSpec, source: str) -> None:
    """Check that positions are of one grid only: 4 x 16 of them may be 8 x 8.

    Raises:
        InputError: weights fit a backbone for images that are not square, and the same for square
            ones, whose positions lie elsewhere.
    """
    own, wanted = describe(backbone), shapes_of(backbone)
    side = round(own.image_size.num_pixels**0.5)
    # Weights without a head are of either size too.
    if any(found.get(name, shape) != shape for name, shape in wanted.items()):
        return
    if own.image_size.height == own.image_size.width:
        return
    square, larger = (replace(backbone, image_size=size) for size in (side, 2 * side))
    try:
        of_square = describe(square, recorded=True)
        # Weights without positions fit every size.
        is_either = shapes_of(square) == wanted != shapes_of(larger)
    except InputError:
        return
    if is_either and of_square.stages != own.stages:
        raise InputError(
            f"{source} has as many positions as images of {side} x {side} pixels have patches, "
            f"and as images of {own.image_size.spaced}, and does not say which it is of; name an "
            f"export, which does, or a network for {side} x {side}"
        )


def _check_classes(found: Shapes, wanted: Shapes, backbone: BackboneSpec, source: str) -> None:
    """Refuse weights that fit except for the number of classes.

    Raises:
        InputError: the head has another number of classes.
    """
    for name, own in wanted.items():
        if own == found[name] or not found[name] or own[:1] != (backbone.num_classes,):
            continue
        num_classes = found[name][0]
        if num_classes and shapes_of(replace(backbone, num_classes=num_classes)) == found:
            raise InputError(
                f"the head of {source} has {num_classes} classes, but the network has "
                f"{backbone.num_classes}; train the model on your classes first, or "
                f"use the data it was trained on"
            )


def _check_fit(found: Shapes, wanted: Shapes, backbone: BackboneSpec, source: str) -> None:
    """Check that weights are those of a backbone.

    Raises:
        InputError: tensors are missing, unexpected or of other shapes; the message names the
            first.
    """
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    if missing or unexpected:
        common = len(wanted) - len(missing)
        family = _other_family_of(found, wanted)
        if family is not None:
            hint = f"it is a model of another family, {family}; name a backbone of that"
        elif common >= len(missing):
            hint = "it is a model of another depth, or with other parts"
        else:
            hint = "its names are of no family that is known here; save it under timm's names"
        raise InputError(
            f"{source} has {common} of the {len(wanted)} tensors of {backbone}"
            f"{_listed(', missing', missing)}{_listed(', unexpected', unexpected)}; {hint}"
        )
    differing = [name for name in wanted if found[name] != wanted[name]]
    if differing:
        first = "; ".join(
            f"{name} is {found[name]} there and {wanted[name]} in the network"
            for name in differing[:NUM_NAMED]
        )
        raise InputError(
            f"{source} does not have the shapes of {backbone}: {first}"
            f" ({len(differing)} tensors differ); name the backbone that the weights are of"
        )


def _other_family_of(found: Shapes, wanted: Shapes) -> str | None:
    """The family that matches most of the names, or None if no other matches more than wanted."""
    names, own = {_unnumbered(name) for name in found}, {_unnumbered(name) for name in wanted}
    if names <= own:
        return None
    alike: dict[str | None, float] = {None: len(names & own) / len(names | own)}
    for family in families():
        theirs = {_unnumbered(name) for name in shapes_of(BackboneSpec(name=family.base_name))}
        alike[family.base_name] = len(names & theirs) / len(names | theirs)
    # Ties go to the first, which is that of the wanted names.
    nearest = max(alike, key=lambda name: alike[name])
    return nearest if alike[nearest] > 0.5 else None


def _unnumbered(name: str) -> str:
    """A tensor's name without the numbers of stages and layers."""
    return re.sub(r"\d+", "#", name)


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return f"{what} {', '.join(names[:NUM_NAMED])}{more}" if names else ""
