"""Description of a supernet: its space, its recipe, and its initial network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from sharedattn.backbones import describe, resolve
from sharedattn.data import DataSource
from sharedattn.hashing import document_key
from sharedattn.networks.network import Network
from sharedattn.placement import Envelope, NetworkSpec, Placement, ResolvedSpec
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.supernet.trainer import SupernetRecipe, supernet_network
from sharedattn.weights.head_fit import NewHead
from sharedattn.weights.trained_start import TrainedStart, fit_new_branches

WHOLE_SPACE = "space"
"""The entry `supernet_of` of the fingerprint of a study with a budget whose supernet has none."""


@dataclass(frozen=True)
class SupernetSpec:
    """One supernet over a space, which serves searches of every budget.

    Attributes:
        space: the space.
        recipe: how to train and evaluate the supernet.
        seed: seed of its initialisation and training.
        budget: bounds beyond which no placement was trained; none but for supernets of earlier
            versions, which had one for each budget.
        pretrained: file, folder or `timm` of the initial weights, or None for random ones.
        pretrained_sha256: hash of those weights, and of a new head; see `weights_digest`.
        head: the head that takes the place of theirs, or None to keep theirs.
    """

    space: Space
    recipe: SupernetRecipe
    seed: int
    budget: Budget = Budget()
    pretrained: str | None = None
    pretrained_sha256: str | None = None
    head: NewHead | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone, since a worker counts the space itself."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def key(self) -> str:
        """Identifies the trained placements and the supernet's initial weights."""
        document = {
            "space": self.space.to_document(),
            **self.budget.to_document(),
            "pretrained": self.pretrained_sha256,
        }
        return document_key(document)

    @cached_property
    def counted(self) -> BudgetedSpace:
        """The placements that are trained."""
        return BudgetedSpace(self.space, self.budget)

    @cached_property
    def largest(self) -> Placement:
        """All-vanilla at full depth, even if the space lacks it."""
        return Placement.all_vanilla(describe(self.space.backbone).depths)

    @property
    def largest_network(self) -> ResolvedSpec:
        """The network of the largest placement."""
        return resolve(NetworkSpec(self.space.backbone, self.largest))

    @cached_property
    def envelope(self) -> Envelope:
        """The envelope of the space's placements and the largest."""
        return self.space.envelope().union(Envelope.of(self.largest))

    def network(self) -> Network:
        """The network, randomly initialised."""
        return supernet_network(self.space.backbone, self.envelope, self.recipe, seed=self.seed)

    @property
    def start(self) -> TrainedStart | None:
        """The trained model that it starts from, or None for random weights."""
        if self.pretrained is None:
            return None
        assert self.pretrained_sha256 is not None
        return TrainedStart(
            source=self.pretrained,
            backbone=self.space.backbone,
            sha256=self.pretrained_sha256,
            head=self.head,
        )

    def started_network(self, data: DataSource, device: str = "cpu") -> Network:
        """The network at the start of its training.

        Args:
            data: its training images are used to fit a new head and new branches of a pretrained
                model.
            device: device that computes a new head's features; the network stays on the CPU.

        Raises:
            InputError: the pretrained weights have changed since the search was prepared.
            FloatingPointError: the pretrained model's features are not finite.
        """
        network = self.network()
        if self.start is not None:
            self.start.load_into(network, data, seed=self.seed, device=device)
            fit_new_branches(network, data, seed=self.seed)
        return network

    def pretrained_network(self, data: DataSource, device: str = "cpu") -> Network:
        """The trained model, all-vanilla at full depth: as it came, or with its new head.

        Args:
            data: as of `started_network`, as is `device`.
            device: device that computes a new head's features.

        Raises:
            InputError: as of `started_network`.
            FloatingPointError: as of `started_network`.
        """
        assert self.start is not None
        return self.start.teacher(data, seed=self.seed, device=device)
