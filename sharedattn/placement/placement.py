"""Placements: which attention mechanism stands in which layer, and the spec of a whole network.

The truth of a placement is one `LayerChoice` per layer; text, YAML and JSON are forms of it.
Everything here is frozen, validated on construction, and canonical: two placements that mean the
same network are equal, have the same text and the same hash.

Text form of a stage: layers in order, run-length (`E1V2L3N1`), then options that expand to the
layers: `/sS` memory slots, `/mea` the multi-head form of external attention, `/keys`, `/full`,
`/lowrankR` or `/reuse` the maps of less attention, `/diaG` contiguous DIA groups, `/cb` or `/cbK`
context broadcasting in all or the last K layers. Where these cannot say the layers, they are
written one by one with commas: `E/s16,E/s64/cb,V/d0,L/keys/d0`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Literal

from sharedattn.errors import InputError
from sharedattn.placement.named import LAVIT_LIKE

SPEC_FORMAT_VERSION = 2
DEFAULT_SLOTS = 64

_LATER_OPTIONS = frozenset({"dia_start"})
"""Options that joined `MechanismOptions` when specs of this format had been stored."""

_RESERVED_OPTION = re.compile(r"cbs|r\d+|dia\[[01]*\]")
_FORM_OPTIONS = {"mea": "", "full": "", "keys": "", "lowrank": r"[1-9]\d{0,5}", "reuse": ""}
_SHORT_STAGE = re.compile(r"((?:[A-Z]\d+)+)((?:/[^/]*)*)")
_LONG_LAYER = re.compile(r"([A-Z])((?:/[^/]*)*)")
_NAME = r"[A-Za-z][\w.]*"
_SPEC = re.compile(rf"\s*({_NAME})\s*(?:\(([^()]*)\))?\s*(?:@\s*(\d{{1,9}}))?\s*")


class Kind(StrEnum):
    """The attention branch of a layer."""

    VANILLA = "V"
    LESS = "L"
    EXTERNAL = "E"
    NONE = "N"


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What one layer does.

    Attributes:
        kind: the attention branch: vanilla, less, external, or none.
        slots: memory slots S of an external layer; None for every other kind.
        dia: cell of the DIA unit that gates this layer, numbered within its stage; None: no gate.
        cb: whether the layer's MLP ends with context broadcasting.
        form: what the attention branch is in place of its default. Of less attention, the maps:
            `full` (queries and keys), `keys` (keys alone), `lowrankR` (queries and keys, of rank
            R), `reuse` (none); the default is full maps, but keys alone where a stage reduces
            its keys. Of external attention, `mea`: the multi-head form of the paper's code; the
            default is our single-head form. No other kind has a form.

    Raises:
        InputError: slots or form and kind do not agree, or a number is out of range.
    """

    kind: Kind
    slots: int | None = None
    dia: int | None = None
    cb: bool = False
    form: str | None = None

    def __post_init__(self) -> None:
        if (self.kind is Kind.EXTERNAL) != (self.slots is not None):
            raise InputError(
                f"`slots` belongs to kind E and to no other, but got kind={self.kind.value}, "
                f"slots={self.slots}"
            )
        if self.slots is not None and self.slots < 1:
            raise InputError(f"`slots >= 1` must hold, but got slots={self.slots}")
        if self.dia is not None and self.dia < 0:
            raise InputError(f"`dia >= 0` must hold, but got dia={self.dia}")
        if self.form is not None and kind_of_form(self.form) is not self.kind:
            raise InputError(
                f"`a form belongs to its kind: mea to E; full, keys, lowrankR and reuse to L` "
                f"must hold, but got form={self.form!r} and kind={self.kind.value}"
            )

    @classmethod
    def parse(cls, text: str) -> LayerChoice:
        """Read one layer of the long form, such as `E/s16/d0/cb`; its DIA cell as it stands.

        Raises:
            InputError: text that means no layer.
        """
        compact = re.sub(r"\s+", "", text)
        return _parse_layer(compact, compact)

    def to_json(self) -> list[Any]:
        """The layer as `[kind, slots, dia, "cb" or null]`, and its form where it has one."""
        layer = [self.kind.value, self.slots, self.dia, "cb" if self.cb else None]
        return layer if self.form is None else [*layer, self.form]

    @classmethod
    def from_json(cls, layer: Sequence[Any]) -> LayerChoice:
        """The inverse of `to_json`.

        Raises:
            InputError: not a list of four or five, or of values that mean no layer.
        """
        try:
            kind, slots, dia, broadcasting, *form = layer
            kind = Kind(kind)
            [form] = form or [None]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"a layer is `[kind, slots, dia, cb]`, and its form where it has one, with kind "
                f"V, L, E or N, but got {layer!r}"
            ) from error
        if form is not None and not isinstance(form, str):
            raise InputError(f"a layer's form is a text, but got {layer!r}")
        if broadcasting not in (None, "cb") or not all(
            n is None or type(n) is int for n in (slots, dia)
        ):
            raise InputError(
                f'a layer has whole numbers or null as slots and dia, and "cb" or null as cb, '
                f"but got {layer!r}"
            )
        return cls(kind, slots, dia, broadcasting == "cb", form)

    def __str__(self) -> str:
        slots = "" if self.slots is None else f"/s{self.slots}"
        form = "" if self.form is None else f"/{self.form}"
        dia = "" if self.dia is None else f"/d{self.dia}"
        return f"{self.kind.value}{slots}{form}{dia}{'/cb' if self.cb else ''}"


def kind_of_form(form: str) -> Kind | None:
    """The kind of layer that a form belongs to; None: no such form."""
    if form == "mea":
        return Kind.EXTERNAL
    return Kind.LESS if form in ("full", "keys", "reuse") or rank_of(form) else None


def rank_of(form: str | None) -> int | None:
    """R of the form `lowrankR`; None for every other form."""
    match = re.fullmatch(r"lowrank([1-9]\d{0,5})", form or "")
    return int(match[1]) if match else None


def dia_runs(num_layers: int, num_groups: int) -> tuple[int, ...]:
    """The DIA cell of each layer when a stage is split into contiguous runs, longer ones first.

    Args:
        num_layers: layers in the stage; > 0.
        num_groups: cells; from 1 to `num_layers`.

    Returns:
        One cell number per layer: 7 layers in 3 groups are (0, 0, 0, 1, 1, 2, 2).

    Raises:
        InputError: more groups than layers, or none.
    """
    if not 1 <= num_groups <= num_layers:
        raise InputError(
            f"`1 <= DIA groups <= layers` must hold, but got /dia{num_groups} on a stage of "
            f"{num_layers} layers; the most that fits is /dia{num_layers}"
        )
    length, longer = divmod(num_layers, num_groups)
    runs = [length + (group < longer) for group in range(num_groups)]
    return tuple(group for group, run in enumerate(runs) for _ in range(run))


@dataclass(frozen=True, slots=True)
class Placement:
    """One choice per layer, stage by stage; canonical and hashable.

    DIA cells are renumbered within each stage by first use.

    Attributes:
        stages: the layers of each stage, first stage first.

    Raises:
        InputError: a stage without layers, or a less-attention layer with nothing to reuse.
    """

    stages: tuple[tuple[LayerChoice, ...], ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("`a placement has at least one stage` must hold, but got none")
        canonical = tuple(_canonical_stage(i, stage) for i, stage in enumerate(self.stages))
        object.__setattr__(self, "stages", canonical)

    @property
    def layers(self) -> tuple[LayerChoice, ...]:
        """All layers, stage after stage."""
        return tuple(itertools.chain.from_iterable(self.stages))

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers of each stage."""
        return tuple(len(stage) for stage in self.stages)

    @classmethod
    def parse(cls, text: str) -> Placement:
        """Read the text form, `stage | stage | ...`.

        Raises:
            InputError: text that means no placement; the message names the part at fault.
        """
        return cls(tuple(_parse_stage(part.strip()) for part in text.split("|")))

    @classmethod
    def from_json(cls, stages: Sequence[Sequence[Sequence[Any]]]) -> Placement:
        """The inverse of `to_json`.

        Raises:
            InputError: not lists of layers, or layers that mean no placement.
        """
        if not _is_list(stages) or not all(map(_is_list, stages)):
            raise InputError(f"a placement is a list of stages of layers, but got {stages!r}")
        return cls(
            tuple(tuple(LayerChoice.from_json(layer) for layer in stage) for stage in stages)
        )

    @classmethod
    def all_vanilla(cls, depths: Sequence[int]) -> Placement:
        """Vanilla attention in every layer: the backbone as it was published."""
        return cls(tuple((LayerChoice(Kind.VANILLA),) * depth for depth in depths))

    def to_json(self) -> list[list[list[Any]]]:
        """Stages of layers, each layer as `LayerChoice.to_json` has it."""
        return [[layer.to_json() for layer in stage] for stage in self.stages]

    def __str__(self) -> str:
        return " | ".join(_stage_text(stage) for stage in self.stages)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _canonical_stage(index: int, stage: Iterable[LayerChoice]) -> tuple[LayerChoice, ...]:
    layers = tuple(stage)
    if not layers:
        raise InputError(
            f"`a stage has at least one layer` must hold, but stage {index + 1} has none"
        )
    has_scores = False
    cell_of: dict[int, int] = {}
    for position, layer in enumerate(layers):
        if layer.kind is Kind.LESS and not has_scores:
            raise InputError(
                f"`a less-attention layer reuses the scores of a V or L before it in its stage` "
                f"must hold, but layer {position + 1} of stage {index + 1} is an L with nothing "
                f"to reuse; put a V before it"
            )
        has_scores = has_scores or layer.kind is Kind.VANILLA
        if layer.dia is not None:
            cell_of.setdefault(layer.dia, len(cell_of))
    if all(raw == cell for raw, cell in cell_of.items()):
        return layers
    return tuple(
        layer if layer.dia is None else replace(layer, dia=cell_of[layer.dia]) for layer in layers
    )


def _stage_text(stage: tuple[LayerChoice, ...]) -> str:
    """The short form where it says the same layers, else the layers one by one."""
    slots = {layer.slots for layer in stage if layer.slots is not None}
    forms = {
        kind: {layer.form for layer in stage if layer.kind is kind}
        for kind in (Kind.EXTERNAL, Kind.LESS)
    }
    cells = [layer.dia for layer in stage]
    num_groups = len(set(cells) - {None})
    with_cb = sum(layer.cb for layer in stage)
    short = (
        len(slots) <= 1
        and all(len(of_kind) <= 1 for of_kind in forms.values())
        and (num_groups == 0 or tuple(cells) == dia_runs(len(stage), num_groups))
        and all(layer.cb for layer in stage[len(stage) - with_cb :])
    )
    if not short:
        return ",".join(str(layer) for layer in stage)
    runs = "".join(
        f"{kind.value}{len(list(run))}"
        for kind, run in itertools.groupby(stage, key=lambda layer: layer.kind)
    )
    slots_text = "".join(f"/s{s}" for s in slots)
    forms_text = "".join(f"/{form}" for of_kind in forms.values() for form in of_kind if form)
    dia_text = f"/dia{num_groups}" if num_groups else ""
    cb_text = "" if not with_cb else "/cb" if with_cb == len(stage) else f"/cb{with_cb}"
    return runs + slots_text + forms_text + dia_text + cb_text


def _parse_kind(letter: str, text: str) -> Kind:
    try:
        return Kind(letter)
    except ValueError:
        raise InputError(
            f"`a layer is V (vanilla), L (less), E (external) or N (none)` must hold, "
            f"but got {letter!r} in {text!r}"
        ) from None


def _parse_options(options: str, text: str, allowed: dict[str, str]) -> dict[str, int | None]:
    """Options of `text` as name to number, None where the option stands without one.

    Args:
        options: the part from the first slash on.
        text: the stage or layer the options belong to, for messages.
        allowed: pattern of the number per option name.
    """
    found: dict[str, int | None] = {}
    for option in options.split("/")[1:]:
        match = re.fullmatch(r"([a-z]+)(\d*)", option)
        known = match is not None and match[1] in allowed
        if match is None or not known or not re.fullmatch(allowed[match[1]], match[2]):
            if _RESERVED_OPTION.fullmatch(option):
                raise InputError(
                    f"`/{option}` in {text!r} is reserved for a form that does not exist yet"
                )
            raise InputError(
                f"`/{option}` in {text!r} is no option here; known: "
                + ", ".join(f"/{name}" for name in allowed)
            )
        if match[1] in found:
            raise InputError(
                f"`an option stands once` must hold, but {text!r} repeats /{match[1]}"
            )
        found[match[1]] = int(match[2]) if match[2] else None
    return found


def _parse_stage(text: str) -> tuple[LayerChoice, ...]:
    compact = re.sub(r"\s+", "", text)
    if "," in compact or _LONG_LAYER.fullmatch(compact):
        return tuple(_parse_layer(part, text) for part in compact.split(","))
    match = _SHORT_STAGE.fullmatch(compact)
    if match is None:
        raise InputError(
            f"`a stage is run-length layers and options, such as V2L1/dia1/cb, or layers with "
            f"commas, such as V/d0,L/d0` must hold, but got {text!r}"
        )
    kinds = [
        _parse_kind(letter, text)
        for letter, count in re.findall(r"([A-Z])(\d+)", match[1])
        for _ in range(_bounded_count(count, text))
    ]
    options = _parse_options(
        match[2],
        text,
        {"s": r"\d{1,9}", **_FORM_OPTIONS, "dia": r"\d{1,9}", "cb": r"\d{0,9}"},
    )
    forms = _forms(options, frozenset(kinds), text)
    has_external = Kind.EXTERNAL in kinds
    if "s" in options and not has_external:
        raise InputError(
            f"`/s needs an external layer` must hold, but {text!r} has no E; drop the /s"
        )
    num_groups = options.get("dia")
    cells: Sequence[int | None] = (
        [None] * len(kinds) if num_groups is None else dia_runs(len(kinds), num_groups)
    )
    with_cb = (
        (options["cb"] if options["cb"] is not None else len(kinds)) if "cb" in options else 0
    )
    if with_cb > len(kinds):
        raise InputError(
            f"`layers with CB <= layers` must hold, but got /cb{with_cb} on the {len(kinds)} "
            f"layers of {text!r}; write /cb for all of them"
        )
    slots = options["s"] if "s" in options else DEFAULT_SLOTS
    return tuple(
        LayerChoice(
            kind,
            slots if kind is Kind.EXTERNAL else None,
            cell,
            position >= len(kinds) - with_cb,
            forms.get(kind),
        )
        for position, (kind, cell) in enumerate(zip(kinds, cells, strict=True))
    )


def _forms(options: dict[str, int | None], kinds: frozenset[Kind], text: str) -> dict[Kind, str]:
    """The form that the options say, by the kind it belongs to."""
    forms: dict[Kind, str] = {}
    for name in _FORM_OPTIONS:
        if name not in options:
            continue
        form = name if options[name] is None else f"{name}{options[name]}"
        kind = kind_of_form(form)
        assert kind is not None
        if kind not in kinds:
            raise InputError(
                f"`/{form} needs a layer of kind {kind.value}` must hold, but {text!r} has none; "
                f"drop the /{form}"
            )
        if kind in forms:
            raise InputError(
                f"`layers of kind {kind.value} have one form` must hold, but {text!r} says "
                f"/{forms[kind]} and /{form}"
            )
        forms[kind] = form
    return forms


def _bounded_count(count: str, text: str) -> int:
    # A bound far above any backbone's depth keeps a typing error from filling the memory.
    if len(count) > 4 or not 1 <= int(count) <= 1000:
        raise InputError(f"`1 <= layers in a run <= 1000` must hold, but got {count} in {text!r}")
    return int(count)


def _parse_layer(part: str, text: str) -> LayerChoice:
    match = _LONG_LAYER.fullmatch(part)
    if match is None:
        raise InputError(
            f"`a layer is a kind and options, such as E/s16/d0/cb` must hold, "
            f"but got {part!r} in {text!r}"
        )
    kind = _parse_kind(match[1], text)
    options = _parse_options(
        match[2], text, {"s": r"\d{1,9}", **_FORM_OPTIONS, "d": r"\d{1,9}", "cb": ""}
    )
    if "s" in options and kind is not Kind.EXTERNAL:
        raise InputError(f"`/s needs an external layer` must hold, but got {part!r} in {text!r}")
    slots = options.get("s", DEFAULT_SLOTS) if kind is Kind.EXTERNAL else None
    form = _forms(options, frozenset({kind}), text).get(kind)
    return LayerChoice(kind, slots, options.get("d"), "cb" in options, form)


_KINDS_WITH_FORMS = frozenset({Kind.LESS, Kind.EXTERNAL})


@dataclass(frozen=True, slots=True)
class LayerEnvelope:
    """What one layer position must be able to do.

    Attributes:
        kinds: every attention branch that some placement puts here.
        max_slots: the most memory slots of an external layer here; 0: no external layer.
        dia_cells: the DIA cells that gate this layer in some placement.
        cb: whether some placement broadcasts context here.
        forms: every form that some placement asks for here, with the kind it belongs to; the
            default form of less and of external attention is None.
    """

    kinds: frozenset[Kind]
    max_slots: int = 0
    dia_cells: frozenset[int] = frozenset()
    cb: bool = False
    forms: frozenset[tuple[Kind, str | None]] = frozenset()

    @property
    def attends_to_tokens(self) -> bool:
        """Whether some placement puts vanilla or less attention here."""
        return bool(self.kinds & {Kind.VANILLA, Kind.LESS})

    def forms_of(self, kind: Kind) -> tuple[str | None, ...]:
        """The forms of layers of `kind` here, the default first."""
        forms = (form for of_kind, form in self.forms if of_kind is kind)
        return tuple(sorted(forms, key=lambda form: form or ""))

    def holds(self, choice: LayerChoice) -> bool:
        """Whether `choice` can be run at this position."""
        return (
            choice.kind in self.kinds
            and (choice.slots or 0) <= self.max_slots
            and (choice.dia is None or choice.dia in self.dia_cells)
            and (self.cb or not choice.cb)
            and (choice.kind not in _KINDS_WITH_FORMS or (choice.kind, choice.form) in self.forms)
        )


@dataclass(frozen=True, slots=True)
class Envelope:
    """The union of placements that one network serves, layer position by layer position.

    Attributes:
        stages: the layer positions of each stage; a placement may use fewer, from the first on.
    """

    stages: tuple[tuple[LayerEnvelope, ...], ...]

    @classmethod
    def of(cls, *placements: Placement) -> Envelope:
        """The smallest envelope over all `placements`.

        Raises:
            InputError: no placement, or placements with different numbers of stages.
        """
        if len({len(placement.stages) for placement in placements}) != 1:
            raise InputError(
                "`an envelope is over placements of equally many stages` must hold, but got "
                + (", ".join(repr(str(p)) for p in placements) or "none")
            )
        return cls(
            tuple(
                tuple(
                    _layer_union([choice for choice in position if choice is not None])
                    for position in itertools.zip_longest(*stages)
                )
                for stages in zip(*(placement.stages for placement in placements), strict=True)
            )
        )

    def union(self, other: Envelope) -> Envelope:
        """The smallest envelope that holds what either holds.

        Raises:
            InputError: they have different numbers of stages.
        """
        if len(self.stages) != len(other.stages):
            raise InputError(
                f"`envelopes that are joined have equally many stages` must hold, but got "
                f"{len(self.stages)} and {len(other.stages)}"
            )
        return Envelope(
            tuple(
                tuple(
                    _join([position for position in both if position is not None])
                    for both in itertools.zip_longest(*stages)
                )
                for stages in zip(self.stages, other.stages, strict=True)
            )
        )

    def check(self, placement: Placement) -> None:
        """Refuse a placement that a network over this envelope cannot run.

        Raises:
            InputError: names the first layer that is outside.
        """
        if len(placement.stages) != len(self.stages):
            raise InputError(
                f"`a placement has the stages of its network` must hold, but {str(placement)!r} "
                f"has {len(placement.stages)} and the network {len(self.stages)}"
            )
        for i, (stage, positions) in enumerate(zip(placement.stages, self.stages, strict=True)):
            if len(stage) > len(positions):
                raise InputError(
                    f"`layers of a stage <= its network's` must hold, but stage {i + 1} of "
                    f"{str(placement)!r} has {len(stage)} layers and the network {len(positions)}"
                )
            for j, (choice, position) in enumerate(zip(stage, positions, strict=False)):
                if not position.holds(choice):
                    raise InputError(
                        f"`a placement lies in its network's envelope` must hold, but layer "
                        f"{j + 1} of stage {i + 1} is {choice} and the network holds {position}"
                    )


def _layer_union(choices: Sequence[LayerChoice]) -> LayerEnvelope:
    return _join(
        [
            LayerEnvelope(
                kinds=frozenset({choice.kind}),
                max_slots=choice.slots or 0,
                dia_cells=frozenset(() if choice.dia is None else (choice.dia,)),
                cb=choice.cb,
                forms=frozenset(
                    ((choice.kind, choice.form),) if choice.kind in _KINDS_WITH_FORMS else ()
                ),
            )
            for choice in choices
        ]
    )


def _join(positions: Sequence[LayerEnvelope]) -> LayerEnvelope:
    return LayerEnvelope(
        kinds=frozenset().union(*(position.kinds for position in positions)),
        max_slots=max(position.max_slots for position in positions),
        dia_cells=frozenset().union(*(position.dia_cells for position in positions)),
        cb=any(position.cb for position in positions),
        forms=frozenset().union(*(position.forms for position in positions)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismOptions:
    """Forms of the mechanisms that hold for a whole network.

    Attributes:
        external_expansion: c, by which the multi-head form of external attention widens the
            query and multiplies the heads.
        broadcasting_form: plain context broadcasting, or with a learned scale per channel.
        dia_reduction: r of the DIA cell's bottleneck, floor(D / r) channels.
        dia_start: the DIA cell of the `paper`, whose gates start near a quarter, or ours, whose
            gates start at exactly `one`, so that a new unit changes nothing.
        class_token_in_mean: whether prefix tokens enter the token means of CB and DIA.
        handover: whose scores a less-attention layer of shifted windows takes: those of the
            last layer of `equal_shift`, or of the `previous` layer, whose windows lie elsewhere.
        attention_residual: whether the scores at a stage's end, pooled, are added to those of
            the next stage's vanilla layers.

    Raises:
        InputError: a form that does not exist, or a number below 1.
    """

    external_expansion: int = 4
    broadcasting_form: Literal["plain", "scaled"] = "plain"
    dia_reduction: int = 4
    class_token_in_mean: bool = True
    handover: Literal["equal_shift", "previous"] = "equal_shift"
    attention_residual: bool = False
    dia_start: Literal["paper", "one"] = "paper"

    def __post_init__(self) -> None:
        forms = {
            "broadcasting_form": ("plain", "scaled"),
            "class_token_in_mean": (True, False),
            "handover": ("equal_shift", "previous"),
            "attention_residual": (True, False),
            "dia_start": ("paper", "one"),
        }
        for name, known in forms.items():
            value = getattr(self, name)
            if type(value) is not type(known[0]) or value not in known:
                raise InputError(
                    f"`{name}` is one of {', '.join(map(str, known))}, but got {value!r}"
                )
        for name in ("external_expansion", "dia_reduction"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise InputError(
                    f"`{name} >= 1` must hold, but got {name}={getattr(self, name)!r}"
                )

    def changed(self) -> dict[str, Any]:
        """The options that differ from the defaults, by name."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    def to_json(self) -> dict[str, Any]:
        """Every option of `SPEC_FORMAT_VERSION` as it began, and later ones that are changed.

        Later ones are left out where they are the defaults: specs keep the keys of before.
        """
        changed = self.changed()
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name in changed or f.name not in _LATER_OPTIONS
        }


Keyword = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """A backbone without its placement: which timm model, at which size, with which forms.

    Attributes:
        name: timm's model name, or a family's base name such as `vit`.
        keywords: the model's keyword arguments that differ from its defaults, sorted by name.
        image_size: pixels on a side; None: the backbone's own default.
        in_chans: image channels.
        num_classes: classes of the head.
        options: forms of the mechanisms.
    """

    name: str
    keywords: tuple[tuple[str, Keyword], ...] = ()
    image_size: int | None = None
    in_chans: int = 3
    num_classes: int = 1000
    options: MechanismOptions = field(default_factory=MechanismOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(_NAME, self.name):
            raise InputError(f"`a backbone has a name` must hold, but got {self.name!r}")
        for key, value in self.keywords:
            if not isinstance(value, Keyword):
                raise InputError(
                    f"`a keyword is true, false, a number or a text` must hold, "
                    f"but got {key}={value!r}"
                )
        object.__setattr__(self, "keywords", tuple(sorted(self.keywords)))
        numbers = {"in_chans": self.in_chans, "num_classes": self.num_classes}
        if self.image_size is not None:
            numbers["image_size"] = self.image_size
        for name, number in numbers.items():
            if type(number) is not int or number < 1:
                raise InputError(
                    f"`{name} >= 1` must hold, as a whole number, but got {name}={number!r}"
                )

    @classmethod
    def parse(cls, text: str) -> BackboneSpec:
        """Read `backbone(key=value,...)@image_size`.

        `in_chans`, `num_classes` and the names of `MechanismOptions` are keys beside the
        backbone's own.

        Raises:
            InputError: text that names no backbone, or a key twice.
        """
        match = _SPEC.fullmatch(text)
        if match is None:
            raise InputError(
                f"`a backbone is name(key=value,...)@image_size` must hold, but got {text!r}"
            )
        keywords: dict[str, Keyword] = {}
        for pair in filter(None, (part.strip() for part in (match[2] or "").split(","))):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not key.isidentifier() or not value:
                raise InputError(f"`keys are written key=value` must hold, but got {pair!r}")
            if key in keywords:
                raise InputError(f"`a key stands once` must hold, but {text!r} repeats {key}")
            keywords[key] = _parse_keyword(value)
        option_names = {f.name for f in fields(MechanismOptions)}
        options: dict[str, Any] = {
            key: keywords.pop(key) for key in list(keywords) if key in option_names
        }
        own: dict[str, Any] = {}
        for key in ("in_chans", "num_classes"):
            if key in keywords:
                own[key] = keywords.pop(key)
        return cls(
            name=match[1],
            keywords=tuple(keywords.items()),
            image_size=int(match[3]) if match[3] else None,
            options=MechanismOptions(**options),
            **own,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field, the options as `MechanismOptions.to_json`."""
        return {
            "name": self.name,
            "keywords": dict(self.keywords),
            "image_size": self.image_size,
            "in_chans": self.in_chans,
            "num_classes": self.num_classes,
            "options": self.options.to_json(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> BackboneSpec:
        """The inverse of `to_json`.

        Raises:
            InputError: unknown or missing fields, or values out of range.
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
                f"`a backbone has the fields {', '.join(f.name for f in fields(cls))}` "
                f"must hold, but got {document!r}"
            ) from error

    def __str__(self) -> str:
        keys: dict[str, Keyword] = {**dict(self.keywords), **self.options.changed()}
        if self.in_chans != 3:
            keys["in_chans"] = self.in_chans
        if self.num_classes != 1000:
            keys["num_classes"] = self.num_classes
        inside = ",".join(f"{key}={_keyword_text(keys[key])}" for key in sorted(keys))
        size = "" if self.image_size is None else f"@{self.image_size}"
        return f"{self.name}{f'({inside})' if inside else ''}{size}"


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
    """Everything that defines a network up to its weights; its `key` names it in the database.

    Attributes:
        backbone: the backbone with its size and forms.
        placement: what each layer does.
    """

    backbone: BackboneSpec
    placement: Placement

    @classmethod
    def parse(cls, text: str) -> NetworkSpec:
        """Read `backbone(key=value,...)@image_size: placement`, or the name of a network.

        Raises:
            InputError: text that means no network.
        """
        backbone, colon, placement = LAVIT_LIKE.get(text.strip(), text).partition(":")
        if not colon:
            raise InputError(
                f"`a network is backbone: placement, or one of {', '.join(LAVIT_LIKE)}` must "
                f'hold, but got {text!r}; write for example "deit_tiny_patch16_224: V6L6/cb"'
            )
        return cls(BackboneSpec.parse(backbone), Placement.parse(placement))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary: format version, backbone, placement."""
        return {
            "format": SPEC_FORMAT_VERSION,
            "backbone": self.backbone.to_json(),
            "placement": self.placement.to_json(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> NetworkSpec:
        """The inverse of `to_json`; the placement may be text as well.

        Raises:
            InputError: another format version, missing fields, or values that mean no network.
        """
        version = document.get("format") if isinstance(document, dict) else document
        if type(version) is not int or version not in (1, SPEC_FORMAT_VERSION):
            raise InputError(
                f"`a network spec has format {SPEC_FORMAT_VERSION}` must hold, but got {version!r}"
            )
        if version == 1:
            document = _from_format_1(document)
        try:
            backbone, placement = document["backbone"], document["placement"]
        except KeyError as error:
            raise InputError(f"`a network spec has a {error.args[0]}` must hold") from error
        return cls(
            BackboneSpec.from_json(backbone),
            Placement.parse(placement)
            if isinstance(placement, str)
            else Placement.from_json(placement),
        )

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON, in hexadecimal."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.backbone}: {self.placement}"


def _from_format_1(document: dict[str, Any]) -> dict[str, Any]:
    """A spec of format 1, where one option gave all external layers their form, in format 2."""
    backbone = document.get("backbone")
    if not isinstance(backbone, dict) or not isinstance(backbone.get("options", {}), dict):
        return document
    options = dict(backbone.get("options", {}))
    external_form = options.pop("external_form", "single")
    if external_form != "single":
        raise InputError(
            f"`a spec of format 1 has single-head external layers` must hold, since the weights "
            f"of others had other names, but got external_form={external_form!r}; write the "
            f"network with /mea and train it again"
        )
    return {**document, "backbone": {**backbone, "options": options}}
