"""The supernet: one network over a whole space, whose placements share trained weights.

Every update runs the largest placement (all-vanilla, full depth), the smallest (of fewest MACs)
and a few sampled ones on the same images, and sums their gradients: the sandwich rule of
universally slimmable networks (Yu and Huang, ICCV 2019, arXiv:1903.05134). With their in-place
distillation, the others also learn from the largest one's probabilities. Placements are sampled by
strata of MACs, since shallow ones are few in a space and would hardly ever be trained.

Shape letters: B batch, C channels, Y x X grid.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharedattn.backbones import build, build_network
from sharedattn.data import DataSource
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.hashing import derived_seed, document_key
from sharedattn.mechanisms.joint import join_joint_maps, joint_name, split_joint_maps
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement
from sharedattn.progress import OnProgress
from sharedattn.recipe import RECIPES, Recipe, load_named
from sharedattn.training.acceleration import autocast
from sharedattn.training.micro_batches import parts_of
from sharedattn.training.trainer import EpochTrainer, initialise, training_loss

# Distinguishes these seeds from those of epochs, which are derived from fewer numbers.
_SAMPLING = 1
# Removed field, which the keys of recipes still include at its default.
_REMOVED_FIELDS = {"split_by": "none"}
_WHY_REMOVED = (
    "one network for all placements, trained twice as long, ranks as well at the same cost; leave "
    "it out and raise the epochs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetRecipe:
    """The training recipe of a supernet.

    Attributes:
        training: optimiser, schedule, augmentation, averaging and precision.
        sampled_per_step: number of placements drawn per update, besides the largest and smallest.
        sandwich: whether the largest and the smallest placement run at every update.
        distillation: share of the loss of all placements but the largest that uses the largest
            one's probabilities instead of the labels; 0 for none.
        strata: number of MACs bins that are sampled equally often; 1 samples placements uniformly.
        alone_epochs: number of first epochs in which the parameters of the all-vanilla placement
            stay fixed, so that new parts beside trained weights learn first.
        micro_batches: number of parts of a batch that are run one after the other, with their
            gradients summed.
        neutral_gates: whether DIA cells are shared in the form that starts at exactly 1
            (`dia_start=one`). The published gate starts near a quarter, so one MLP would have to
            serve gated layers at four times the weights of others; scaled, it serves both. Both
            forms can compute the same, since the factor of 4 can move into fc2.
        separate_norms: whether less and external attention each have their own norm before them,
            rather than one per layer for all kinds. A stand-alone placement has one norm either
            way, and equal cost.
        scored_images: number of validation images that placements are scored on, spread evenly
            over the split, or None for all of them.
        calibration_batches: most training batches on which batch norms are recalibrated for
            each placement before it is scored; no effect without batch norms.

    Raises:
        InputError: a value is out of its range.
    """

    training: Recipe
    sampled_per_step: int = 2
    sandwich: bool = True
    distillation: float = 0.5
    strata: int = 8
    alone_epochs: int = 0
    micro_batches: int = 1
    neutral_gates: bool = True
    separate_norms: bool = False
    scored_images: int | None = None
    calibration_batches: int = 4

    def __post_init__(self) -> None:
        least_sampled = 0 if self.sandwich else 1
        for name, least in (
            ("sampled_per_step", least_sampled),
            ("strata", 1),
            ("alone_epochs", 0),
            ("micro_batches", 1),
            ("scored_images", 1),
            ("calibration_batches", 1),
        ):
            value = getattr(self, name)
            if name == "scored_images" and value is None:
                continue
            if type(value) is not int or value < least:
                raise InputError(
                    f"`{name}` of a supernet's recipe is a whole number >= {least}, but got "
                    f"{value!r}"
                )
        for name in ("sandwich", "neutral_gates", "separate_norms"):
            if type(getattr(self, name)) is not bool:
                raise InputError(
                    f"`{name}` of a supernet's recipe is true or false, but got "
                    f"{getattr(self, name)!r}"
                )
        if type(self.distillation) not in (int, float) or not 0.0 <= self.distillation <= 1.0:
            raise InputError(
                f"`distillation` of a supernet's recipe is a number from 0 to 1, but got "
                f"{self.distillation!r}"
            )
        if self.distillation and not self.sandwich:
            raise InputError(
                "`distillation` of a supernet's recipe learns from the largest placement, which "
                "is not run under sandwich=false; set distillation to 0 or sandwich to true"
            )
        if self.training.batch_size % self.micro_batches:
            raise InputError(
                f"`micro_batches` of a supernet's recipe is {self.micro_batches}, which does not "
                f"divide batch_size={self.training.batch_size}; change one of the two"
            )
        if self.training.distillation:
            raise InputError(
                f"`distillation` of a supernet's `training` is {self.training.distillation:g}, "
                f"but a supernet learns from its largest placement: set `distillation` beside "
                f"`training`"
            )
        if self.training.rungs:
            raise InputError(
                f"`rungs` of a supernet's recipe is {list(self.training.rungs)}, but its training "
                f"is not stopped at rungs; leave them out"
            )
        if self.alone_epochs > self.training.epochs:
            raise InputError(
                f"`alone_epochs` of a supernet's recipe is {self.alone_epochs}, more than "
                f"`epochs`={self.training.epochs}; lower alone_epochs"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field, and of the removed ones that keys still include."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "training"}
        return {"training": self.training.to_json(), **own, **_REMOVED_FIELDS}

    @classmethod
    def from_json(cls, document: Any) -> SupernetRecipe:
        """Invert `to_json`; omitted fields take their defaults.

        Raises:
            InputError: an unknown field, a removed one in use, no `training`, or a value out of
                its range.
        """
        if isinstance(document, dict):
            check_no_groups(document)
            document = {k: v for k, v in document.items() if k not in _REMOVED_FIELDS}
        return cls._of_fields(document)

    @classmethod
    def _of_fields(cls, document: Any) -> SupernetRecipe:
        known = {f.name for f in fields(cls)}
        if not isinstance(document, dict):
            raise InputError(
                f"a supernet's recipe is a mapping of its fields, but got {document!r}"
            )
        if "split_by" in document:
            raise InputError(
                f"a supernet's recipe has `split_by`, which was removed: {_WHY_REMOVED}"
            )
        if unknown := [key for key in document if key not in known]:
            raise InputError(
                f"a supernet's recipe has no field {', '.join(map(repr, unknown))}; its fields "
                f"are {', '.join(sorted(known))}"
            )
        if "training" not in document:
            raise InputError(
                "a supernet's recipe needs `training`: a recipe's name, or its fields"
            )
        training = document["training"]
        recipe = Recipe.load(training) if isinstance(training, str) else Recipe.from_json(training)
        return cls(**{**document, "training": recipe})

    @classmethod
    def load(cls, name: str) -> SupernetRecipe:
        """Load a built-in recipe by name, or one from a YAML file.

        Raises:
            InputError: no such recipe or file, or the file holds no valid recipe.
        """
        return load_named(name, SUPERNET_RECIPES, "`supernet_recipe`", cls._of_fields)

    def with_epochs(self, epochs: int) -> SupernetRecipe:
        """The recipe with another number of epochs; fewer epochs shorten the warm-up."""
        return replace(
            self,
            training=self.training.with_changes(epochs=epochs),
            alone_epochs=min(self.alone_epochs, epochs),
        )

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON; what does not change the result is left out."""
        return document_key({**self.to_json(), "training": self.training.key})


class PlacementSampler(Protocol):
    """Draws the placements of an update."""

    def sample(self, rng: random.Random) -> Placement:
        """A placement of the supernet's space."""


def check_no_groups(document: Mapping[str, Any]) -> None:
    """Refuse the recipe of a supernet of several networks, which earlier versions trained.

    Args:
        document: the recipe's document.

    Raises:
        InputError: the recipe splits its placements.
    """
    split_by = document.get("split_by", "none")
    if split_by != "none":
        raise InputError(
            f"the supernet has a network for each group of placements (`split_by: {split_by}`), "
            f"which was removed: {_WHY_REMOVED}"
        )


class SupernetTrainer(EpochTrainer):
    """The training of a supernet, by epochs, from its start or from a checkpoint.

    The placements of an update depend on the seed and the update's number alone, so all processes
    of a training run the same ones, with or without resuming from a checkpoint. The optimiser
    leaves alone weights that none of them uses; to that end queries, keys and values are separate
    parameters during training. `curve` has the largest placement's metrics.

    Args:
        network: a network over the envelope of the space and `largest`, with its initial weights;
            its joint maps are split.
        data: as in `EpochTrainer`.
        recipe: the training recipe.
        largest: the all-vanilla placement of full depth.
        smallest: the placement of fewest MACs.
        sampler: draws the other placements.
        seed: as in `EpochTrainer`; also the seed of the placements.
        device: as in `EpochTrainer`.
        rank: as in `EpochTrainer`.
        on_progress: as in `EpochTrainer`.

    Raises:
        InputError: as in `EpochTrainer`.
    """

    def __init__(
        self,
        network: Network,
        data: DataSource,
        recipe: SupernetRecipe,
        *,
        largest: Placement,
        smallest: Placement,
        sampler: PlacementSampler,
        seed: int,
        device: torch.device | str = "cpu",
        rank: Rank = ALONE,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._supernet_recipe = recipe
        self._largest = largest
        self._smallest = smallest
        self._sampler = sampler
        own_names = _own_names(network, Placement.all_vanilla(largest.depths))
        split_joint_maps(network)
        super().__init__(
            network,
            data,
            recipe.training,
            seed=seed,
            device=device,
            rank=rank,
            on_progress=on_progress,
        )
        self._task.check_distillation(recipe.distillation)
        network.compile_layers = recipe.training.compile
        self._of_largest = [
            parameter
            for name, parameter in network.named_parameters()
            if joint_name(name) in own_names
        ]

    @property
    def _validated(self) -> Placement:
        return self._largest

    def trained(self) -> Network:
        """The finished supernet, averaged if the recipe says so, with joint maps joined."""
        network = self.result().network
        join_joint_maps(network)
        return network

    def placements_of(self, update: int) -> list[Placement]:
        """The distinct placements of an update, the largest first."""
        recipe = self._supernet_recipe
        rng = random.Random(derived_seed(self._seed, update, _SAMPLING, _SAMPLING))
        ends = [self._largest, self._smallest] if recipe.sandwich else []
        drawn = (self._sampler.sample(rng) for _ in range(recipe.sampled_per_step))
        return list(dict.fromkeys([*ends, *drawn]))

    def _train_epoch(self) -> float:
        is_alone = self.epoch < self._supernet_recipe.alone_epochs
        for parameter in self._of_largest:
            parameter.requires_grad_(not is_alone)
        return super()._train_epoch()

    @property
    def _num_parts(self) -> int:
        return self._supernet_recipe.micro_batches * super()._num_parts

    def _accumulate(self, images: Tensor, labels: Tensor, update: int) -> Tensor:
        placements = self.placements_of(update)
        total = torch.zeros((), device=images.device)
        for part_images, part_labels, _ in parts_of(images, labels, self._num_parts):
            share = len(part_images) / (len(images) * len(placements))
            example = self._task.training_example(part_images, part_labels)
            teacher = None
            for placement in placements:
                is_teacher = placement == self._largest
                with autocast(self._recipe, self._device):
                    loss, outputs = training_loss(
                        self._task,
                        self.network.run,
                        example,
                        self._recipe,
                        placement,
                        teacher=None if is_teacher else teacher,
                        distillation=self._supernet_recipe.distillation,
                    )
                if is_teacher:
                    teacher = outputs
                loss = loss * share
                if loss.requires_grad:
                    # While its parameters are fixed, the largest placement only teaches.
                    loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
        return total


def shared_backbone(backbone: BackboneSpec, recipe: SupernetRecipe) -> BackboneSpec:
    """The backbone with the forms that placements have while they share weights."""
    if not recipe.neutral_gates:
        return backbone
    return replace(backbone, options=replace(backbone.options, dia_start="one"))


def supernet_network(
    backbone: BackboneSpec, envelope: Envelope, recipe: SupernetRecipe, *, seed: int
) -> Network:
    """Build an untrained supernet, initialised by the recipe.

    Args:
        backbone: the backbone.
        envelope: contains the space's placements and the largest one.
        recipe: gives the initialisation, stochastic depth, the form of DIA cells and the norms.
        seed: seed of the initialisation.

    Raises:
        InputError: as in `build_network`.
    """
    torch.manual_seed(seed)
    network = build_network(
        shared_backbone(backbone, recipe),
        envelope,
        drop_path_rate=recipe.training.drop_path_rate,
    )
    initialise(network, recipe.training.init)
    if recipe.separate_norms:
        for stage, positions in enumerate(envelope.stages):
            for index, position in enumerate(positions):
                network.block(stage, index).separate_norms(position)
    return network


def _own_names(network: Network, placement: Placement) -> frozenset[str]:
    """Names of the parameters that a placement uses."""
    with torch.device("meta"):
        alone: nn.Module = build(NetworkSpec(network.backbone, placement))
    return frozenset(name for name, _ in alone.named_parameters())


def check_supernet_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Check that weights are those of this supernet.

    Raises:
        InputError: they are not; the message names the first that is missing, unexpected, or of
            another shape.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if own != theirs:
        differing = sorted(
            name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name)
        )
        name = differing[0]
        raise InputError(
            f"the weights are of another space or backbone: {len(differing)} of them differ, of "
            f"which {name} is {theirs.get(name, 'missing')} where the space needs "
            f"{own.get(name, 'no such weight')}; train the supernet of this space"
        )


# Chosen for its rank correlation with training from scratch: see docs/guide/supernet.md.
_DIGIT_PAIRS = SupernetRecipe(
    training=replace(RECIPES["digit-pairs"], epochs=24, warmup_epochs=0.3),
    sampled_per_step=4,
    sandwich=False,
    distillation=0.0,
    neutral_gates=False,
    scored_images=1000,
)
SUPERNET_RECIPES: dict[str, SupernetRecipe] = {
    "digit-pairs": _DIGIT_PAIRS,
    # That of digit-pairs, longer: not chosen by a measurement of its own yet.
    "digit-count": replace(
        _DIGIT_PAIRS, training=replace(RECIPES["digit-count"], epochs=48, warmup_epochs=0.3)
    ),
    "small": replace(
        _DIGIT_PAIRS, training=replace(RECIPES["small"], epochs=48, warmup_epochs=0.5)
    ),
    "deit": SupernetRecipe(training=RECIPES["deit"]),
    "digit-pairs-fine-tuning": SupernetRecipe(
        training=replace(RECIPES["digit-pairs"], epochs=4, lr=5e-3, warmup_epochs=0.2),
        alone_epochs=2,
        scored_images=1000,
    ),
    "digit-count-fine-tuning": SupernetRecipe(
        training=replace(RECIPES["digit-count"], epochs=8, lr=5e-3, warmup_epochs=0.2),
        alone_epochs=4,
        scored_images=1000,
    ),
    "small-fine-tuning": SupernetRecipe(
        training=replace(RECIPES["small"], epochs=8, lr=5e-3, warmup_epochs=0.3),
        alone_epochs=2,
        scored_images=1000,
    ),
    "deit-fine-tuning": SupernetRecipe(training=RECIPES["deit-fine-tuning"], alone_epochs=5),
    # Those of masks and boxes are not chosen by measurements of their own yet.
    **{
        name: replace(_DIGIT_PAIRS, training=replace(RECIPES[name], epochs=16))
        for name in ("small-segment", "small-detect")
    },
    **{
        f"{name}-fine-tuning": SupernetRecipe(
            training=RECIPES[f"{name}-fine-tuning"],
            distillation=0.0,
            alone_epochs=2,
            scored_images=1000,
        )
        for name in ("small-segment", "small-detect")
    },
}
