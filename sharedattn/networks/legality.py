"""What a backbone's sizes let a placement be, beyond what makes any placement valid."""

from __future__ import annotations

from dataclasses import replace

from sharedattn.errors import InputError
from sharedattn.mechanisms.less import map_params
from sharedattn.mechanisms.residual import pooling_ratios
from sharedattn.placement import Envelope, Kind, LayerChoice, MechanismOptions, Placement, rank_of
from sharedattn.placement.shape import AttentionShape, BackboneShape, StageShape

MAX_MAP_PARAMS = 2**21
"""The most parameters of one map over tokens, 1,448 tokens squared. Psi over the 3,136 tokens of a
pyramid's first stage has 9.8 M: more than many a backbone."""


MAX_EXTERNAL_EXPANSION = 10**6
"""The most that the multi-head form of external attention may widen its query by."""


def check_options(shape: BackboneShape, options: MechanismOptions) -> None:
    """Refuse options that mean nothing on a backbone.

    Args:
        shape: the backbone's sizes, whatever the options.
        options: the forms of its mechanisms.

    Raises:
        InputError: another hand-over where all layers share scores anyway; means without prefix
            tokens where there are none; an attention residual over a single stage, over windows,
            or over grids that do not divide; an expansion beyond `MAX_EXTERNAL_EXPANSION`.
    """
    if options.external_expansion > MAX_EXTERNAL_EXPANSION:
        raise InputError(
            f"`external_expansion <= {MAX_EXTERNAL_EXPANSION:,}` must hold, but got "
            f"external_expansion={options.external_expansion}"
        )
    if not options.class_token_in_mean and not any(s.num_prefix_tokens for s in shape.stages):
        raise InputError(
            "`class_token_in_mean concerns backbones with prefix tokens` must hold, but got "
            "class_token_in_mean=false on a backbone without them; leave it out"
        )
    if options.handover != "equal_shift" and not any(
        stage.attention.score_groups for stage in shape.stages
    ):
        raise InputError(
            f"`handover concerns backbones with shifted windows` must hold, but got "
            f"handover={options.handover} on a backbone without them; leave it out"
        )
    if options.attention_residual:
        try:
            if len(shape.stages) == 1:
                raise ValueError("there is one stage")
            for before, stage in zip(shape.stages, shape.stages[1:], strict=False):
                pooling_ratios(before, stage)
        except ValueError as error:
            raise InputError(
                f"`attention_residual pools scores from stage to stage` must hold, but {error}; "
                f"leave it out, or choose an image size whose grids divide"
            ) from error


def used_options(
    shape: BackboneShape, options: MechanismOptions, placement: Placement
) -> MechanismOptions:
    """The options of a placement's network: those that none of its layers uses are the defaults.

    Args:
        shape: the backbone's sizes, whatever the options.
        options: forms of the mechanisms.
        placement: one that the backbone can carry under these options.
    """
    layers, default = placement.layers, MechanismOptions()
    with_means = [
        any(choice.cb or choice.dia is not None for choice in choices) and stage.num_prefix_tokens
        for stage, choices in zip(shape.stages, placement.stages, strict=True)
    ]
    taken_alike = all(
        _score_sources(stage.attention, choices)
        == _score_sources(replace(stage.attention, score_groups=()), choices)
        for stage, choices in zip(shape.stages, placement.stages, strict=True)
    )
    unused = {
        "external_expansion": not any(choice.form == "mea" for choice in layers),
        "broadcasting_form": not any(choice.cb for choice in layers),
        "dia_reduction": all(choice.dia is None for choice in layers),
        "dia_start": all(choice.dia is None for choice in layers),
        "class_token_in_mean": not any(with_means),
        "handover": taken_alike,
    }
    return replace(options, **{key: getattr(default, key) for key in unused if unused[key]})


def _score_sources(
    sizes: AttentionShape, choices: tuple[LayerChoice, ...]
) -> tuple[int | None, ...]:
    """Per layer of a stage, the layer whose scores it takes; None: it is not less attention."""
    last: dict[int, int] = {}
    sources: list[int | None] = []
    for j, choice in enumerate(choices):
        group = sizes.score_group(j)
        # Without scores to take, the source is a layer that cannot be.
        sources.append(last.get(group, -1) if choice.kind is Kind.LESS else None)
        if choice.kind in (Kind.VANILLA, Kind.LESS):
            last[group] = j
    return tuple(sources)


def canonical_placement(shape: BackboneShape, placement: Placement) -> Placement:
    """The placement with a less layer's form left out where it is its stage's default.

    Args:
        shape: the backbone's sizes, with as many stages as the placement.
        placement: any placement that the backbone can hold.
    """
    return Placement(
        tuple(
            tuple(canonical_choice(stage, choice) for choice in choices)
            for stage, choices in zip(shape.stages, placement.stages, strict=True)
        )
    )


def canonical_envelope(shape: BackboneShape, envelope: Envelope) -> Envelope:
    """The envelope with a less layer's form left out where it is its stage's default.

    A form said by name and left out is then one form, with one set of weights.

    Args:
        shape: the backbone's sizes, with as many stages as the envelope.
        envelope: any envelope that the backbone can hold.
    """
    return Envelope(
        tuple(
            tuple(
                replace(
                    position,
                    forms=frozenset(
                        (kind, None if form == stage.attention.default_form else form)
                        for kind, form in position.forms
                    ),
                )
                for position in positions
            )
            for stage, positions in zip(shape.stages, envelope.stages, strict=True)
        )
    )


def canonical_choice(stage: StageShape, choice: LayerChoice) -> LayerChoice:
    """The choice with a less layer's form left out where it is its stage's default."""
    if choice.kind is Kind.LESS and choice.form == stage.attention.default_form:
        return replace(choice, form=None)
    return choice


def map_form(stage: StageShape, choice: LayerChoice) -> str:
    """The maps of a less layer, the default said by name."""
    return choice.form or stage.attention.default_form


def check_placement(shape: BackboneShape, options: MechanismOptions, placement: Placement) -> None:
    """Refuse a placement that a backbone cannot carry, though it has the stages and layers.

    Raises:
        InputError: a less layer whose group has no scores yet, or maps that are too large; a
            stage without V under the attention residual; a DIA unit without a channel between.
            Names the layer or stage, and what fits.
    """
    for i, (stage, choices) in enumerate(zip(shape.stages, placement.stages, strict=True)):
        have_scores: set[int] = set()
        for j, choice in enumerate(choices):
            group = stage.attention.score_group(j)
            if choice.kind is Kind.VANILLA:
                have_scores.add(group)
            if choice.kind is not Kind.LESS:
                continue
            if group not in have_scores:
                raise InputError(
                    f"`a less-attention layer reuses the scores of a layer of equal shift before "
                    f"it in its stage` must hold, but layer {j + 1} of stage {i + 1} of "
                    f"{str(placement)!r} has none; make it a V, or take the previous layer's "
                    f"with handover=previous"
                )
            try:
                check_maps(stage, choice)
            except InputError as error:
                raise InputError(
                    f"layer {j + 1} of stage {i + 1} of {str(placement)!r}: {error}"
                ) from error
        if options.attention_residual and Kind.VANILLA not in {c.kind for c in choices}:
            raise InputError(
                f"`with attention_residual each stage has a V` must hold, but stage {i + 1} of "
                f"{str(placement)!r} has none; add one"
            )
        if any(choice.dia is not None for choice in choices):
            try:
                check_dia(stage, options)
            except InputError as error:
                raise InputError(f"stage {i + 1} of {str(placement)!r}: {error}") from error


def check_dia(stage: StageShape, options: MechanismOptions) -> None:
    """Refuse a stage's DIA units where nothing is left of their bottleneck.

    Raises:
        InputError: a reduction above the stage's width. Names the most that fits.
    """
    if options.dia_reduction > stage.embed_dim:
        raise InputError(
            f"`dia_reduction <= embed_dim` must hold, but got "
            f"dia_reduction={options.dia_reduction} where embed_dim={stage.embed_dim}; the most "
            f"that fits is dia_reduction={stage.embed_dim}"
        )


def check_maps(stage: StageShape, choice: LayerChoice) -> None:
    """Refuse a less layer whose maps do not fit its stage.

    Raises:
        InputError: a map beyond `MAX_MAP_PARAMS`, or a rank beyond the tokens.
    """
    form = map_form(stage, choice)
    n, m = stage.attention.num_queries, stage.attention.num_keys
    rank = rank_of(form)
    if rank is not None:
        if rank > min(n, m):
            raise InputError(
                f"`rank <= tokens` must hold, but got /{form} on {n} queries and {m} keys; the "
                f"most that fits is /lowrank{min(n, m)}"
            )
        return
    largest = {"full": max(n, m), "keys": m, "reuse": 0}[form]
    if largest**2 > MAX_MAP_PARAMS:
        fitting = "/keys" if m**2 <= MAX_MAP_PARAMS else "/lowrank16 or /reuse"
        raise InputError(
            f"`a map has at most {MAX_MAP_PARAMS:,} parameters` must hold, but /{form} over "
            f"{largest:,} tokens has {largest**2:,} ({map_params(form, n, m):,} in all); write "
            f"{fitting}"
        )


def check_diagonality(shape: BackboneShape, envelope: Envelope) -> None:
    """Refuse the diagonality term where maps of less attention have no diagonal.

    Args:
        shape: the backbone's sizes.
        envelope: the placements that are meant.

    Raises:
        InputError: less attention in a stage whose windows have fewer keys than queries.
    """
    for i, (stage, positions) in enumerate(zip(shape.stages, envelope.stages, strict=True)):
        n, m = stage.attention.num_queries, stage.attention.num_keys
        if n != m and any(Kind.LESS in position.kinds for position in positions):
            raise InputError(
                f"`the diagonality term is of maps with a diagonal, with as many keys as queries` "
                f"must hold, but less attention in stage {i + 1} has {n} queries and {m} keys; "
                f"train with diagonality_weight=0, or without L there"
            )


def held_groups(
    sizes: AttentionShape, choices: tuple[LayerChoice, ...], index: int, *, handed_on: bool
) -> frozenset[int]:
    """Groups of a stage's layers whose scores are held after layer `index`.

    A group's scores are held where its next layer that attends to tokens is less attention: in a
    valid placement they have been made by then. Without such a layer they are held where the next
    stage takes them.

    Args:
        sizes: of the stage's attention.
        choices: the stage's layers.
        index: of a layer.
        handed_on: whether the next stage takes the stage's last scores.
    """
    attends = (Kind.VANILLA, Kind.LESS)
    next_kind: dict[int, Kind] = {}
    for j in range(index + 1, len(choices)):
        if choices[j].kind in attends:
            next_kind.setdefault(sizes.score_group(j), choices[j].kind)
    held = {group for group, kind in next_kind.items() if kind is Kind.LESS}
    if handed_on and not next_kind:
        held |= {
            sizes.score_group(j) for j, c in enumerate(choices[: index + 1]) if c.kind in attends
        }
    return frozenset(held)


def held_residual(choices: tuple[LayerChoice, ...], index: int) -> bool:
    """Whether a stage's attention residual is held after layer `index`: a later V adds it.

    Args:
        choices: the stage's layers.
        index: of a layer.
    """
    return any(choice.kind is Kind.VANILLA for choice in choices[index + 1 :])


def held_cells(choices: tuple[LayerChoice, ...], index: int) -> frozenset[int]:
    """DIA cells whose h and c are held after layer `index`: later layers of the stage call them.

    Args:
        choices: the stage's layers.
        index: of a layer.
    """
    return frozenset(choice.dia for choice in choices[index + 1 :] if choice.dia is not None)
