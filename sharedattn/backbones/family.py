"""Description of a backbone family: its timm class, and how to read and run its models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.mechanisms.spatial_reduction import SpatialReductionAttention
from sharedattn.networks.network import Network
from sharedattn.placement import Keyword, LayerEnvelope
from sharedattn.shape import BackboneShape, StageShape, layer_norm_macs
from sharedattn.tasks import CLASSIFY

MAX_NUMBER = 10**6
"""Largest value of a keyword, unless its rule sets another; no real network is wider."""

MAX_LAYERS = 1000
"""Largest number of layers in a stage that a placement's text can express."""


Keywords = Mapping[str, Keyword]
"""The values of all keywords of a family."""


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """A keyword argument of a family's timm class.

    Attributes:
        read: reads the keyword's value from a built model; its type is the keyword's type.
        may_be_zero: whether 0 is valid; a negative number never is.
        to_argument: converts the keyword's value to the model's constructor argument; raises
            `ValueError` for an invalid value.
        per_stage: whether it is one number per stage, joined by dashes; a family with such a
            keyword must have `depths` as one.
        most: largest valid number.
        argument: name of the constructor's argument, if it is not the keyword's.
    """

    read: Callable[[Any], Keyword]
    may_be_zero: bool = False
    to_argument: Callable[[Any], Any] = _unchanged
    per_stage: bool = False
    most: int = MAX_NUMBER
    argument: str = ""


def per_stage(
    read: Callable[[Any], Iterable[float]],
    *,
    whole: bool = True,
    most: int = MAX_NUMBER,
    argument: str = "",
) -> KeywordRule:
    """A keyword with one number per stage, joined by dashes: `depths=2-2-2-2`.

    Args:
        read: reads the numbers from a built model.
        whole: whether they are whole numbers.
        most: largest valid number.
        argument: as in `KeywordRule`.
    """
    return KeywordRule(
        lambda model: stage_numbers(read(model)),
        to_argument=partial(_numbers_of_stages, whole=whole, most=most),
        per_stage=True,
        most=most,
        argument=argument,
    )


def stage_numbers(numbers: Iterable[float]) -> int | float | str:
    """A keyword's value from one number per stage; for a single stage, the number itself.

    Text of a single number would be parsed as a number.
    """
    # Avoid exponents, whose sign would be a dash, and the ".0" of whole numbers.
    texts = [f"{Decimal(str(number)):f}".removesuffix(".0") for number in numbers]
    if len(texts) > 1:
        return "-".join(texts)
    return float(texts[0]) if "." in texts[0] else int(texts[0])


def numbers_of(value: Keyword) -> tuple[int, ...]:
    """The inverse of `stage_numbers`, for whole numbers."""
    return tuple(map(int, str(value).split("-")))


def _numbers_of_stages(value: float | str, *, whole: bool, most: int) -> tuple[float, ...]:
    numbers = []
    for part in value.split("-") if isinstance(value, str) else [str(value)]:
        try:
            number = int(part) if whole else float(part)
        except ValueError:
            number = 0
        if not 0 < number < math.inf:
            kind = "whole number" if whole else "number"
            raise ValueError(f"{value!r} is not one {kind} above 0 per stage, such as 2-2-6-2")
        if number > most:
            raise ValueError(f"{value!r} has a number above {most:,}; lower it")
        numbers.append(number)
    return tuple(numbers)


def mlp_ratio(*widths: tuple[int, int]) -> float:
    """The shortest decimal r with floor(r D) = M, since timm computes M from a ratio.

    M / D itself does not work: rounded, or multiplied by D again, it can fall below M.

    Args:
        widths: D and M of each width that must have this ratio.

    Raises:
        InputError: there is no such ratio.
        InputError: there is none.
    """
    # M <= r D < M + 1 for each width.
    D, M = max(widths, key=lambda width: Fraction(width[1], width[0]))
    if any(Fraction(M, D) >= Fraction(hidden + 1, embed) for embed, hidden in widths):
        sizes = ", ".join(f"{embed} to {hidden}" for embed, hidden in widths)
        raise refuse(f"its MLPs widen {sizes} channels, by no one ratio; raise the ratio")
    from_above = (-(-M * 10**digits // D) for digits in itertools.count())
    ratios = (
        (number + more) / 10**digits for digits, number in enumerate(from_above) for more in (0, 1)
    )
    shortest: float = next(
        ratio for ratio in ratios if all(int(embed * ratio) == hidden for embed, hidden in widths)
    )
    return shortest


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of timm models that are built and run in the same way.

    Attributes:
        base_name: name of `model_class` with its own defaults.
        model_class: timm's class; models of a subclass are refused.
        keywords: the supported keyword arguments, apart from image size, channels and classes.
        describe: reads the sizes of a built model, at an image size if the model does not know its
            own, else None; raises `InputError`, without the model's name, if a part is not
            supported.
        make_network: the family's `Network` class; takes a built model, whose parts it uses, and
            the network's plan.
        names: further names that are not timm's, with their model constructors; under `base_name`,
            the constructor of a class without defaults of its own.
        default_image_size: pixels on a side of square images, of families whose models do not know
            their size, or None if the models take `img_size` and have their own default.
        seen_pixels: for keywords and the length of a side of the image, the number of leading
            pixels along it that affect the all-vanilla network's logits: grids that are rounded
            down ignore the last rows and columns.
        own_head: name of the head that is part of the model; one that is no classifier is the only
            one, and is in `sharedattn.tasks.OWN_HEADS` by the family's names.
    """

    base_name: str
    model_class: type[Any]
    keywords: Mapping[str, KeywordRule]
    describe: Callable[[Any, ImageSize | None], BackboneShape]
    make_network: Callable[..., Network]
    names: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    default_image_size: int | None = None
    seen_pixels: Callable[[Keywords, int], int] = lambda _, side: side
    own_head: str = CLASSIFY

    def read_keywords(self, model: Any) -> dict[str, Keyword]:
        """Read the value of every keyword from a built model."""
        return {key: rule.read(model) for key, rule in self.keywords.items()}


def whole_patches(keywords: Keywords, side: int) -> int:
    """`Family.seen_pixels` for a stem of adjacent square patches."""
    patch_size = keywords["patch_size"]
    assert isinstance(patch_size, int)
    return side // patch_size * patch_size


def refuse(reason: str) -> InputError:
    """The error for a model with an unsupported part."""
    return InputError(f"its blocks are not understood: {reason}")


def require_type(part: str, module: object, *accepted: type) -> None:
    """Check that a part has exactly one of the accepted types."""
    if type(module) not in accepted:
        known = " or ".join(t.__name__ for t in accepted)
        raise refuse(f"{part} is a {type(module).__name__}, understood is {known}")


def require_norm(part: str, norm: Any, *accepted: type) -> None:
    """Check that a norm has an accepted type, and a layer norm scale and shift."""
    require_type(part, norm, *accepted)
    if isinstance(norm, nn.LayerNorm) and (norm.weight is None or norm.bias is None):
        raise refuse(f"{part} has no scale or no shift")


def resample_positions(
    positions_1ND: Tensor, old: tuple[int, int], new: tuple[int, int]
) -> Tensor:
    """Resample the position embeddings of tokens from one grid to another, as timm does.

    Args:
        positions_1ND: (1, N, D), with prefix tokens' first, which are kept.
        old: rows and columns of the current grid.
        new: rows and columns of the target grid.

    Returns:
        (1, N', D).
    """
    resampled: Tensor = resample_abs_pos_embed(
        positions_1ND,
        new_size=list(new),
        old_size=list(old),
        num_prefix_tokens=positions_1ND.shape[1] - old[0] * old[1],
    )
    return resampled


def norm_macs(norm: Any, num_tokens: int) -> int:
    """MACs of a norm over a number of tokens; 0 for the identity."""
    return 0 if isinstance(norm, nn.Identity) else layer_norm_macs(num_tokens, norm.weight.numel())


def weight_macs(module: nn.Module, num_tokens: int) -> int:
    """MACs of modules that use each weight once per token; biases are free."""
    return num_tokens * sum(p.numel() for p in module.parameters() if p.ndim > 1)


def spatial_reduction_attention(
    attention: Any, position: LayerEnvelope, stage: StageShape, *, fused: bool
) -> SpatialReductionAttention | None:
    """The module for kinds that use a backbone's reduced attention, or None without them."""
    if not position.uses_attention:
        return None
    return SpatialReductionAttention(
        attention,
        stage.num_heads,
        stage.grid,
        own_scores=position.uses_scores,
        fused=fused,
    )
