"""The start of a training from a trained model: its weights, and its head or a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from sharedattn.backbones import build, build_network, describe, resolve
from sharedattn.data import DataSource
from sharedattn.errors import InputError, StartChangedError
from sharedattn.networks.network import Network
from sharedattn.placement import BackboneSpec, Envelope, NetworkSpec, Placement, ResolvedSpec
from sharedattn.recipe import Recipe
from sharedattn.tasks import head_kind, own_head
from sharedattn.weights.branch_fit import fit_branches
from sharedattn.weights.extract import extract
from sharedattn.weights.head_fit import NewHead, num_fitted_images
from sharedattn.weights.pretrained import (
    load_trained,
    start_from,
    weights_digest,
    with_new_head,
)
from sharedattn.weights.published import head_name, without_pyramid_head

FITTED_IMAGES = 256  # training images to which external memories are fitted

HeadChoice = Literal["auto", "keep", "replace"]
"""What becomes of a trained model's head; auto replaces it if its classes are not as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedStart:
    """The trained model that a training starts from.

    Attributes:
        source: file, exported folder or `timm`; see `load_pretrained`.
        backbone: the model's backbone, with timm's tag if it has one, and the data's classes.
        sha256: hash of its weights and of what replaces its head; see `weights_digest`.
        head: the new head, or None if its own is kept.
    """

    source: str
    backbone: BackboneSpec
    sha256: str
    head: NewHead | None = None

    @classmethod
    def of(
        cls, source: str, backbone: BackboneSpec, data: DataSource, choice: HeadChoice = "auto"
    ) -> TrainedStart:
        """Look at the weights, and decide on the head.

        Args:
            source: file, exported folder or `timm`.
            backbone: the backbone, with as many classes as the data.
            data: the data.
            choice: what becomes of the head.

        Raises:
            InputError: as in `load_trained`; or another head, or one of other classes, is to be
                kept; or a classifier's that is no linear map is to be replaced.
        """
        model = load_trained(source, backbone)
        has_own_classifier = backbone.head == own_head(backbone.name)
        is_same = model.has_head and model.num_classes == data.num_classes
        if choice == "keep" and not is_same and not has_own_classifier:
            raise InputError(
                f"--head keep keeps the head of {source}, which is no "
                f"{head_kind(backbone.head).title} of {data.num_classes:,} classes; leave --head "
                f"out to begin with a new one"
            )
        if choice == "keep" and not is_same:
            raise InputError(
                f"--head keep keeps the head of {source}, which has {model.num_classes:,} "
                f"classes, but {data.name} has {data.num_classes:,}; leave --head out to replace "
                f"it, or use the data that the model was trained on"
            )
        head = None
        if choice == "replace" or not is_same:
            if has_own_classifier and head_name(backbone) is None:
                raise InputError(
                    f"--head replace cannot fit the head of {backbone.name}, which is no linear "
                    f"map with a bias; leave it out"
                )
            head = NewHead(
                trained_classes=model.num_classes,
                num_classes=data.num_classes,
                num_images=num_fitted_images(data) if has_own_classifier else 0,
            )
        sha256 = weights_digest(model.state, head)
        return cls(source=source, backbone=backbone, sha256=sha256, head=head)

    def load_into(
        self, network: Network, data: DataSource, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        """Load the weights into a network over the model's backbone, in place.

        Args:
            network: the network, with as many classes as the data.
            data: a classifier's new head is fitted to its training images; that of a detector or
                segmenter stays as the network has it.
            seed: seed of their choice.
            device: device that computes their features.

        Raises:
            StartChangedError: the weights are not those that were looked at, or are gone.
            FloatingPointError: the model's features of training images are not finite.
        """
        try:
            model = load_trained(self.source, self.backbone)
        except InputError as error:
            raise StartChangedError(
                f"{self.source} cannot be read any more: {error}; put back the weights that the "
                f"search began with"
            ) from error
        if weights_digest(model.state, self.head) != self.sha256:
            raise StartChangedError(
                f"{self.source} holds other weights than those that the search began with; put "
                f"those back, or begin another study with the new ones"
            )
        state = model.state
        if self.head is not None:
            state = (
                with_new_head(model, data, seed=seed, device=device)
                if self.head.is_fitted
                else without_pyramid_head(state)
            )
        start_from(network, state)

    def network(
        self,
        spec: ResolvedSpec,
        recipe: Recipe,
        data: DataSource,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> Network:
        """A placement's network with its share of the model, and new branches fitted to it.

        Args:
            spec: the network.
            recipe: gives the stochastic depth.
            data: as of `load_into`, as are the others.
            seed: also of the initialisation of parts that the model lacks.
            device: device that computes the features.

        Raises:
            InputError: as of `load_into`.
            FloatingPointError: as of `load_into`.
        """
        vanilla = Placement.all_vanilla(spec.shape.depths)
        torch.manual_seed(seed)
        network = build_network(
            spec.backbone,
            Envelope.of(spec.placement, vanilla),
            drop_path_rate=recipe.drop_path_rate,
        )
        self.load_into(network, data, seed=seed, device=device)
        fit_new_branches(network, data, seed=seed)
        return extract(network, spec.placement)

    def teacher(
        self, data: DataSource, *, seed: int, device: torch.device | str = "cpu"
    ) -> Network:
        """The model itself, all-vanilla at full depth: as it came, or with its new head.

        It says something only if `has_trained_head`.

        Args:
            data: as of `load_into`, as are the others.
            seed: seed of a new head's images.
            device: device that computes the features.

        Raises:
            InputError: as of `load_into`.
            FloatingPointError: as of `load_into`.
        """
        vanilla = Placement.all_vanilla(describe(self.backbone).depths)
        network = build(resolve(NetworkSpec(self.backbone, vanilla)))
        self.load_into(network, data, seed=seed, device=device)
        return network

    @property
    def has_trained_head(self) -> bool:
        """Whether the model says anything of the data: not with a head that was never trained."""
        return self.head is None or self.head.is_fitted

    @property
    def text(self) -> str:
        """What becomes of the head, for the plan."""
        return "its head is kept" if self.head is None else str(self.head)

    def to_json(self) -> dict[str, Any]:
        """The source, and the new head if there is one."""
        head = {} if self.head is None else {"head": self.head.to_json()}
        return {"source": self.source, **head}


def neutral(backbone: BackboneSpec) -> BackboneSpec:
    """The backbone with gates that start at 1, which leave a trained model unchanged."""
    return replace(backbone, options=replace(backbone.options, dia_start="one"))


def fit_new_branches(network: Network, data: DataSource, *, seed: int) -> None:
    """Fit the branches that a trained model lacks to its own, on training images; in place.

    Args:
        network: as of `fit_branches`.
        data: gives the images, without augmentation.
        seed: seed of their choice and of all draws.
    """
    plain = Recipe(epochs=1, batch_size=min(FITTED_IMAGES, data.num_images("train")))
    batches = data.train_batches(plain, seed=seed, epoch=0, device=torch.device("cpu"))
    images, _ = next(iter(batches))
    fit_branches(network, images, seed=seed)
