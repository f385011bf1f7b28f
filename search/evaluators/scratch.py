"""Training from scratch: every placement gets the whole recipe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

from results.records import Fidelity
from results.weights import WeightsStore
from search.evaluators.base import Evaluator, Measurement, Task
from sharedattn.data import DataConfig, open_data
from sharedattn.recipe import Recipe
from sharedattn.training import train


@dataclass(frozen=True)
class ScratchEvaluator(Evaluator):
    """Trains a placement from its initialisation, and keeps the weights.

    Attributes:
        data: the data, opened in each worker once.
        recipe: how to train.
        weights: where the trained weights are put; None: nowhere.
        device: where to train.
    """

    data: DataConfig
    recipe: Recipe
    weights: WeightsStore | None = None
    device: str = "cpu"

    @property
    def recipe_key(self) -> str:
        return self.recipe.key

    @cached_property
    def data_fingerprint(self) -> str:
        return open_data(self.data).fingerprint

    @cached_property
    def fidelity(self) -> Fidelity:
        return Fidelity(epochs=self.recipe.epochs, image_size=open_data(self.data).image_size)

    def evaluate(self, task: Task) -> Measurement:
        started = time.perf_counter()
        training = train(
            task.spec, open_data(self.data), self.recipe, seed=task.seed, device=self.device
        )
        sha256 = None
        if self.weights is not None:
            sha256 = self.weights.save(task.identity.key, training.network.state_dict())
        return Measurement(
            split="validation",
            top1=training.metrics.top1,
            loss=training.metrics.loss,
            num_images=training.metrics.num_images,
            wall_time_s=time.perf_counter() - started,
            device=self.device,
            learning_curve=tuple(epoch.to_json() for epoch in training.curve),
            weights_sha256=sha256,
        )
