"""Specs of backbones and networks, which identify them in the database."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.mechanisms.options import MechanismOptions
from sharedattn.placement.named import LAVIT_LIKE
from sharedattn.placement.placement import Placement
from sharedattn.shape import BackboneShape
from sharedattn.tasks import CLASSIFY, HEADS, default_head, head_kind, own_head

SPEC_FORMAT_VERSION = 2

ANCHOR_SCALE = 4.0
"""`BackboneSpec.anchor_scale` of RetinaNet's paper: anchors of 32 pixels at every 8 pixels."""

_NAME = r"[A-Za-z][\w.]*"
_SPEC = re.compile(rf"\s*({_NAME})\s*(?:\(([^()]*)\))?\s*(?:@\s*(\d{{1,9}}(?:x\d{{1,9}})?))?\s*")

Keyword = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """A backbone without its placement: its timm model, image size and mechanism options.

    Attributes:
        name: timm's model name, or a family's base name such as `vit`.
        keywords: the model's keyword arguments that differ from its defaults, sorted by name.
        image_size: pixels on a side of square images, or their height and width, or None for the
            backbone's default; a pair of equal numbers becomes one.
        in_chans: number of image channels.
        num_classes: number of classes.
        options: options of the mechanisms.
        head: name of the head, one of `sharedattn.tasks.HEADS`; by default the backbone's own.
        anchor_scale: of a detector, the side of a level's smallest square anchor over the pixels
            between two of them, 4 in RetinaNet's paper; less suits small objects.
    """

    name: str
    keywords: tuple[tuple[str, Keyword], ...] = ()
    image_size: AnySize | None = None
    in_chans: int = 3
    num_classes: int = 1000
    options: MechanismOptions = field(default_factory=MechanismOptions)
    head: str = CLASSIFY
    anchor_scale: float = ANCHOR_SCALE

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(_NAME, self.name):
            raise InputError(
                f"`name` is {self.name!r}, which names no backbone; write for example vit"
            )
        for key, value in self.keywords:
            if not isinstance(value, Keyword):
                raise InputError(
                    f"`{key}` is {value!r}; a keyword is true, false, a number or a text"
                )
        object.__setattr__(self, "keywords", tuple(sorted(self.keywords)))
        if self.head == CLASSIFY:
            object.__setattr__(self, "head", own_head(self.name))
        task = head_kind(self.head).task
        object.__setattr__(self, "anchor_scale", _checked_scale(self.anchor_scale, task))
        numbers = {"in_chans": self.in_chans, "num_classes": self.num_classes}
        for name, number in numbers.items():
            if type(number) is not int or number < 1:
                raise InputError(f"`{name}` is {number!r}; it is a whole number of at least 1")
        if self.image_size is not None:
            object.__setattr__(self, "image_size", ImageSize.of(self.image_size).given)

    @classmethod
    def parse(cls, text: str, *, task: str | None = None) -> BackboneSpec:
        """Parse `backbone(key=value,...)@image_size`.

        Besides the backbone's own, the keys include `in_chans`, `num_classes`, `head`,
        `anchor_scale` and the names of `MechanismOptions`. A number of classes that is not given
        is the head's default.

        Args:
            text: the text.
            task: what the network is for, whose default head it has unless it names another of
                the same task; by default any head is accepted, and the default classifies.

        Raises:
            InputError: the text names no backbone, repeats a key, or names a head of another
                task; or there is no such task.
        """
        match = _SPEC.fullmatch(text)
        if match is None:
            raise InputError(f"{text!r} is no backbone; write name(key=value,...)@image_size")
        keywords: dict[str, Keyword] = {}
        for pair in filter(None, (part.strip() for part in (match[2] or "").split(","))):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not key.isidentifier() or not value:
                raise InputError(f"{pair!r} in {text!r} is no key=value")
            if key in keywords:
                raise InputError(f"{text!r} repeats {key}; a key stands once")
            keywords[key] = _parse_keyword(value)
        option_names = {f.name for f in fields(MechanismOptions)}
        options: dict[str, Any] = {
            key: keywords.pop(key) for key in list(keywords) if key in option_names
        }
        own, is_named = own_head(match[1]), "head" in keywords
        default = own if task in (None, head_kind(own).task) else default_head(str(task)).name
        head = str(keywords.pop("head", default))
        if task is not None and head_kind(head).task != task:
            raise InputError(
                f"`head` is {head} in {text!r}, which is to {head_kind(head).task}; leave it out, "
                f"or name one that is to {task}"
            )
        if head == CLASSIFY != own:
            given = "`head`" if is_named else "the task"
            raise InputError(
                f"{given} is {CLASSIFY}, but {match[1]} is to {head_kind(own).task}; leave it "
                f"out, or name another backbone"
            )
        said: dict[str, Any] = {"head": head, "num_classes": head_kind(head).num_classes}
        for key in ("in_chans", "num_classes", "anchor_scale"):
            if key in keywords:
                said[key] = keywords.pop(key)
        return cls(
            name=match[1],
            keywords=tuple(keywords.items()),
            image_size=ImageSize.parse(match[3]) if match[3] else None,
            options=MechanismOptions(**options),
            **said,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of all fields, the options as in `MechanismOptions.to_json`.

        `head` and `anchor_scale` are left out at their defaults.
        """
        document: dict[str, Any] = {
            "name": self.name,
            "keywords": dict(self.keywords),
            "image_size": (
                None if self.image_size is None else ImageSize.of(self.image_size).to_json()
            ),
            "in_chans": self.in_chans,
            "num_classes": self.num_classes,
            "options": self.options.to_json(),
        }
        # Left out at their defaults, since specs of before have none.
        if self.head != own_head(self.name):
            document["head"] = self.head
        if self.anchor_scale != ANCHOR_SCALE:
            document["anchor_scale"] = self.anchor_scale
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> BackboneSpec:
        """The inverse of `to_json`.

        Raises:
            InputError: fields are unknown, missing or out of range.
        """
        try:
            return cls(
                **{
                    **document,
                    "keywords": tuple(document.get("keywords", {}).items()),
                    "options": MechanismOptions(**document.get("options", {})),
                }
            )
        except (TypeError, AttributeError) as error:
            raise InputError(
                f"a backbone has the fields {', '.join(f.name for f in fields(cls))}, but got "
                f"{document!r}"
            ) from error

    def __str__(self) -> str:
        keys: dict[str, Keyword] = {**dict(self.keywords), **self.options.changed()}
        if self.in_chans != 3:
            keys["in_chans"] = self.in_chans
        if self.num_classes != HEADS[self.head].num_classes:
            keys["num_classes"] = self.num_classes
        if self.head != own_head(self.name):
            keys["head"] = self.head
        if self.anchor_scale != ANCHOR_SCALE:
            keys["anchor_scale"] = f"{self.anchor_scale:g}"
        inside = ",".join(f"{key}={_keyword_text(keys[key])}" for key in sorted(keys))
        size = "" if self.image_size is None else f"@{ImageSize.of(self.image_size)}"
        return f"{self.name}{f'({inside})' if inside else ''}{size}"


def _checked_scale(scale: Any, task: str) -> float:
    """The scale of anchors as a number that its text tells exactly.

    Raises:
        InputError: it is no positive number of up to six digits, or the task has no anchors.
    """
    if (
        not isinstance(scale, int | float)
        or isinstance(scale, bool)
        or not 0 < scale < math.inf
        or float(f"{scale:g}") != scale
    ):
        raise InputError(
            f"`anchor_scale` is {scale!r}; it is a number above 0 with up to six digits"
        )
    if task != "detect" and scale != ANCHOR_SCALE:
        raise InputError(
            f"`anchor_scale` is {scale:g}, but a head that is to {task} has no anchors; leave it "
            f"out"
        )
    return float(scale)


def _parse_keyword(value: str) -> Keyword:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def _keyword_text(value: Keyword) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Everything that defines a network except its weights; identified by `key`.

    Attributes:
        backbone: the backbone with its size and options.
        placement: the placement.
    """

    backbone: BackboneSpec
    placement: Placement

    @classmethod
    def parse(cls, text: str, *, task: str | None = None) -> NetworkSpec:
        """Parse `backbone(key=value,...)@image_size: placement`, or a network's name.

        Args:
            text: the text.
            task: as for `BackboneSpec.parse`.

        Raises:
            InputError: the text is not a network.
        """
        backbone, colon, placement = LAVIT_LIKE.get(text.strip(), text).partition(":")
        if not colon:
            raise InputError(
                f"{text!r} is no network: it is neither `backbone: placement` nor one of "
                f"{', '.join(LAVIT_LIKE)}; write for example deit_tiny_patch16_224: V6L6/cb"
            )
        return NetworkSpec(BackboneSpec.parse(backbone, task=task), Placement.parse(placement))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of format version, backbone and placement."""
        return {
            "format": SPEC_FORMAT_VERSION,
            "backbone": self.backbone.to_json(),
            "placement": self.placement.to_json(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> NetworkSpec:
        """The inverse of `to_json`; accepts a placement as text as well.

        Raises:
            InputError: the format version differs, fields are missing, or values are invalid.
        """
        version = document.get("format") if isinstance(document, dict) else document
        if type(version) is not int or version not in (1, SPEC_FORMAT_VERSION):
            raise InputError(
                f"this network spec has format {version!r}, and this version reads 1 and "
                f"{SPEC_FORMAT_VERSION}"
            )
        if version == 1:
            document = _from_format_1(document)
        try:
            backbone, placement = document["backbone"], document["placement"]
        except KeyError as error:
            raise InputError(f"this network spec has no {error.args[0]}") from error
        return NetworkSpec(
            BackboneSpec.from_json(backbone),
            Placement.parse(placement)
            if isinstance(placement, str)
            else Placement.from_json(placement),
        )

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON, hexadecimal."""
        return document_key(self.to_json())

    def __str__(self) -> str:
        return f"{self.backbone}: {self.placement}"

    def __eq__(self, other: object) -> bool:
        # Ignore the class: a spec and its resolved form may be the same network.
        return isinstance(other, NetworkSpec) and (self.backbone, self.placement) == (
            other.backbone,
            other.placement,
        )


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedSpec(NetworkSpec):
    """A canonical network spec whose placement fits its backbone.

    Created by `sharedattn.backbones.resolve`; code that takes one need not check it again.

    Attributes:
        shape: sizes of the backbone.
    """

    shape: BackboneShape = field(repr=False)


def _from_format_1(document: dict[str, Any]) -> dict[str, Any]:
    """Convert format 1, in which one option set the form of all external layers, to format 2."""
    backbone = document.get("backbone")
    if not isinstance(backbone, dict) or not isinstance(backbone.get("options", {}), dict):
        return document
    options = dict(backbone.get("options", {}))
    external_form = options.pop("external_form", "single")
    if external_form != "single":
        raise InputError(
            f"this network spec of format 1 has external_form={external_form!r}, whose weights "
            f"had other names; write the network with /mea and train it again"
        )
    return {**document, "backbone": {**backbone, "options": options}}
