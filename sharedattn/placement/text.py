"""Parse and write the text form of a stage.

First the layers in order, run-length encoded (`E1V2L3N1`), then options that expand to the layers:
those of branches, such as `/s16` for memory slots, `/mea` for external attention's multi-head
form, and `/keys`, `/full`, `/lowrankR` or `/reuse` for the maps of less attention; those of gates,
such as `/dia2` for two contiguous groups of layers, or `/se` for a unit in each; `/cb` or `/cbK`
for context broadcasting in all or the last K layers. Layers that this cannot express are written
one by one with commas: `E/s16,E/s64/cb,V/d0,L/keys/d0`.

A mask after a gate tells which layers it gates, as in `V4/dia1[1011]`: groups are of these, and
what a group carries passes the others by. Such a stage is written in the long form.

Layers that are left out, as in `V2X1V1/dia2/cb2`, have neither and are not counted by either, nor
by masks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import Branch, Gate, NumberOption, Option, Options
from sharedattn.mechanisms.registry import branch_of, registry
from sharedattn.placement.layer import (
    GateCell,
    LayerChoice,
    gate_runs,
    num_present,
    with_stage_options,
)

_RESERVED_OPTION = re.compile(r"cbs|r\d+")
_MASKED_OPTION = re.compile(r"/([a-z]+)(\d*)\[([^\]/]*)\]")
_SHORT_STAGE = re.compile(r"((?:[A-Z]\d+)+)((?:/[^/]*)*)")
_LONG_LAYER = re.compile(r"([A-Z])((?:/[^/]*)*)")

_Said = dict[str, int | None]
"""Codes in a text, with the number of each."""


def parse_layer(text: str) -> LayerChoice:
    """Parse one layer of the long form, such as `E/s16/d0/cb`, keeping its cell's number.

    Raises:
        InputError: the text is not a layer.
    """
    compact = re.sub(r"\s+", "", text)
    return _parse_layer(compact, compact)


def parse_stage(text: str) -> tuple[LayerChoice, ...]:
    """Parse one stage, in the short or the long form.

    Raises:
        InputError: the text is not a stage; the message names the faulty part.
    """
    compact = re.sub(r"\s+", "", text)
    if "," in compact or _LONG_LAYER.fullmatch(compact):
        return tuple(_parse_layer(part, text) for part in compact.split(","))
    match = _SHORT_STAGE.fullmatch(compact)
    if match is None:
        raise InputError(
            f"{text!r} is no stage; write layers with their number and options, such as "
            f"V2L1/dia1/cb, or layers one by one with commas, such as V/d0,L/d0"
        )
    kinds = [
        _known(letter, text).letter
        for letter, count in re.findall(r"([A-Z])(\d+)", match[1])
        for _ in range(_bounded_count(count, text))
    ]
    plain, mask = _split_mask(match[2], text)
    groups = {
        gate.code: r"\d{0,9}" if gate.one_per_layer else r"\d{1,9}"
        for gate in registry().gates_by_rank
    }
    said = _parse_options(plain, text, {**_branch_codes(), **groups, "cb": r"\d{0,9}"})
    options = _options(said, dict.fromkeys(kinds), text)
    layers = tuple(LayerChoice(kind, options[kind]) for kind in kinds)
    depth = num_present(layers)
    if not depth:
        return layers  # Placements refuse such a stage and name it.
    with_cb = 0
    if "cb" in said:
        number = said["cb"]
        with_cb = depth if number is None else number
    if with_cb > depth:
        raise InputError(
            f"{text!r} has {depth} layers, fewer than /cb{with_cb} says; write /cb for all of them"
        )
    return with_stage_options(layers, _group_cells(said, mask, depth, text), with_cb)


def stage_text(stage: tuple[LayerChoice, ...]) -> str:
    """The short form if it gives the same layers, else the layers one by one."""
    options = {kind: {x.options for x in stage if x.kind == kind} for kind in _kinds(stage)}
    present = [layer for layer in stage if not layer.is_absent]
    cells = [layer.gate for layer in present]
    gates = {cell.gate for cell in cells if cell is not None}
    with_cb = sum(layer.cb for layer in present)
    short = (
        all(len(of_kind) == 1 for of_kind in options.values())
        and len(gates) <= 1
        and all(layer.cb for layer in present[len(present) - with_cb :])
    )
    gate_text = ""
    if short and gates:
        [name] = gates
        num_groups = len(set(cells) - {None})
        runs = gate_runs(len(present), num_groups)
        short = cells == [GateCell(name, cell) for cell in runs]
        gate = registry().gates[name]
        every = gate.one_per_layer and num_groups == len(present)
        gate_text = gate.code if every else f"{gate.code}{num_groups}"
    if not short:
        return ",".join(str(layer) for layer in stage)
    runs_text = "".join(
        f"{kind}{len(list(run))}" for kind, run in itertools.groupby(x.kind for x in stage)
    )
    said = {kind: dict(of_kind.pop()) for kind, of_kind in options.items()}
    codes = [
        option.text(said[branch.letter].get(option.name))
        for branch, option in _ordered_options()
        if branch.letter in said
    ]
    cb_text = "" if not with_cb else "cb" if with_cb == len(present) else f"cb{with_cb}"
    return "/".join((runs_text, *filter(None, (*codes, gate_text, cb_text))))


def _kinds(stage: Iterable[LayerChoice]) -> dict[str, None]:
    return dict.fromkeys(layer.kind for layer in stage)


def _ordered_options() -> list[tuple[Branch, Option]]:
    """Options of all branches in the order of text: numbers, then forms, each by rank."""
    every = [(branch, option) for branch in registry().by_rank for option in branch.options]
    return sorted(every, key=lambda pair: not isinstance(pair[1], NumberOption))


def _branch_codes() -> dict[str, str]:
    return {code: pattern for _, o in _ordered_options() for code, pattern in o.codes.items()}


def _known(letter: str, text: str) -> Branch:
    try:
        return branch_of(letter)
    except InputError as error:
        raise InputError(f"{text!r}: {error}") from None


def _parse_options(options: str, text: str, allowed: Mapping[str, str]) -> _Said:
    """Options of `text` as numbers by code, None for a code without number.

    Args:
        options: the text from the first slash on.
        text: the stage or layer of the options, for messages.
        allowed: pattern of the number, by code.
    """
    found: _Said = {}
    for option in options.split("/")[1:]:
        match = re.fullmatch(r"([a-z]+)(\d*)", option)
        known = match is not None and match[1] in allowed
        if match is None or not known or not re.fullmatch(allowed[match[1]], match[2]):
            if _RESERVED_OPTION.fullmatch(option):
                raise InputError(
                    f"`/{option}` in {text!r} is reserved for a form that does not exist yet"
                )
            if match is not None and known:
                example = f"a number, such as /{match[1]}1" if not match[2] else "another number"
                fits = f"with {example}" if allowed[match[1]] else "without a number"
                raise InputError(f"`/{option}` in {text!r} stands {fits}")
            raise InputError(
                f"`/{option}` in {text!r} is no option here; known: "
                + ", ".join(f"/{name}" for name in allowed)
            )
        if match[1] in found:
            raise InputError(f"{text!r} repeats /{match[1]}; an option stands once")
        found[match[1]] = int(match[2]) if match[2] else None
    return found


def _options(said: _Said, kinds: Iterable[str], text: str) -> dict[str, Options]:
    """The options of layers, by kind.

    Raises:
        InputError: an option has no layer of its kind, or two values.
    """
    values: dict[str, dict[str, int | str]] = {kind: {} for kind in kinds}
    for branch, option in _ordered_options():
        codes = [code for code in option.codes if code in said]
        if not codes:
            if branch.letter in values and isinstance(option, NumberOption):
                values[branch.letter][option.name] = option.default
            continue
        found = [option.read(code, said[code]) for code in codes]
        texts = [f"/{option.text(value)}" for value in found]
        if branch.letter not in values:
            raise InputError(
                f"{text!r} says {texts[0]}, which belongs to kind {branch.letter} "
                f"({branch.title}), and has no layer of it; drop the {texts[0]}"
            )
        if len(found) > 1:
            raise InputError(
                f"{text!r} says {' and '.join(texts)}, of which layers of kind {branch.letter} "
                f"have one; drop the other"
            )
        [values[branch.letter][option.name]] = found
    return {kind: tuple(of_kind.items()) for kind, of_kind in values.items()}


def _split_mask(options: str, text: str) -> tuple[str, str | None]:
    """Options without the mask of a gate, and the mask, or None without one.

    Raises:
        InputError: a mask is not of one gate, or not of ones and zeros.
    """
    found = _MASKED_OPTION.findall(options)
    if not found:
        return options, None
    (code, number, mask), *others = found
    gates = {gate.code: gate for gate in registry().gates_by_rank}
    if others or code not in gates:
        raise InputError(
            f"{text!r} has the mask [{(others[0] if others else found[0])[2]}]; a stage has one, "
            f"after one of {', '.join(f'/{known}' for known in gates)}"
        )
    if not re.fullmatch("[01]+", mask) or "1" not in mask:
        raise InputError(
            f"`/{code}{number}[{mask}]` in {text!r} has a mask that is not ones and zeros, with a "
            f"one among them; write for example /{code}{number or 1}[101]"
        )
    if not number and not gates[code].one_per_layer:
        raise InputError(
            f"`/{code}[{mask}]` in {text!r} has no number of groups; write /{code}1[{mask}]"
        )
    return _MASKED_OPTION.sub(r"/\1\2", options), mask


def _group_cells(
    said: _Said, mask: str | None, num_layers: int, text: str
) -> Sequence[GateCell | None]:
    """The cell of each layer, from the number of groups of the one gate given, and its mask."""
    gates = [gate for gate in registry().gates_by_rank if gate.code in said]
    if not gates:
        return [None] * num_layers
    _check_one(gates, [gate.code for gate in gates], text)
    [gate] = gates
    mask = "1" * num_layers if mask is None else mask
    number = said[gate.code]
    if len(mask) != num_layers:
        nearest = mask[:num_layers].ljust(num_layers, "1")
        nearest = nearest if "1" in nearest else "1" * num_layers
        raise InputError(
            f"{text!r} has the mask [{mask}] of {len(mask)} layers on a stage of {num_layers}; "
            f"write one digit for each layer that is not left out, for example "
            f"/{gate.code}{'' if number is None else number}[{nearest}]"
        )
    num_gated = mask.count("1")
    runs = iter(gate_runs(num_gated, num_gated if number is None else number, gate.code))
    return [GateCell(gate.name, next(runs)) if bit == "1" else None for bit in mask]


def _check_one(gates: Sequence[Gate], codes: Sequence[str], text: str) -> None:
    if len(gates) > 1:
        raise InputError(
            f"{text!r} says {' and '.join(f'/{code}' for code in codes)}; a layer has one gate at "
            f"most, so drop the other"
        )


def _bounded_count(count: str, text: str) -> int:
    # This bound, far above any backbone's depth, keeps a typo from filling the memory.
    if len(count) > 4 or not 1 <= int(count) <= 1000:
        raise InputError(f"{text!r} has a run of {count} layers; a run has from 1 to 1000")
    return int(count)


def _parse_layer(part: str, text: str) -> LayerChoice:
    match = _LONG_LAYER.fullmatch(part)
    if match is None:
        raise InputError(
            f"{part!r} in {text!r} is no layer; write a kind and options, such as E/s16/d0/cb"
        )
    kind = _known(match[1], text).letter
    gates = registry().gates_by_rank
    cells = {gate.cell_code: r"\d{1,9}" for gate in gates}
    for gate in gates:
        found_code = re.search(rf"/{gate.code}\d*(?=/|$)", match[2])
        if found_code and gate.code not in cells:
            raise InputError(
                f"`{found_code[0]}` in {text!r} is of a whole stage, and a layer that is written "
                f"by itself names its unit; write {kind}/{gate.cell_code}0"
            )
    said = _parse_options(match[2], text, {**_branch_codes(), **cells, "cb": ""})
    options = _options(said, [kind], part if part == text else f"{part} in {text}")
    found = [gate for gate in gates if gate.cell_code in said]
    _check_one(found, [gate.cell_code for gate in found], text)
    cell = None
    for gate in found:
        number = said[gate.cell_code]
        assert number is not None
        cell = GateCell(gate.name, number)
    return LayerChoice(kind, options[kind], cell, "cb" in said)
