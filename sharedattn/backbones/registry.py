"""Resolve names to backbones, read their sizes, and build networks from them.

A family is one module; to add one, write the module and list it in `FAMILIES`, or register it as a
plug-in's entry point.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Any

import timm
import torch
from torch import Tensor

from sharedattn.backbones.ceit import CEIT
from sharedattn.backbones.deepvit import DEEPVIT
from sharedattn.backbones.family import MAX_NUMBER, Family, stage_numbers
from sharedattn.backbones.hvt import HVT
from sharedattn.backbones.meta import without_storage
from sharedattn.backbones.pvt import PVT
from sharedattn.backbones.pvt_v2 import PVT_V2
from sharedattn.backbones.resnet import RESNET
from sharedattn.backbones.resnet_cifar import RESNET_CIFAR
from sharedattn.backbones.swin import SWIN
from sharedattn.backbones.t2t import T2T
from sharedattn.backbones.unet import UNET
from sharedattn.backbones.vit import VIT
from sharedattn.errors import InputError
from sharedattn.heads.registry import head_sizes, make_head
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.networks.legality import (
    canonical_envelope,
    canonical_placement,
    check_branch,
    check_broadcasting,
    check_options,
    check_placement,
    check_whole,
    used_options,
)
from sharedattn.networks.network import Network, NetworkPlan
from sharedattn.placement import (
    BackboneSpec,
    Envelope,
    Keyword,
    MechanismOptions,
    NetworkSpec,
    ResolvedSpec,
)
from sharedattn.plugins import added
from sharedattn.shape import BackboneShape
from sharedattn.tasks import CLASSIFY, HEADS, head_kind

# Built-in families; those of plug-ins follow them, see `families`.
FAMILIES: tuple[Family, ...] = (
    VIT,
    T2T,
    SWIN,
    PVT,
    PVT_V2,
    DEEPVIT,
    CEIT,
    HVT,
    RESNET,
    RESNET_CIFAR,
    UNET,
)


@lru_cache(maxsize=1024)
def describe(backbone: BackboneSpec, *, recorded: bool = False) -> BackboneShape:
    """Sizes of a backbone with its options, read from a build without storage.

    Args:
        backbone: the backbone; its keywords need not be canonical.
        recorded: whether the backbone comes from a record: image sizes that drop pixels, which
            earlier versions accepted, are then allowed.

    Returns:
        The sizes, stage by stage, at the backbone's image size.

    Raises:
        InputError: a name or keyword is unknown, a value builds no model, the model's blocks
            are not supported, the image size would drop pixels, or options have no meaning on
            this backbone; or the head needs feature maps that it does not have, or belongs to
            other backbones.
    """
    family, _ = _plain(backbone.name)
    _check_head(backbone, family)
    (shape, values), options = _read(backbone), backbone.options
    if not recorded:
        _check_seen(backbone, shape.image_size, values)
    check_options(shape, options)
    if backbone.head != family.own_head:
        head = head_sizes(backbone.head, shape.features, backbone.num_classes)
        shape = replace(
            shape,
            head_params=head.params,
            head_macs=head.macs,
            head_norm_macs=head.norm_macs,
        )
    if options.handover == "previous":
        shape = replace(
            shape,
            stages=tuple(
                replace(stage, attention=replace(stage.attention, score_groups=()))
                for stage in shape.stages
            ),
        )
    return shape


@lru_cache(maxsize=1024)
def canonical(backbone: BackboneSpec) -> BackboneSpec:
    """The canonical spec of a backbone, among all with the same name that build it.

    Keywords without effect, a default image size and timm's tag of pretrained weights are left
    out; other keywords get their values in the built model (`mlp_ratio=2` and, for 64 channels,
    `mlp_ratio=2.001` become 2.0). The form of the given spec does not matter otherwise.

    Raises:
        InputError: as for `describe`, except that every image size is accepted.
    """
    shape, values = _read(backbone)
    family, own_values = _plain(backbone.name)
    if family.own_head != CLASSIFY:
        # Of a network without a classifier, the number of classes says nothing.
        backbone = replace(backbone, num_classes=HEADS[family.own_head].num_classes)
    kept = {key: value for key, value in values.items() if value != own_values[key]}
    # A keyword's default may depend on the others; then give it explicitly.
    if not _builds_the_same(replace(backbone, keywords=tuple(kept.items())), shape, values):
        kept = dict(values)
    for key in sorted(kept):
        rest = {k: v for k, v in kept.items() if k != key}
        if _builds_the_same(replace(backbone, keywords=tuple(rest.items())), shape, values):
            kept = rest
    # timm's tag after the dot selects pretrained weights, not another network.
    name = backbone.name.partition(".")[0]
    smallest = replace(backbone, name=name, keywords=tuple(kept.items()))
    default_size = replace(smallest, image_size=None)
    return default_size if _builds_the_same(default_size, shape, values) else smallest


def resolve(spec: NetworkSpec, *, recorded: bool = False) -> ResolvedSpec:
    """Check a spec, and make its backbone and placement canonical.

    The result is a network's identity: backbone options that no layer uses are reset to their
    defaults, so that equal networks have equal keys in all spaces.

    Args:
        spec: any spec; a resolved one is returned unchanged.
        recorded: as for `describe`.

    Raises:
        InputError: as for `describe`; or the backbone does not support the placement, by its
            stages, its depths or `sharedattn.networks.legality`.
    """
    if isinstance(spec, ResolvedSpec):
        return spec
    shape = describe(spec.backbone, recorded=recorded)
    _check_depths(spec.backbone, shape, str(spec.placement), spec.placement.depths)
    check_placement(shape, spec.backbone.options, spec.placement)
    backbone, placement = canonical(spec.backbone), canonical_placement(shape, spec.placement)
    options = used_options(_read(backbone)[0], backbone.options, placement)
    backbone = replace(backbone, options=options)
    return ResolvedSpec(backbone, placement, describe(backbone, recorded=recorded))


def build_network(
    backbone: BackboneSpec,
    envelope: Envelope,
    *,
    fused: bool = True,
    drop_path_rate: float = 0.0,
) -> Network:
    """Build a network that can run every placement of an envelope.

    Args:
        backbone: the backbone.
        envelope: choices to support, by layer position.
        fused: whether attention uses the fused kernel; results agree up to rounding.
        drop_path_rate: stochastic depth of the backbone's last block, growing linearly from 0 at
            its first; independent of a network's depth.

    Returns:
        The network, initialised as by timm, on torch's default device, in training mode.

    Raises:
        InputError: as for `describe`; or the envelope has other stages or more layers than the
            backbone, or maps that are too large.
    """
    shape = describe(backbone)
    _check_depths(backbone, shape, "the envelope", tuple(map(len, envelope.stages)))
    envelope = canonical_envelope(shape, envelope)
    _check_envelope(shape, backbone.options, envelope)
    plan = NetworkPlan(
        backbone=backbone,
        envelope=envelope,
        shape=shape,
        fused=fused,
        drop_path_rate=drop_path_rate,
    )
    return _network(plan)


def build(
    spec: NetworkSpec,
    *,
    fused: bool = True,
    drop_path_rate: float = 0.0,
    recorded: bool = False,
) -> Network:
    """Build the stand-alone network of one placement, which it runs by default.

    Args:
        spec: the network; one not resolved is checked, and keeps the backbone's options.
        fused: as for `build_network`.
        drop_path_rate: as for `build_network`.
        recorded: as for `describe`.

    Returns:
        As for `build_network`.

    Raises:
        InputError: as for `resolve`.
    """
    placement = resolve(spec, recorded=recorded).placement
    shape = (
        spec.shape
        if isinstance(spec, ResolvedSpec)
        else describe(spec.backbone, recorded=recorded)
    )
    plan = NetworkPlan(
        backbone=spec.backbone,
        envelope=Envelope.of(placement),
        only_placement=placement,
        shape=shape,
        fused=fused,
        drop_path_rate=drop_path_rate,
    )
    return _network(plan)


def _network(plan: NetworkPlan) -> Network:
    family, _ = _plain(plan.backbone.name)
    model = _make(plan.backbone, family, drop_path_rate=plan.drop_path_rate)
    network = family.make_network(model, plan)
    if plan.backbone.head != family.own_head:
        features, num_classes = plan.shape.features, plan.backbone.num_classes
        network.replace_classifier(make_head(plan.backbone.head, features, num_classes))
    return network


def timm_num_classes(backbone: BackboneSpec) -> int:
    """The number of classes of timm's pretrained weights of a backbone; 0 if they have no head.

    Raises:
        InputError: as for `describe`; or timm has no weights of the name.
    """
    describe(backbone)
    config = None
    if backbone.name not in _own_names():
        config = timm.models.get_pretrained_cfg(backbone.name, allow_unregistered=False)
    if config is None or not config.has_weights:
        raise InputError(
            f"timm has no weights of {backbone.name!r}; name a file in place of timm, or a timm "
            f"backbone that has weights"
        )
    return int(config.num_classes)


def timm_weights(backbone: BackboneSpec, *, with_head: bool = True) -> dict[str, Tensor]:
    """Load timm's pretrained weights of a backbone, by timm's loader, which may download them.

    timm adapts them to the backbone's image size and channels if it can.

    Args:
        backbone: a backbone with a timm name, with or without a tag.
        with_head: whether the weights have a head, of the backbone's number of classes; else the
            model's head is left out.

    Returns:
        The model's state dict, on the CPU.

    Raises:
        InputError: as for `describe`; or timm has no weights of the name, or they have another
            number of classes or another shape, or cannot be downloaded or read.
    """
    num_classes = timm_num_classes(backbone)
    if num_classes != (backbone.num_classes if with_head else 0):
        raise InputError(
            f"timm's weights of {backbone.name} have {num_classes} classes, but the "
            f"network has {backbone.num_classes}; write num_classes={num_classes}, or "
            f"train them on your classes first"
        )
    family, _ = _plain(backbone.name)
    try:
        with torch.device("cpu"):
            model = _make(backbone, family, pretrained=True, num_classes=num_classes)
    # Hubs and loaders raise OSError if weights are unavailable, timm RuntimeError on other shapes.
    except (OSError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"timm's weights of {backbone} cannot be loaded: {why}; if they cannot be downloaded, "
            f"name a file in place of timm"
        ) from error
    state: dict[str, Tensor] = model.state_dict()
    return state


def _check_head(backbone: BackboneSpec, family: Family) -> None:
    """Check that a backbone can have its head.

    Raises:
        InputError: the family has another, or the head is another family's own.
    """
    if backbone.head == family.own_head:
        return
    if family.own_head != CLASSIFY:
        raise InputError(
            f"`head` is {backbone.head}, but {backbone.name} is to "
            f"{head_kind(family.own_head).task} and takes no other head; leave it out, or name "
            f"another backbone"
        )
    having = [f.base_name for f in families() if f.own_head == backbone.head]
    if having:
        raise InputError(
            f"`head` is {backbone.head}, which is part of {' and '.join(having)}; leave it out, "
            f"or name such a backbone"
        )


def _check_depths(
    backbone: BackboneSpec, shape: BackboneShape, what: str, depths: tuple[int, ...]
) -> None:
    if len(depths) != len(shape.depths):
        raise InputError(
            f"{what} has {len(depths)} stages, but {backbone.name} has {len(shape.depths)}; write "
            f"one part per stage"
        )
    for stage, (depth, most) in enumerate(zip(depths, shape.depths, strict=True)):
        if depth > most:
            deeper = _deeper(backbone, tuple(map(max, depths, shape.depths)))
            raise InputError(
                f"stage {stage + 1} of {what} has {depth} layers, more than the {most} of "
                f"{backbone.name}; use fewer layers, or a deeper backbone"
                + ("" if deeper is None else f" such as {deeper}")
            )


def _deeper(backbone: BackboneSpec, depths: tuple[int, ...]) -> BackboneSpec | None:
    """The backbone with these depths, or None if its keywords cannot express them."""
    family, _ = _plain(backbone.name)
    keywords = dict(backbone.keywords)
    if "depths" in family.keywords:
        keywords["depths"] = stage_numbers(depths)
    elif len(depths) == 1:
        [keywords["depth"]] = depths
    else:
        return None
    return replace(backbone, keywords=tuple(keywords.items()))


def _check_envelope(
    shape: BackboneShape, network_options: MechanismOptions, envelope: Envelope
) -> None:
    for stage, positions in zip(shape.stages, envelope.stages, strict=True):
        for position in positions:
            for branch, _, options in position.forms():
                check_branch(stage, network_options, branch, options)
            if position.cb:
                check_broadcasting(stage)
        check_whole(stage, len(positions))


def _make(backbone: BackboneSpec, family: Family, **arguments: Any) -> Any:
    """Build the model of a backbone of a family, on torch's default device."""
    for key, value in backbone.keywords:
        rule = family.keywords[key]
        arguments[rule.argument or key] = rule.to_argument(value)
    arguments = {
        "in_chans": backbone.in_chans,
        "num_classes": backbone.num_classes,
        **arguments,
    }
    if backbone.image_size is not None and family.default_image_size is None:
        arguments["img_size"] = backbone.image_size
    return _constructor(backbone.name)(**arguments)


@cache
def families() -> tuple[Family, ...]:
    """All families: built-in, then those of entry points `sharedattn.backbones`.

    Raises:
        InputError: a plug-in cannot be imported, names no family, or reuses a name.
    """
    others = added(
        "sharedattn.backbones",
        (name for family in FAMILIES for name in (family.base_name, *family.names)),
        what="a backbone",
        wanted="a `sharedattn.backbones.family.Family`",
        fits=lambda loaded: isinstance(loaded, Family),
        names_of=lambda _, family: [family.base_name, *family.names],
    )
    return (*FAMILIES, *(family for _, family in others))


def _own_names() -> dict[str, Callable[..., Any]]:
    """Names that are not timm's, with their model constructors."""
    names: dict[str, Callable[..., Any]] = {}
    for family in families():
        names |= {family.base_name: family.model_class, **family.names}
    return names


def _constructor(name: str) -> Callable[..., Any]:
    """The constructor of the model `name`, from a family or from timm's registry.

    Raises:
        InputError: the name is unknown.
    """
    own = _own_names()
    if name in own:
        return own[name]
    if timm.is_model(name):
        _check_tag(name)
        return partial(timm.create_model, name)
    near = difflib.get_close_matches(name, [*own, *timm.list_models()])
    raise InputError(
        f"there is no backbone {name!r}; write {', '.join(own)} or a name of timm's"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
    )


def _check_tag(name: str) -> None:
    """Check that timm knows a tag of weights.

    Raises:
        InputError: it does not; the message lists the known tags.
    """
    architecture, _, tag = name.partition(".")
    known = [key.partition(".")[2] for key in timm.models.get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in known:
        raise InputError(
            f"`{name}` has a tag of weights that timm does not know; of {architecture} it has "
            f"{', '.join(filter(None, known)) or 'none'}"
        )


@cache
def _plain(name: str) -> tuple[Family, dict[str, Keyword]]:
    """The family of the model `name`, and the model's own values of all keywords.

    Raises:
        InputError: the name is unknown, or no family supports the model.
    """
    constructor = _constructor(name)
    with without_storage():
        # Some of timm's names lack a classifier, which every network here has.
        model = constructor(num_classes=1)
    for family in families():
        if type(model) is family.model_class:
            _, values = _read_as(name, family, model, None)
            return family, values
    raise InputError(
        f"the backbone {name!r} is a {type(model).__name__}, of no family that is known "
        f"here; name one of "
        + ", ".join(f"{f.model_class.__name__} ({f.base_name})" for f in families())
    )


@lru_cache(maxsize=1024)
def _read(backbone: BackboneSpec) -> tuple[BackboneShape, dict[str, Keyword]]:
    """Sizes, and the values of all keywords in the built model."""
    family, own_values = _plain(backbone.name)
    _check_keywords(backbone, family, own_values)
    try:
        with without_storage():
            model = _make(backbone, family)
    # Errors on values that fit no model: timm validates by assertions, or fails on the way.
    except (
        AssertionError,
        IndexError,
        OverflowError,
        RuntimeError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ) as error:
        # After the first line comes torch's stack.
        what = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"backbone {str(backbone)!r} cannot be built: {what}"
            + _missing_stage_numbers(backbone, family, own_values)
        ) from error
    shape, values = _read_as(str(backbone), family, model, backbone.image_size)
    _check_ratios(backbone, family, values)
    return shape, values


def _read_as(
    name: str, family: Family, model: Any, image_size: AnySize | None
) -> tuple[BackboneShape, dict[str, Keyword]]:
    """The sizes of a model and the values of all keywords; errors include its name."""
    try:
        size = image_size or family.default_image_size
        shape = family.describe(model, None if size is None else ImageSize.of(size))
        return shape, family.read_keywords(model)
    except InputError as error:
        raise InputError(f"backbone {name!r}: {error}") from error


def _check_seen(backbone: BackboneSpec, image_size: ImageSize, values: dict[str, Keyword]) -> None:
    """Check that the last rows and columns of an image have an effect.

    A named model at its own size is accepted, even if it drops pixels.

    Raises:
        InputError: they have none; the message names the nearest valid sizes.
    """
    family, own_values = _plain(backbone.name)
    num_cut = _num_cut(family, values, image_size)
    if not any(num_cut):
        return
    own_size = _read(BackboneSpec(name=backbone.name))[0].image_size
    if (image_size, num_cut) == (own_size, _num_cut(family, own_values, own_size)):
        return
    below, above = zip(*(_fitting(family, values, side) for side in image_size), strict=True)
    is_square = image_size.height == image_size.width
    nearest = [
        str(sides[0]) if is_square else "x".join(map(str, sides))
        for sides in (below, above)
        if None not in sides and _can_be_built(replace(backbone, image_size=sides))
    ]
    raise InputError(
        f"`image_size` {image_size} does not fit backbone {str(backbone)!r}: the last "
        + _rows_and_columns(*num_cut)
        + f" of pixels would be cut off; use {' or '.join(nearest) or 'another size'}"
    )


def _num_cut(family: Family, values: dict[str, Keyword], image_size: ImageSize) -> tuple[int, int]:
    """The number of last rows and of last columns of pixels that have no effect."""
    rows, columns = (side - family.seen_pixels(values, side) for side in image_size)
    return rows, columns


def _fitting(
    family: Family, values: dict[str, Keyword], side: int
) -> tuple[int | None, int | None]:
    """The nearest lengths of a side that cut off nothing, up to it and from it on."""
    below, above = (
        next((s for s in sides if family.seen_pixels(values, s) == s), None)
        for sides in (range(side, 0, -1), range(side, MAX_NUMBER + 1))
    )
    return below, above


def _rows_and_columns(rows: int, columns: int) -> str:
    """Words for a number of rows and of columns, not both 0."""
    if rows == columns:
        return "row and column" if rows == 1 else f"{rows} rows and columns"
    counts = [(rows, "row"), (columns, "column")]
    return " and ".join(f"{n} {word}s" if n > 1 else word for n, word in counts if n)


def _can_be_built(backbone: BackboneSpec) -> bool:
    try:
        _read(backbone)
    except InputError:
        return False
    return True


def _check_ratios(backbone: BackboneSpec, family: Family, values: dict[str, Keyword]) -> None:
    """Check that no ratio leaves zero channels, for which models would use 1."""
    for key, value in backbone.keywords:
        pairs = zip(_numbers(family, key, value), _numbers(family, key, values[key]), strict=True)
        if any(asked < 1 <= built for asked, built in pairs):
            raise InputError(f"`{key}`={value} leaves no channel; raise it")


def _numbers(family: Family, key: str, value: Keyword) -> list[float]:
    """The numbers of a keyword's value, none for a boolean or a word."""
    if isinstance(value, str):
        return [float(part) for part in value.split("-")] if family.keywords[key].per_stage else []
    return [] if isinstance(value, bool) else [float(value)]


def _check_keywords(
    backbone: BackboneSpec, family: Family, own_values: dict[str, Keyword]
) -> None:
    for key, value in backbone.keywords:
        rule = family.keywords.get(key)
        if rule is None:
            raise InputError(
                f"`{key}` is no keyword of {backbone.name}; known: "
                + ", ".join(sorted(family.keywords))
                + ", in_chans, num_classes and the mechanism options"
            )
        if rule.per_stage:
            depths = dict(backbone.keywords).get("depths", own_values["depths"])
            if isinstance(value, bool) or _num_stages(value) != _num_stages(depths):
                raise InputError(
                    f"`{key}`={value} is not one number per stage, such as 2-2-6-2; write as many "
                    f"numbers as depths={depths} has"
                )
        else:
            kind = type(own_values[key])
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise InputError(f"`{key}` is of type {kind.__name__}, but got {value!r}")
        if not isinstance(value, bool | str):
            if not (value > 0 or (value == 0 and rule.may_be_zero)):
                least = "of 0 or more" if rule.may_be_zero else "above 0"
                raise InputError(f"`{key}`={value} is not a number {least}; raise it")
            _check_most(key, value, rule.most)
    _check_most("in_chans", backbone.in_chans, MAX_NUMBER)
    _check_most("num_classes", backbone.num_classes, MAX_NUMBER)
    _check_most("image_size", max(ImageSize.of(backbone.image_size or 1)), MAX_NUMBER)


def _check_most(key: str, value: float, most: int) -> None:
    if value > most:
        raise InputError(f"`{key}`={value} is more than {most:,}; lower it")


def _num_stages(value: Keyword) -> int:
    return value.count("-") + 1 if isinstance(value, str) else 1


def _missing_stage_numbers(
    backbone: BackboneSpec, family: Family, own_values: dict[str, Keyword]
) -> str:
    """Names of keywords that are missing although `depths` changes the number of stages."""
    given = dict(backbone.keywords)
    depths = given.get("depths", own_values.get("depths", 1))
    missing = [
        key
        for key, rule in family.keywords.items()
        if rule.per_stage
        and key not in given
        and _num_stages(own_values[key]) != _num_stages(depths)
    ]
    return f"; with depths={depths}, give {', '.join(missing)} too" if missing else ""


def _builds_the_same(
    backbone: BackboneSpec, shape: BackboneShape, values: dict[str, Keyword]
) -> bool:
    try:
        return _read(backbone) == (shape, values)
    except InputError:
        return False
