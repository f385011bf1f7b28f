"""Checks which placements a backbone's sizes allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from sharedattn.errors import InputError
from sharedattn.mechanisms.interface import SCORES, Branch, Channel, Options
from sharedattn.mechanisms.registry import gate_of, registry
from sharedattn.mechanisms.residual import pooling_ratios
from sharedattn.networks.state import Held, Key
from sharedattn.placement import (
    Envelope,
    LayerChoice,
    MechanismOptions,
    Placement,
    makers_of,
)
from sharedattn.shape import AttentionShape, BackboneShape, StageShape

MAX_EXTERNAL_EXPANSION = 10**6
"""Largest factor by which external attention's multi-head form may widen its query."""


def check_options(shape: BackboneShape, options: MechanismOptions) -> None:
    """Check that options are meaningful on a backbone.

    Args:
        shape: the backbone's sizes, independent of the options.
        options: options of its mechanisms.

    Raises:
        InputError: `handover` is set although all layers share scores anyway; means exclude
            prefix tokens that do not exist; `gate_norm` is set although all branches end with a
            norm; an attention residual spans a single stage, windows,
            or grids that do not divide; or an expansion exceeds `MAX_EXTERNAL_EXPANSION`.
    """
    if options.external_expansion > MAX_EXTERNAL_EXPANSION:
        raise InputError(
            f"`external_expansion` is {options.external_expansion}, and at most "
            f"{MAX_EXTERNAL_EXPANSION:,}"
        )
    if not options.class_token_in_mean and not any(s.num_prefix_tokens for s in shape.stages):
        raise InputError(
            "`class_token_in_mean` is false on a backbone without prefix tokens, which it is "
            "about; leave it out"
        )
    if options.handover != "equal_shift" and not any(
        stage.attention.score_groups for stage in shape.stages
    ):
        raise InputError(
            f"`handover` is {options.handover} on a backbone without shifted windows, which it "
            f"is about; leave it out"
        )
    if options.gate_norm and not any(
        stage.convolution is not None and stage.convolution.pre_activated for stage in shape.stages
    ):
        raise InputError(
            "`gate_norm` is set on a backbone without pre-activation blocks, which it is about; "
            "leave it out"
        )
    if options.attention_residual and any(stage.convolution for stage in shape.stages):
        raise InputError(
            "`attention_residual` hands on scores of attention, and blocks of convolutions have "
            "none; leave it out"
        )
    if options.attention_residual:
        try:
            if len(shape.stages) == 1:
                raise ValueError("there is one stage")
            for before, stage in zip(shape.stages, shape.stages[1:], strict=False):
                pooling_ratios(before, stage)
        except ValueError as error:
            raise InputError(
                f"`attention_residual` pools scores from stage to stage, but {error}; leave it "
                f"out, or choose an image size whose grids divide"
            ) from error


def used_options(
    shape: BackboneShape, options: MechanismOptions, placement: Placement
) -> MechanismOptions:
    """The options of a placement's network, with unused ones reset to their defaults.

    Args:
        shape: the backbone's sizes, independent of the options.
        options: options of the mechanisms.
        placement: a placement that the backbone supports with these options.
    """
    used = {"attention_residual"}
    for stage, choices in zip(shape.stages, placement.stages, strict=True):
        for choice in choices:
            used |= choice.branch.used_network_options(choice.options)
            if choice.gate is not None:
                used |= gate_of(choice.gate.gate).network_options
                if stage.convolution is not None and stage.convolution.pre_activated:
                    used.add("gate_norm")
            if choice.cb:
                used.add("broadcasting_form")
            if (choice.cb or choice.gate is not None) and stage.num_prefix_tokens:
                used.add("class_token_in_mean")
        alike = replace(stage.attention, score_groups=())
        if _sources(stage.attention, choices) != _sources(alike, choices):
            used.add("handover")
    default = MechanismOptions()
    unused = [f.name for f in fields(options) if f.name not in used]
    return replace(options, **{name: getattr(default, name) for name in unused})


def _sources(
    sizes: AttentionShape, choices: tuple[LayerChoice, ...]
) -> list[tuple[int, str, int]]:
    """For each layer and channel that it takes, the layer that it takes from."""
    last: dict[Key, int] = {}
    sources = []
    for j, choice in enumerate(choices):
        branch = choice.branch
        for channel in branch.takes:
            # With nothing to take, the source is an impossible layer number.
            key = channel.name, channel.group(sizes, j)
            sources.append((j, channel.name, last.get(key, -1)))
        for channel in branch.leaves:
            last[channel.name, channel.group(sizes, j)] = j
    return sources


def check_whole(stage: StageShape, num_layers: int) -> None:
    """Check that a stage has all layers of the backbone, if its layers cannot be left out.

    Raises:
        InputError: it has fewer; the message says how many it has.
    """
    if stage.is_whole and num_layers < stage.max_depth:
        raise InputError(
            f"a stage has {num_layers} of its {stage.max_depth} layers, but the decoder of a UNet "
            f"takes what each layer of the encoder gives; write all {stage.max_depth}, those "
            f"without attention as N"
        )


def canonical_placement(shape: BackboneShape, placement: Placement) -> Placement:
    """The placement without its stages' defaults, such as a default form given by name.

    Args:
        shape: the backbone's sizes, with the placement's number of stages.
        placement: a placement that the backbone supports.
    """
    return Placement(
        tuple(
            tuple(canonical_choice(stage, choice) for choice in choices)
            for stage, choices in zip(shape.stages, placement.stages, strict=True)
        )
    )


def canonical_envelope(shape: BackboneShape, envelope: Envelope) -> Envelope:
    """The envelope without its stages' defaults.

    A default form, given by name or left out, is then one form with one set of weights.

    Args:
        shape: the backbone's sizes, with the envelope's number of stages.
        envelope: an envelope that the backbone supports.
    """
    return Envelope(
        tuple(
            tuple(
                replace(
                    position,
                    branches=frozenset(
                        (branch.letter, branch.canonical(form, stage))
                        for branch, form, _ in position.forms()
                    ),
                )
                for position in positions
            )
            for stage, positions in zip(shape.stages, envelope.stages, strict=True)
        )
    )


def canonical_choice(stage: StageShape, choice: LayerChoice) -> LayerChoice:
    """The choice without its stage's defaults."""
    options = choice.branch.canonical(choice.options, stage)
    return choice if options == choice.options else replace(choice, options=options)


def check_placement(shape: BackboneShape, options: MechanismOptions, placement: Placement) -> None:
    """Check that a backbone supports a placement whose stages and depths fit.

    Raises:
        InputError: a stage lacks layers that others take from; a layer has nothing to take in its
            group; one is left out that changes the shape; a branch (such as maps that are too
            large) or a gate does not fit its stage; or no layer of a stage takes the attention
            residual. The message names the layer or stage, and what fits.
    """
    for i, (stage, choices) in enumerate(zip(shape.stages, placement.stages, strict=True)):
        left: set[Key] = set()
        try:
            check_whole(stage, len(choices))
        except InputError as error:
            raise InputError(f"stage {i + 1} of {str(placement)!r}: {error}") from error
        for j, choice in enumerate(choices):
            where = f"layer {j + 1} of stage {i + 1} of {str(placement)!r}"
            if choice.is_absent and j < stage.num_kept:
                raise InputError(
                    f"{where} is left out ({choice.kind}), but a stage's first block changes the "
                    f"shape of what it is given; make it {_letters_on_convolutions()[0]}"
                )
            for channel in choice.branch.takes:
                if (channel.name, channel.group(stage.attention, j)) not in left:
                    raise InputError(_nothing_to_take(where, channel))
            left |= left_keys(stage.attention, choice, j)
            try:
                check_choice(stage, options, choice)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
        if options.attention_residual and not any(c.branch.adds_residual for c in choices):
            takers = [b.letter for b in registry().branches.values() if b.adds_residual]
            raise InputError(
                f"stage {i + 1} of {str(placement)!r} has no {' or '.join(takers)}, which "
                f"`attention_residual` adds the scores of the stage before to; put one there"
            )


def _nothing_to_take(where: str, channel: Channel) -> str:
    return (
        f"{where} reuses the {channel.name} of a layer of equal shift before it in its stage, and "
        f"there is none; make it {' or '.join(makers_of(channel))}, or take the previous layer's "
        f"with handover=previous"
    )


def taken_keys(sizes: AttentionShape, choice: LayerChoice, index: int) -> frozenset[Key]:
    """The channels and groups in which a layer takes what an earlier one left."""
    return frozenset(
        (channel.name, channel.group(sizes, index)) for channel in choice.branch.takes
    )


def left_keys(sizes: AttentionShape, choice: LayerChoice, index: int) -> frozenset[Key]:
    """The channels and groups in which a layer leaves something for later ones."""
    return frozenset(
        (channel.name, channel.group(sizes, index)) for channel in choice.branch.leaves
    )


def check_choice(stage: StageShape, options: MechanismOptions, choice: LayerChoice) -> None:
    """Check that a layer's branch and gate fit its stage.

    Raises:
        InputError: one does not fit; the message says what does.
    """
    check_branch(stage, options, choice.branch, choice.options)
    if choice.cb:
        check_broadcasting(stage)
    if choice.gate is not None:
        gate_of(choice.gate.gate).check(stage, options)


def check_branch(
    stage: StageShape, network_options: MechanismOptions, branch: Branch, options: Options
) -> None:
    """Check that a branch with options fits a stage.

    Raises:
        InputError: it does not; the message says what does.
    """
    if stage.convolution is not None and not branch.fits_convolutions:
        known = registry().branches
        fitting = [_title_on_convolutions(known[x]) for x in _letters_on_convolutions()]
        raise InputError(
            f"kind {branch.letter} ({branch.title}) takes the place of attention, which a "
            f"residual block of convolutions does not have; write {' or '.join(fitting)}"
        )
    if stage.is_whole and not branch.feeds_forward:
        raise InputError(
            f"kind {branch.letter} ({branch.title}) leaves out more than attention, but the "
            f"decoder of a UNet takes what each layer of the encoder gives; write N for a "
            f"residual block without attention"
        )
    branch.check(options, stage, network_options)


def check_broadcasting(stage: StageShape) -> None:
    """Check that a stage's layers can broadcast context.

    Raises:
        InputError: they are blocks of convolutions.
    """
    if stage.convolution is not None:
        raise InputError(
            "context broadcasting mixes tokens at the end of an MLP, which a residual block of "
            "convolutions does not have; drop the /cb, which layers of transformers have"
        )


def _title_on_convolutions(branch: Branch) -> str:
    title = f"the block, then {branch.title}" if branch.follows_convolutions else branch.title
    is_plain = not (branch.is_absent or branch.follows_convolutions)
    return f"{branch.letter} ({'the block as it came' if is_plain else title})"


def _letters_on_convolutions() -> list[str]:
    """Letters of the kinds that fit, the block as it came first."""
    fitting = [b for b in registry().by_rank if b.fits_convolutions]
    return [b.letter for b in sorted(fitting, key=lambda b: b.follows_convolutions)]


def check_diagonality(shape: BackboneShape, envelope: Envelope) -> None:
    """Check that maps of less attention have a diagonal, for the diagonality term.

    Args:
        shape: the backbone's sizes.
        envelope: the placements to check.

    Raises:
        InputError: a stage with less attention has fewer keys than queries in its windows.
    """
    for i, (stage, positions) in enumerate(zip(shape.stages, envelope.stages, strict=True)):
        n, m = stage.attention.num_queries, stage.attention.num_keys
        kinds = {b.letter for p in positions for b in p.kinds if b.has_diagonality}
        if n != m and kinds:
            raise InputError(
                f"`diagonality_weight` concerns maps with as many keys as queries, and "
                f"{' and '.join(sorted(kinds))} in stage {i + 1} has {n} queries and {m} keys; "
                f"train with diagonality_weight=0, or without it there"
            )


def held_after(
    sizes: AttentionShape, choices: Sequence[LayerChoice], index: int, *, handed_on: bool
) -> Held:
    """The state after layer `index` of a stage that later layers take.

    Values left in a channel are held if the next layer of the group that touches the channel takes
    them; a valid placement has made them by then. Scores that no further layer touches are held if
    the next stage takes them.

    Args:
        sizes: sizes of the stage's attention.
        choices: the stage's layers.
        index: index of the layer.
        handed_on: whether the next stage takes the stage's last scores.
    """
    next_takes: dict[Key, bool] = {}
    cells: set[Key] = set()
    for j in range(index + 1, len(choices)):
        branch = choices[j].branch
        for channel in branch.takes:
            next_takes.setdefault((channel.name, channel.group(sizes, j)), True)
        for key in left_keys(sizes, choices[j], j):
            next_takes.setdefault(key, False)
        gate = choices[j].gate
        if gate is not None:
            cells.add(gate)
    held = {key for key, takes in next_takes.items() if takes}
    if handed_on and not any(name == SCORES.name for name, _ in next_takes):
        made = [left_keys(sizes, choice, j) for j, choice in enumerate(choices[: index + 1])]
        held |= {key for keys in made for key in keys if key[0] == SCORES.name}
    residual = any(choice.branch.adds_residual for choice in choices[index + 1 :])
    return Held(frozenset(held | cells), residual)
