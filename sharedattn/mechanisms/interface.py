"""The interface of mechanisms: branches and gates.

A layer of a network is a *branch* (in place of its attention), then its MLP, whose branch may
broadcast context and may end with a *gate*. A branch or gate defines here everything that
placements, costs, spaces, networks, reports and exports need to know about it; nothing else in the
package refers to one by name. `sharedattn.mechanisms.registry` holds the registered ones.

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
"""A branch's options in one layer that are given, as (name, value), in the branch's order."""


@dataclass(frozen=True, slots=True)
class PartCost:
    """The cost of a part of a network.

    Attributes:
        params: number of parameters.
        macs: multiply-accumulates per image.
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
    """A whole number that each layer of a branch has, written as its code and number: `s16`.

    The weights for a larger number serve smaller ones, so an envelope keeps the largest.

    Attributes:
        name: name of the option in a layer.
        key: key of its list of values in a space's document.
        code: letters before the number in text.
        default: value if the text does not give it.
        least: smallest value.
        most: largest value.
        title: display name; defaults to `name`.
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
        """The pattern of the number, by code."""
        return {self.code: r"\d{1,9}"}

    def read(self, code: str, number: int | None) -> OptionValue:
        """Read the value of `code` and its number in text.

        Raises:
            InputError: the number is missing or out of range.
        """
        if number is None:
            raise InputError(f"`/{code}` has no number; write for example /{code}{self.default}")
        self.check(number)
        return number

    def check(self, value: Any) -> None:
        """Check that `value` is a whole number in range.

        Raises:
            InputError: it is not.
        """
        if type(value) is not int or not self.least <= value <= self.most:
            raise InputError(
                f"`{self.name}` is {value!r}; it is a whole number of at least {self.least}"
                + (f" and at most {self.most}" if self.most < 10**9 - 1 else "")
            )

    def text(self, value: OptionValue | None) -> str:
        """The text of the value, after a slash."""
        return "" if value is None else f"{self.code}{value}"

    def order(self, value: OptionValue | None) -> tuple[int, ...]:
        """Sort key of values."""
        return (int(value or 0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormOption:
    """The choice among several forms of a branch; each form has its own weights.

    Attributes:
        key: key of its list of values in a space's document.
        codes: by each form's code, the pattern of the number that follows it, or "" for none.
        default_name: name in a space's document for the form of a layer that names none.
        name: name of the option in a layer.
    """

    key: str
    codes: Mapping[str, str]
    default_name: str = "default"
    name: str = "form"

    def read(self, code: str, number: int | None) -> OptionValue:
        """Read the form of `code` and its number in text."""
        return code if number is None else f"{code}{number}"

    def check(self, value: Any) -> None:
        """Check that `value` is a form.

        Raises:
            InputError: it is not.
        """
        if not isinstance(value, str) or self._split(value) is None:
            raise InputError(f"`{self.name}` is {value!r}; it is one of {self.known}")

    @property
    def known(self) -> str:
        """The forms, as text."""
        return ", ".join(f"{code}{'R' if pattern else ''}" for code, pattern in self.codes.items())

    def text(self, value: OptionValue | None) -> str:
        """The text of the form, after a slash."""
        return "" if value is None else str(value)

    def document_text(self, value: OptionValue | None) -> str:
        """The form's name in a space's document; a layer that names no form has one too."""
        return self.default_name if value is None else str(value)

    def from_document_text(self, text: str) -> OptionValue | None:
        """Invert `document_text`.

        Raises:
            InputError: `text` is not a form.
        """
        if text == self.default_name:
            return None
        if self._split(text) is None:
            raise InputError(f"this is {text!r}; it is one of {self.default_name}, {self.known}")
        return text

    def order(self, value: OptionValue | None) -> tuple[int, ...]:
        """Sort key of forms: the default, then by code and rising number."""
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
    """A kind of value that one layer of a stage passes to a later one.

    Attributes:
        name: name of the channel.
        elements: number of elements of one value for one image, as a function of the stage and of
            whether its scores carry a bias.
        by_score_group: whether each group of layers that share scores has its own value, rather
            than all layers of a stage one.
    """

    name: str
    elements: Callable[[StageShape, bool], int] = field(compare=False)
    by_score_group: bool = False

    def group(self, attention: AttentionShape, index: int) -> int:
        """The group of the layer at index `index`."""
        return attention.score_group(index) if self.by_score_group else 0


def _score_elements(stage: StageShape, has_bias: bool) -> int:
    sizes = stage.attention
    n, m = sizes.num_queries, sizes.num_keys
    bias = stage.num_heads * n * m if has_bias else 0
    return sizes.num_windows * (n + m) * stage.embed_dim + bias


SCORES = Channel("scores", _score_elements, by_score_group=True)
"""Queries, keys and bias (`sharedattn.mechanisms.scores.Scores`) of an attention layer."""

OUTPUT = Channel("output", lambda stage, has_bias: stage.num_tokens * stage.embed_dim)
"""A layer's attention branch output, (B, N, D), before layer scale and residual addition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colors:
    """CSS colours of a part in the report.

    Attributes:
        fill: colour of its cell.
        ink: colour of the letter on it.
        dark_fill: colour of its cell on a dark page.
        dark_ink: colour of the letter on a dark page.
    """

    fill: str
    ink: str
    dark_fill: str
    dark_ink: str


@dataclass(frozen=True, slots=True)
class MapShape:
    """The attention maps of one layer for one image.

    Attributes:
        num_maps: number of heads, times windows.
        num_rows: number of queries of a map.
        num_columns: number of keys of a map, or of slots.
    """

    num_maps: int
    num_rows: int
    num_columns: int

    @property
    def num_elements(self) -> int:
        """Total number of elements of all maps."""
        return self.num_maps * self.num_rows * self.num_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchCall:
    """The inputs of a branch.

    Attributes:
        x_BND: (B, N, D), tokens; normed if the branch reads them.
        module: what `Branch.make` returned for these options, perhaps None.
        attention: the backbone's attention, if the branch uses any of it.
        options: the layer's options.
        carried: the value of each channel that the branch takes, by name.
        residual: (B, H, N, M), the previous stage's addition to the scores, or None.
        with_maps: whether to return attention maps.
    """

    x_BND: Tensor
    module: Any
    attention: ScoredAttention | None
    options: Options
    carried: Mapping[str, Any]
    residual: Tensor | None
    with_maps: bool

    def option(self, name: str) -> Any:
        """The value of an option, or None if it is not given."""
        return dict(self.options).get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchResult:
    """The outputs of a branch.

    Attributes:
        branch_BND: (B, N, D), before layer scale and residual addition.
        maps: attention maps, (B, heads, rows, columns), or None if not requested.
        left: values for later layers, by channel's name, except `OUTPUT`, which is implied.
    """

    branch_BND: Tensor
    maps: Tensor | None = None
    left: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VanillaExample:
    """Inputs and outputs of a layer's own attention on calibration images, to fit a branch to.

    Attributes:
        x_BND: (B, N, D), normed tokens.
        branch_BND: (B, N, D), output of the vanilla branch.
        keys_PD: (P, D), its keys of all images and windows, heads concatenated.
        attention: the layer's own attention.
    """

    x_BND: Tensor
    branch_BND: Tensor
    keys_PD: Tensor
    attention: ScoredAttention


class Branch(ABC):
    """A replacement for a layer's attention.

    One object of a subclass is registered for each letter; it holds no state of a network.

    Attributes:
        letter: one capital letter, in text and in keys; never changed once used.
        name: a word in lower case, in the names of weights and in the table of costs.
        title: display name, such as "less attention".
        rank: position in the fixed order in which counted layers of a stage expand, small first;
            unique, and never changed once used.
        options: the options of a layer.
        colors: in the report; distinguishable from the others' with any colour vision.
        attends: whether it has an attention branch at all, with its layer scale.
        reads_tokens: whether that branch reads the layer's own tokens, with a norm before it.
        feeds_forward: whether the layer keeps the backbone's MLP, with its norm and layer scale.
        uses: parts that it uses of the backbone's own attention: `scores` (queries and keys),
            `values` (values and output projection).
        takes: channels that an earlier layer of the stage must have written.
        leaves: channels that it writes.
        adds_residual: whether the attention residual is added to its scores.
        has_diagonality: whether the diagonality term applies to its maps.
        free_operators: operators of its module that fvcore does not know and that are free by its
            convention, such as `aten::tanh`.
        fits_convolutions: whether a layer may be a residual block of convolutions; then the layer
            is the block as it came, or left out, or `follows_convolutions`.
        follows_convolutions: whether such a layer is the block and then this branch, a block by
            itself: the branch reads the block's output, (B, N, D) over its N pixels, it is added
            to it, and the sum is activated.
        number_names: names of its number options; derived from `options`.
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
    fits_convolutions: ClassVar[bool] = False
    follows_convolutions: ClassVar[bool] = False
    number_names: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Record which options are numbers, whose weights are shared between values."""
        names = (option.name for option in cls.options if isinstance(option, NumberOption))
        cls.number_names = frozenset(names)

    def form_of(self, options: Options) -> Options:
        """The options that have weights of their own: all but numbers."""
        return tuple(option for option in options if option[0] not in self.number_names)

    def canonical(self, options: Options, stage: StageShape) -> Options:
        """The options without a stage's defaults, so that equal layers have equal options."""
        del stage
        return options

    def check(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> None:
        """Check that a stage can have this layer.

        Raises:
            InputError: it cannot; the message says what does not fit, and the most that does.
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
        """Build the module of one form, for number options up to the given ones.

        Args:
            options: every number option, and the form if one is named.
            stage: sizes of the stage.
            network_options: forms that hold for the whole network.

        Returns:
            The module, or None if the branch has only the backbone's parameters.
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
        """Fit a module to its layer's vanilla branch, in place.

        Unfitted, a branch starts with its parameters' initialisation, and with the trained
        parameters that it shares with the vanilla branch.

        Args:
            module: result of `make`.
            example: example of the layer.
            used: the options of layers to serve, the largest numbers first.
            generator: random generator on the CPU.

        Raises:
            NotImplementedError: `can_be_fitted` allows a form, but this method is not overridden.
        """
        # Not abstract, since it is never called for a branch without forms that can be fitted.
        raise NotImplementedError(
            f"{self.title} has forms that can be fitted, but no method `fit`"
        )

    @property
    def is_absent(self) -> bool:
        """Whether the whole layer is left out, having neither a branch nor an MLP.

        Such a layer has no gate and no context broadcasting, and what a stage says of its layers
        does not count it. At a stage's end it is no layer at all.
        """
        return not (self.attends or self.feeds_forward)

    def has_branch(self, stage: StageShape) -> bool:
        """Whether a layer of a stage has it: an attention, or what follows convolutions."""
        return self.attends if stage.convolution is None else self.follows_convolutions

    @property
    def num_norms(self) -> int:
        """Number of the block's norms that a layer has: before its branch, before its MLP."""
        return (self.attends and self.reads_tokens) + self.feeds_forward

    @abstractmethod
    def run(self, call: BranchCall) -> BranchResult:
        """Compute the branch."""

    @abstractmethod
    def cost(
        self,
        options: Options,
        stage: StageShape,
        network_options: MechanismOptions,
        *,
        has_bias: bool,
    ) -> PartCost:
        """Params and MACs of the branch alone, without the norm before it and layer scale.

        Args:
            options: the layer's options.
            stage: sizes of the stage.
            network_options: forms that hold for the whole network.
            has_bias: whether the stage's scores carry a bias.
        """

    def norm_macs(self, options: Options, stage: StageShape) -> int:
        """The MACs of norms inside the branch, which `cost` includes."""
        del options, stage
        return 0

    def map_shape(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> MapShape | None:
        """Sizes of its attention maps for one image, or None if it has none."""
        del options, stage, network_options
        return None

    def attention_elements(
        self, options: Options, stage: StageShape, network_options: MechanismOptions
    ) -> int:
        """Number of elements in memory while it attends: its maps, and memories of its own."""
        maps = self.map_shape(options, stage, network_options)
        return 0 if maps is None else maps.num_elements

    def score_bias(self, options: Options) -> Literal["own", "kept", "mapped"]:
        """The bias of the scores that it leaves: its own, the taken one, or a map of that."""
        del options
        return "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCall:
    """The inputs of a gate.

    Attributes:
        x_BDP: (B, D, P), the branch to gate; P are its tokens, prefix tokens first, or the pixels
            of its feature maps, row by row.
        num_left_out: number of first tokens that enter no mean.
        grid: rows and columns of the pixels, or None for tokens.
        cell: what `Gate.make_cell` returned for the layer's group.
        site: what `Gate.make_site` returned for the layer, perhaps None.
        carried: `GateResult.left` of the group's previous layer; None at the first layer, or if
            the gate carries nothing.
    """

    x_BDP: Tensor
    num_left_out: int
    grid: tuple[int, int] | None
    cell: Any
    site: nn.Module | None
    carried: Any

    @property
    def counted(self) -> Tensor:
        """(B, D, P), the branch on the tokens or pixels that enter means."""
        return self.x_BDP[:, :, self.num_left_out :] if self.num_left_out else self.x_BDP

    @property
    def mean(self) -> Tensor:
        """(B, D), the mean over tokens or pixels."""
        x_BDP = self.counted
        # A sum, since the gradient of a mean is a tensor as large as the branch, and that of a sum
        # a view. It would round, or overflow, in half precision.
        wide = torch.float32 if x_BDP.dtype.itemsize < 4 else None
        return (x_BDP.sum(dim=2, dtype=wide) / x_BDP.shape[2]).to(x_BDP.dtype)

    def scaled(self, gate_BD: Tensor, left: Any = None) -> GateResult:
        """The result of a gate that scales whole channels.

        Args:
            gate_BD: (B, D).
            left: the input of the group's next layer.
        """
        return GateResult(x_BDP=self.x_BDP * gate_BD.unsqueeze(2), gate_BD=gate_BD, left=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The outputs of a gate.

    Attributes:
        x_BDP: (B, D, P), the gated branch.
        gate_BD: (B, D), what channels were scaled by; its mean over tokens or pixels if it differs
            between them.
        left: the input of the group's next layer: tensors in a tuple, or None.
    """

    x_BDP: Tensor
    gate_BD: Tensor
    left: Any = None


class Gate(ABC):
    """Scales a layer's last branch, by channels or also by tokens; a group shares one cell.

    One object of a subclass is registered for each name; it holds no state of a network.

    Attributes:
        name: a word in lower case, in the names of weights, in keys and in the table of costs;
            never changed once used.
        code: letters in text before the number of groups of a stage, `dia2`, and the key of the
            list of these numbers in a space's document.
        cell_code: letters in text before the number of a layer's cell, `d0`.
        title: display name.
        rank: position among gates, small first; unique.
        colors: in the report.
        network_options: names of the `MechanismOptions` that its cells depend on.
        free_operators: as in `Branch`.
        one_per_layer: whether the code without a number, `se`, stands for as many groups as there
            are layers.
        parameters_without_effect: names, within a cell, of parameters that its definition counts
            although no output depends on them, such as a bias before a softmax. Their gradients
            are rounding errors or zero.
    """

    name: ClassVar[str]
    code: ClassVar[str]
    cell_code: ClassVar[str]
    title: ClassVar[str]
    rank: ClassVar[int]
    colors: ClassVar[Colors]
    network_options: ClassVar[frozenset[str]] = frozenset()
    free_operators: ClassVar[frozenset[str]] = frozenset()
    one_per_layer: ClassVar[bool] = False
    parameters_without_effect: ClassVar[frozenset[str]] = frozenset()

    def check(self, stage: StageShape, network_options: MechanismOptions) -> None:
        """Check that a stage can have a cell.

        Raises:
            InputError: it cannot; the message says what does not fit, and what does.
        """
        del stage, network_options

    @abstractmethod
    def make_cell(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module:
        """The cell that the layers of one group share."""

    def make_site(self, stage: StageShape, network_options: MechanismOptions) -> nn.Module | None:
        """What each layer has for itself, without parameters: statistics of batch norms, or None.

        A layer has one for each cell that may gate it.
        """
        del stage, network_options
        return None

    @abstractmethod
    def run(self, call: GateCall) -> GateResult:
        """Gate one layer's branch."""

    @abstractmethod
    def cell_params(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """Number of parameters of one cell, however many layers share it."""

    @abstractmethod
    def macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """Multiply-accumulates of one call, with norms; each gated layer makes one."""

    def norm_macs(self, stage: StageShape, network_options: MechanismOptions) -> int:
        """The part of `macs` in norms."""
        del stage, network_options
        return 0
