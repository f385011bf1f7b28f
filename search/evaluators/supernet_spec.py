"""Description of a supernet: its space, its recipe, and its initial network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch

from sharedattn.backbones import build, describe, resolve
from sharedattn.data import DataSource
from sharedattn.errors import InputError
from sharedattn.hashing import document_key
from sharedattn.networks.network import Network
from sharedattn.placement import Envelope, NetworkSpec, Placement, ResolvedSpec
from sharedattn.recipe import Recipe
from sharedattn.spaces.budget import Budget, BudgetedSpace
from sharedattn.spaces.space import Space
from sharedattn.supernet.trainer import SupernetRecipe, supernet_network
from sharedattn.weights.branch_fit import fit_branches
from sharedattn.weights.extract import extract
from sharedattn.weights.pretrained import load_pretrained, start_from, weights_digest

FITTED_IMAGES = 256  # training images to which external memories are fitted


@dataclass(frozen=True)
class SupernetSpec:
    """One supernet over a space.

    Attributes:
        space: the space.
        budget: bounds on placements; those beyond are not trained.
        recipe: how to train and evaluate the supernet.
        seed: seed of its initialisation and training.
        pretrained: file, folder or `timm` of the initial weights, or None for random ones.
        pretrained_sha256: hash of those weights; see `weights_digest`.
    """

    space: Space
    budget: Budget
    recipe: SupernetRecipe
    seed: int
    pretrained: str | None = None
    pretrained_sha256: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone, since a worker counts the space itself."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def key(self) -> str:
        """Identifies the space, the budget and the supernet's initial weights."""
        document = {
            "space": self.space.to_document(),
            **self.budget.to_document(),
            "pretrained": self.pretrained_sha256,
        }
        return document_key(document)

    @cached_property
    def counted(self) -> BudgetedSpace:
        """The placements within the budget."""
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

    def started_network(self, data: DataSource) -> Network:
        """The network at the start of its training.

        Args:
            data: its training images are used to fit new branches of a pretrained model.

        Raises:
            InputError: the pretrained weights have changed since the search was prepared.
        """
        network = self.network()
        if self.pretrained is not None:
            self._start(network, data)
        return network

    def cut(self, placement: Placement, data: DataSource, drop_path_rate: float) -> Network:
        """A placement's own network with its share of the trained model's weights.

        Args:
            placement: canonical on the backbone, inside the space or not.
            data: as in `started_network`.
            drop_path_rate: stochastic depth of the backbone's last block.

        Raises:
            InputError: as of `started_network`.
        """
        envelope = Envelope.of(placement, self.largest)
        network = supernet_network(self.space.backbone, envelope, self.recipe, seed=self.seed)
        self._start(network, data)
        return extract(network, placement, drop_path_rate=drop_path_rate)

    def _start(self, network: Network, data: DataSource) -> None:
        """Load the trained model into a network, and fit its new branches."""
        self._load_pretrained(network)
        plain = Recipe(epochs=1, batch_size=min(FITTED_IMAGES, data.num_images("train")))
        batches = data.train_batches(plain, seed=self.seed, epoch=0, device=torch.device("cpu"))
        images, _ = next(iter(batches))
        fit_branches(network, images, seed=self.seed)

    def pretrained_network(self) -> Network:
        """The trained model as it came, all-vanilla at full depth.

        Raises:
            InputError: as of `started_network`.
        """
        network = build(self.largest_network)
        self._load_pretrained(network)
        return network

    def _load_pretrained(self, network: Network) -> None:
        assert self.pretrained is not None
        state = load_pretrained(self.pretrained, network.backbone)
        if weights_digest(state) != self.pretrained_sha256:
            raise InputError(
                f"{self.pretrained} holds other weights than those that the search began with; "
                f"begin another study with them"
            )
        start_from(network, state)
