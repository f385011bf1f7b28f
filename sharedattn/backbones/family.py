"""Describe a backbone family to the registry: its timm class, and how to read and run it."""

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
from sharedattn.mechanisms.spatial_reduction import SpatialReductionAttention
from sharedattn.networks.network import Network
from sharedattn.placement import Keyword, LayerEnvelope
from sharedattn.shape import BackboneShape, StageShape, layer_norm_macs

MAX_NUMBER = 10**6
"""The most that a keyword may be, unless its rule has another bound: wider is nobody's network."""

MAX_LAYERS = 1000
"""The most layers of a stage, which is the most that the text of a placement can say."""


Keywords = Mapping[str, Keyword]
"""The value of every keyword of a family."""


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """One keyword argument of a family's timm class.

    Attributes:
        read: the keyword's value as a built model shows it; its type is the keyword's type.
        may_be_zero: whether 0 means something; a number below 0 never does.
        to_argument: what the model's constructor takes, of the keyword's value; raises
            `ValueError` on a value that means nothing.
        per_stage: whether it is one number a stage, written with dashes; a family with such a
            keyword has `depths` among them.
        most: the most that a number may be.
    """

    read: Callable[[Any], Keyword]
    may_be_zero: bool = False
    to_argument: Callable[[Any], Any] = _unchanged
    per_stage: bool = False
    most: int = MAX_NUMBER


def per_stage(
    read: Callable[[Any], Iterable[float]], *, whole: bool = True, most: int = MAX_NUMBER
) -> KeywordRule:
    """A keyword with one number a stage, written with dashes: `depths=2-2-2-2`.

    Args:
        read: the numbers as a built model shows them.
        whole: whether they are whole numbers.
        most: the most that one may be.
    """
    return KeywordRule(
        lambda model: stage_numbers(read(model)),
        to_argument=partial(_numbers_of_stages, whole=whole, most=most),
        per_stage=True,
        most=most,
    )


def stage_numbers(numbers: Iterable[float]) -> int | float | str:
    """A keyword's value of one number a stage; of a single stage, the number itself.

    A text of one number would be read as the number.
    """
    # Neither with an exponent, whose sign would be a dash, nor with a whole number's ".0".
    texts = [f"{Decimal(str(number)):f}".removesuffix(".0") for number in numbers]
    if len(texts) > 1:
        return "-".join(texts)
    return float(texts[0]) if "." in texts[0] else int(texts[0])


def numbers_of(value: Keyword) -> tuple[int, ...]:
    """The inverse of `stage_numbers`, of whole numbers."""
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
    """The shortest decimal r with floor(r D) = M, which is how timm takes M from a ratio.

    M / D itself will not do: rounded, or multiplied by D again, it can fall below M.

    Args:
        widths: D and M of each width that the ratio is for.

    Raises:
        InputError: there is none.
    """
    # M <= r D < M + 1 for each of them.
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
    """A family of timm models that are all built and run in one way.

    Attributes:
        base_name: the name that stands for `model_class` with its own defaults.
        model_class: timm's class; a model of a subclass is not understood.
        keywords: the keyword arguments whose meaning is implemented, beside image size, channels
            and classes.
        describe: sizes of a built model, at an image size where the model does not know its own
            (None where it does); raises `InputError`, without the model's name, on one
            whose parts are not understood.
        make_network: the family's `Network` class: it takes a built model, whose parts it takes
            over, and the network's plan.
        names: further names that are not timm's, each with what builds its model.
        default_image_size: of a family whose models do not know their image size; None: they
            take `img_size`, and have a default of their own.
        seen_pixels: of an image size, how many pixels on a side, from the first on, reach the
            logits of the all-vanilla network with these keywords: grids that are rounded down
            leave the last rows and columns out.
    """

    base_name: str
    model_class: type[Any]
    keywords: Mapping[str, KeywordRule]
    describe: Callable[[Any, int | None], BackboneShape]
    make_network: Callable[..., Network]
    names: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    default_image_size: int | None = None
    seen_pixels: Callable[[Keywords, int], int] = lambda _, image_size: image_size

    def read_keywords(self, model: Any) -> dict[str, Keyword]:
        """The value of every keyword as a built model shows it."""
        return {key: rule.read(model) for key, rule in self.keywords.items()}


def whole_patches(keywords: Keywords, image_size: int) -> int:
    """`Family.seen_pixels` of a stem that cuts square patches side by side."""
    patch_size = keywords["patch_size"]
    assert isinstance(patch_size, int)
    return image_size // patch_size * patch_size


def refuse(reason: str) -> InputError:
    """The error of a model with a part that is not understood."""
    return InputError(f"its blocks are not understood: {reason}")


def require_type(part: str, module: object, *accepted: type) -> None:
    """Refuse a part that is not exactly of one of the accepted types."""
    if type(module) not in accepted:
        known = " or ".join(t.__name__ for t in accepted)
        raise refuse(f"{part} is a {type(module).__name__}, understood is {known}")


def require_norm(part: str, norm: Any, *accepted: type) -> None:
    """Refuse a norm that is not of an accepted type, or a layer norm without scale and shift."""
    require_type(part, norm, *accepted)
    if isinstance(norm, nn.LayerNorm) and (norm.weight is None or norm.bias is None):
        raise refuse(f"{part} has no scale or no shift")


def resample_positions(
    positions_1ND: Tensor, old: tuple[int, int], new: tuple[int, int]
) -> Tensor:
    """Position embeddings of tokens on a grid, resampled to another grid as timm does it.

    Args:
        positions_1ND: (1, N, D), those of prefix tokens first, which stay as they are.
        old: rows and columns of the grid.
        new: rows and columns of the grid that is wanted.

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


def num_params(*modules: nn.Module) -> int:
    """Parameters of modules, each counted once."""
    return sum(p.numel() for module in modules for p in module.parameters())


def norm_macs(norm: Any, num_tokens: int) -> int:
    """Count the MACs of a norm over a number of tokens; 0 for the identity."""
    return 0 if isinstance(norm, nn.Identity) else layer_norm_macs(num_tokens, norm.weight.numel())


def conv_grid(grid: tuple[int, int], conv: Any) -> tuple[int, int]:
    """Rows and columns that a square convolution makes of a grid, read off its sizes."""
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    Y, X = ((size + 2 * padding - kernel) // stride + 1 for size in grid)
    return Y, X


def weight_macs(module: nn.Module, num_tokens: int) -> int:
    """Multiply-accumulates of maps that use each weight once a token; biases cost nothing."""
    return num_tokens * sum(p.numel() for p in module.parameters() if p.ndim > 1)


def spatial_reduction_attention(
    attention: Any, position: LayerEnvelope, stage: StageShape, *, fused: bool
) -> SpatialReductionAttention | None:
    """What serves the kinds that use a backbone's reduced attention; None: there are none."""
    if not position.uses_attention:
        return None
    return SpatialReductionAttention(
        attention,
        stage.num_heads,
        stage.grid,
        own_scores=position.uses_scores,
        fused=fused,
    )
