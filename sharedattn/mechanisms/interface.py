"""The interface of mechanisms: branches and gates.

A layer of a network is a *branch* (what stands in the place of its attention), then its MLP, whose
branch may broadcast context and may end with a *gate*. Everything that placements, costs, spaces,
networks, reports and exports have to know about a branch or a gate, it says here; nothing else in
the package knows one by name. `sharedattn.mechanisms.registry` holds those that there are.

Shape letters: B batch, N tokens, M keys, D embed_dim, H heads.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sharedattn.errors import InputError
from sharedattn.shape import AttentionShape, StageShape

if TYPE_CHECKING:
    from sharedattn.mechanisms.options import MechanismOptions
    from sharedattn.mechanisms.vanilla import ScoredAttention

OptionValue = int | str
Options = tuple[tuple[str, OptionValue], ...]
"""A branch's options of one layer, name and value, those that are said; in the branch's order."""


@dataclass(frozen=True, slots=True)
class PartCost:
    """The cost of a part of a network.

    Attributes:
        params: parameters.
        macs: multiply-accumulates for one image.
    """

    params: int
    macs: int

    def __add__(self, other: PartCost) -> PartCost:
        return PartCost(self.params + other.params, self.macs + other.macs)

    def to_json(self) -> dict[str, int]:
        """The two figures by name."""
        return {"params": self.params, "macs": self.macs}


NO_COST = PartCost(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberOption:
    """A whole number that each layer of a branch has, written as its code and the number: `s16`.

    The weights of a larger number serve smaller ones, so an envelope keeps the largest.

    Attributes:
        name: of the option, in a layer.
        key: what a space's document calls the list of its values.
        code: letters before the number, in text.
        default: where a text does not say it.
        least: the smallest number.
        most: the largest.
        title: what people call it; its name where it is left out.
    """

    name: str
    key: str
    code: str
    default: int
    least: int = 1
    most: int = 10**9 - 1
    title: str = ""

    @property
    def codes(self) -> Mapping[str, str]:
        """The pattern of the number by each code."""
        return {self.code: r"\d{1,9}"}

    def read(self, code: str, number: int | None) -> OptionValue:
        """The value that `code` and its number mean in text.

        Raises:
            InputError: no number, or one out of range.
        """
        if number is None:
            raise InputError(f"`/{code}` has no number; write for example /{code}{self.default}")
        self.check(number)
        return number

    def check(self, value: Any) -> None:
        """Refuse what is no value of the option.

        Raises:
            InputError: no whole number, or one out of range.
        """
        if type(value) is not int or not self.least <= value <= self.most:
            raise InputError(
                f"`{self.name}` is {value!r}; it is a whole number of at least {self.least}"
                + (f" and at most {self.most}" if self.most < 10**9 - 1 else "")
            )

    def text(self, value: OptionValue | None) -> str:
        """The value as text has it, after a slash."""
        return "" if value is None else f"{self.code}{value}"

    def order(self, value: OptionValue | None) -> tuple[int, ...]:
        """Sorts values."""
        return (int(value or 0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormOption:
    """Which of several forms a branch has; each form has weights of its own.

    Attributes:
        key: what a space's document calls the list of its values.
        codes: by each form's code, the pattern of the number that follows it; "" where none does.
        default_name: what a space's document calls the form of a layer that names none.
        name: of the option, in a layer.
    """

    key: str
    codes: Mapping[str, str]
    default_name: str = "default"
    name: str = "form"

    def read(self, code: str, number: int | None) -> OptionValue:
        """The form that `code` and its number mean in text."""
        return code if number is None else f"{code}{number}"

    def check(self, value: Any) -> None:
        """Refuse what is no form.

        Raises:
            InputError: another text.
        """
        if not isinstance(value, str) or self._split(value) is None:
            raise InputError(f"`{self.name}` is {value!r}; it is one of {self.known}")

    @property
    def known(self) -> str:
        """The forms, as people list them."""
        return ", ".join(f"{code}{'R' if pattern else ''}" for code, pattern in self.codes.items())

    def text(self, value: OptionValue | None) -> str:
        """The form as text has it, after a slash."""
        return "" if value is None else str(value)

    def document_text(self, value: OptionValue | None) -> str:
        """The form in a space's words, where that of a layer that names none has a name too."""
        return self.default_name if value is None else str(value)

    def from_document_text(self, text: str) -> OptionValue | None:
        """The inverse of `document_text`.

        Raises:
            InputError: no form.
        """
        if text == self.default_name:
            return None
        if self._split(text) is None:
            raise InputError(f"this is {text!r}; it is one of {self.default_name}, {self.known}")
        return text

    def order(self, value: OptionValue | None) -> tuple[int, ...]:
        """Sorts forms: the default, then by code, numbers rising."""
        if value is None:
            return -1, 0
        split = self._split(str(value))
        assert split is not None
        return list(self.codes).index(split[0]), split[1]

    def _split(self, value: str) -> tuple[str, int] | None:
        for code, pattern in self.codes.items():
            match = re.fullmatch(rf"{code}({pattern})", value)
            if match:
                return code, int(match[1] or 0)
        return None


Option = NumberOption | FormOption


@dataclass(frozen=True, slots=True)
class Channel:
    """Something that one layer of a stage leaves for a later one.

    Attributes:
        name: of the channel.
        elements: how many elements of memory one value takes for one image, of a stage and of
            whether its scores carry a bias.
        by_score_group: whether layers that share scores have each group one of its own; else all
            layers of a stage share one.
    """

    name: str
    elements: Callable[[StageShape, bool], int] = field(compare=False)
    by_score_group: bool = False

    def group(self, attention: AttentionShape, index: int) -> int:
        """The group of the layer at a position."""
        return attention.score_group(index) if self.by_score_group else 0


def _score_elements(stage: StageShape, has_bias: bool) -> int:
    sizes = stage.attention
    n, m = sizes.num_queries, sizes.num_keys
    bias = stage.num_heads * n * m if has_bias else 0
    return sizes.num_windows * (n + m) * stage.embed_dim + bias


SCORES = Channel("scores", _score_elements, by_score_group=True)
"""Queries, keys and bias (`sharedattn.mechanisms.scores.Scores`) of an attention layer."""

OUTPUT = Channel("output", lambda stage, has_bias: stage.num_tokens * stage.embed_dim)
"""What a layer's attention branch gave, (B, N, D), before layer scale and residual addition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colors:
    """How a part looks in the report, as CSS colours.

    Attributes:
        fill: of its cell.
        ink: of the letter on it.
        dark_fill: of its cell on a dark page.
        dark_ink: of the letter on that.
    """

    fill: str
    ink: str
    dark_fill: str
    dark_ink: str


@dataclass(frozen=True, slots=True)
class MapShape:
    """The attention maps of one layer for one image.

    Attributes:
        num_maps: heads, times windows.
        num_rows: queries of a map.
        num_columns: keys of a map, or slots.
    """

    num_maps: int
    num_rows: int
    num_columns: int

    @property
    def num_elements(self) -> int:
        """Elements of all maps together."""
        return self.num_maps * self.num_rows * self.num_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchCall:
    """What a branch is run with.

    Attributes:
        x_BND: (B, N, D), tokens; normed where the branch reads them.
        module: what `Branch.make` gave for these options; None: nothing.
        attention: the backbone's attention, where the branch uses any of it.
        options: the layer's.
        carried: by the name of each channel that the branch takes, what is in it.
        residual: (B, H, N, M), what the stage before adds to scores; None: nothing.
        with_maps: whether attention maps are asked for.
    """

    x_BND: Tensor
    module: Any
    attention: ScoredAttention | None
    options: Options
    carried: Mapping[str, Any]
    residual: Tensor | None
    with_maps: bool

    def option(self, name: str) -> Any:
        """The value of an option; None: it is not said."""
        return dict(self.options).get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchResult:
    """What a branch gives.

    Attributes:
        branch_BND: (B, N, D), before layer scale and residual addition.
        maps: attention maps where they were asked for, (B, heads, rows, columns); else None.
        left: by channel's name, what it leaves for later layers; `OUTPUT` is left without it.
    """

    branch_BND: Tensor
    maps: Tensor | None = None
    left: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VanillaExample:
    """What a layer's own attention did with calibration images, for a branch to begin as.

    Attributes:
        x_BND: (B, N, D), normed tokens.
        branch_BND: (B, N, D), what the vanilla branch gave.
        keys_PD: (P, D), its keys of all images and windows, heads beside each other.
        attention: the layer's own attention.
    """

    x_BND: Tensor
    branch_BND: Tensor
    keys_PD: Tensor
    attention: ScoredAttention


class Branch(ABC):
    """What stands in the place of a layer's attention.

    One object of a subclass is registered for each letter; it holds nothing of any network.

    Attributes:
        letter: one capital letter, in text and in keys; never changed once used.
        name: a word in lower case, in the names of weights and in the table of costs.
        title: what people call it, such as "less attention".
        rank: its place where layers of a stage are counted and expand in a fixed order, small
            first; differs from every other's, and is never changed once used.
        options: what a layer of it may say.
        colors: in the report; told apart from the others' with any colour vision.
        attends: whether it has an attention branch at all, with its layer scale.
        reads_tokens: whether that branch reads the layer's own tokens, with a norm before it.
        feeds_forward: whether the layer keeps the backbone's MLP, with its norm and layer scale.
        uses: what it uses of the backbone's own attention: `scores` (queries and keys),
            `values` (values and output projection).
        takes: channels that must have been left by an earlier layer of the stage.
        leaves: channels that it leaves something in.
        adds_residual: whether the attention residual is added to its scores.
        has_diagonality: whether the diagonality term concerns its maps.
        free_operators: what its module runs that fvcore does not know and that costs nothing by
            its convention, such as `aten::tanh`.
        number_names: of its number options; follows from `options`.
    """

    letter: ClassVar[str]
    name: ClassVar[str]
    title: ClassVar[str]
    rank: ClassVar[int]
    options: ClassVar[tuple[Option, ...]] = ()
    colors: ClassVar[Colors]
    attends: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    feeds_forward: ClassVar[bool] = True
    uses: ClassVar[frozenset[Literal["scores", "values"]]] = frozenset()
    takes: ClassVar[tuple[Channel, ...]] = ()
    leaves: ClassVar[tuple[Channel, ...]] = (OUTPUT,)
    adds_residual: ClassVar[bool] = False
    has_diagonality: ClassVar[bool] = False
    free_operators: ClassVar[frozenset[str]] = frozenset()
    number_names: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Note which of the options are numbers, whose weights are shared between values."""
        names = (option.name for option in cls.options if isinstance(option, NumberOption))
        cls.number_names = frozenset(names)

    def form_of(self, options: Options) -> Options:
        """Those of the options that have weights of their own: all but numbers."""
        return tuple(option for option in options if option[0] not in self.number_names)

    def canonical(self, options: Options, stage: StageShape) -> Options:
        """The options without what is a stage's default anyway: equal layers have equal ones."""
        del stage
        return options

    def check(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> None:
        """Refuse a layer that a stage cannot have.

        Raises:
            InputError: says what does not fit, and the most that does.
        """
        del options, stage, network_options

    def used_network_options(self, options: Options) -> frozenset[str]:
        """Names of the `MechanismOptions` that a layer with these options depends on."""
        del options
        return frozenset()

    def make(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
    ) -> nn.Module | None:
        """The module of one form, its number options being the largest that it is to serve.

        Args:
            options: with every number option; the form where one is named.
            stage: sizes of the stage.
            network_options: forms that hold for the whole network.

        Returns:
            The module; None: the branch has no parameters beside the backbone's.
        """
        del options, stage, network_options
        return None

    def can_be_fitted(self, form: Options) -> bool:
        """Whether `fit` can start this form from a trained vanilla branch."""
        del form
        return False

    def fit(
        self,
        module: nn.Module,
        example: VanillaExample,
        used: Sequence[Options],
        generator: torch.Generator,
    ) -> None:
        """Let a module begin as what its layer's vanilla branch did, in place.

        Without it a branch begins as its parameters are initialised, and what it shares with the
        vanilla branch as that was trained.

        Args:
            module: as `make` gave it.
            example: of the layer.
            used: the options of layers that it is to serve, the largest numbers first.
            generator: on the CPU, for whatever is drawn.

        Raises:
            NotImplementedError: `can_be_fitted` says that a form can be, and this is not
                overridden.
        """
        # Nobody calls it for a branch of which no form can be fitted, so it is not abstract.
        raise NotImplementedError(f"{self.title} says that it can be fitted, and does not say how")

    @property
    def num_norms(self) -> int:
        """Norms of the backbone's block that a layer has: before its branch, before its MLP."""
        return (self.attends and self.reads_tokens) + self.feeds_forward

    @abstractmethod
    def run(self, call: BranchCall) -> BranchResult:
        """The branch of normed tokens."""

    @abstractmethod
    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        """Params and MACs of the branch alone: no norm before it, no layer scale.

        Args:
            options: the layer's.
            stage: sizes of the stage.
            network_options: forms that hold for the whole network.
            has_bias: whether the stage's scores carry a bias.
        """

    def norm_macs(self, options: Options, stage: StageShape) -> int:
        """The share of `cost`'s MACs that norms inside the branch take."""
        del options, stage
        return 0

    def map_shape(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> MapShape | None:
        """Sizes of its attention maps for one image; None: it has none."""
        del options, stage, network_options
        return None

    def attention_elements(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> int:
        """Elements of memory that live while it attends: its maps, and memories of its own."""
        maps = self.map_shape(options, stage, network_options)
        return 0 if maps is None else maps.num_elements

    def score_bias(self, options: Options) -> Literal["own", "kept", "mapped"]:
        """The bias of the scores it leaves: its own, that of those it took, or a map of that."""
        del options
        return "own"


class Gate(ABC):
    """What scales the channels of a layer's last branch; layers of a group share one cell.

    One object of a subclass is registered for each name; it holds nothing of any network.

    Attributes:
        name: a word in lower case, in the names of weights, in keys and in the table of costs;
            never changed once used.
        code: letters in text before the number of groups of a stage, `dia2`; in a space's document
            the key of that list.
        cell_code: letters in text before the number of a layer's cell, `d0`.
        title: what people call it.
        rank: its place among gates, small first; differs from every other's.
        colors: in the report.
        network_options: names of the `MechanismOptions` that its cells depend on.
        free_operators: as `Branch.free_operators`.
    """

    name: ClassVar[str]
    code: ClassVar[str]
    cell_code: ClassVar[str]
    title: ClassVar[str]
    rank: ClassVar[int]
    colors: ClassVar[Colors]
    network_options: ClassVar[frozenset[str]] = frozenset()
    free_operators: ClassVar[frozenset[str]] = frozenset()

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Refuse a stage that cannot have a cell.

        Raises:
            InputError: says what does not fit, and what does.
        """
        del stage, network_options

    @abstractmethod
    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module:
        """The cell that the layers of one group share."""

    @abstractmethod
    def run(self, cell: nn.Module, mean_BD: Tensor, carried: Any) -> tuple[Tensor, Any]:
        """The gate of one layer.

        Args:
            cell: of its group.
            mean_BD: (B, D), the mean over tokens of the branch that is gated.
            carried: what the group's layer before left; None: it is the first, or they leave
                nothing.

        Returns:
            The gate (B, D), and what the group's next layer takes: tensors in a tuple, or None.
        """

    @abstractmethod
    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """Parameters of one cell, however many layers share it."""

    @abstractmethod
    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """Multiply-accumulates of one call, of which each gated layer makes one."""
