"""Training one placement from existing weights."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sharedattn.backbones import build
from sharedattn.data import DataSource
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import StartChangedError
from sharedattn.networks.network import Network
from sharedattn.placement import ResolvedSpec
from sharedattn.progress import OnProgress
from sharedattn.recipe import Recipe
from sharedattn.results.export.folder import ExportRecord, exported_weights, read_export
from sharedattn.results.records import EpochMetrics, fine_tuning_key
from sharedattn.search.evaluators.base import Measurement, Task
from sharedattn.search.evaluators.scratch import ScratchEvaluator, ThroughScratch
from sharedattn.search.evaluators.supernet import SupernetEvaluator


class NetworkStart(Protocol):
    """Existing weights that a network's training starts from; picklable."""

    @property
    def sha256(self) -> str:
        """Identifies the weights."""

    @property
    def has_trained_head(self) -> bool:
        """Whether their network says something of the data before it is trained."""

    def network(
        self, spec: ResolvedSpec, recipe: Recipe, data: DataSource, *, seed: int, device: str
    ) -> Network:
        """The network with the weights, ready to train.

        Args:
            spec: the network.
            recipe: gives the stochastic depth.
            data: the data that it is trained on.
            seed: seed of all draws.
            device: device of computations; the network may be on another.

        Raises:
            InputError: the weights are gone, or others than before.
        """

    def teacher(self, data: DataSource, *, seed: int, device: str) -> Network | None:
        """The trained model behind the weights, for distillation; None if there is none to have.

        Args:
            data: as of `network`, as are the others.
            seed: seed of all draws.
            device: device of computations; the model may be on another.

        Raises:
            InputError: the model's weights are gone, or others than before.
        """


@dataclass(frozen=True, slots=True)
class SharedStart:
    """A placement's share of a supernet's weights.

    Attributes:
        supernet: loads them.
        sha256: hash of the supernet's weights.
    """

    supernet: SupernetEvaluator
    sha256: str

    has_trained_head = True

    def network(
        self, spec: ResolvedSpec, recipe: Recipe, data: DataSource, *, seed: int, device: str
    ) -> Network:
        return self.supernet.member(spec.placement, self.sha256)

    def teacher(self, data: DataSource, *, seed: int, device: str) -> Network:
        return self.supernet.teacher()


@dataclass(frozen=True, slots=True)
class ExportStart:
    """The weights of an exported folder.

    Attributes:
        folder: the folder.
        sha256: hash of its weights' file.
        epochs: epochs of training behind them.
    """

    folder: str
    sha256: str
    epochs: int

    has_trained_head = True

    @classmethod
    def of(cls, folder: Path, record: ExportRecord) -> ExportStart:
        """Look at an exported folder.

        Raises:
            InputError: its weights are absent, or not the recorded ones.
        """
        exported_weights(folder, record)
        before = 0 if record.origin is None else record.origin.epochs or 0
        epochs = before + record.evaluation.identity.fidelity.epochs
        return cls(str(folder), str(record.evaluation.weights_sha256), epochs)

    @property
    def text(self) -> str:
        """What becomes of the weights, for the plan."""
        return f"gone on from, after {self.epochs:,} epoch{'' if self.epochs == 1 else 's'}"

    def to_json(self) -> dict[str, str | int]:
        """The folder, and the epochs behind its weights."""
        return {"source": self.folder, "epochs": self.epochs}

    def network(
        self, spec: ResolvedSpec, recipe: Recipe, data: DataSource, *, seed: int, device: str
    ) -> Network:
        record = read_export(Path(self.folder))
        if record.evaluation.weights_sha256 != self.sha256:
            raise StartChangedError(
                f"{self.folder} holds other weights than when this training began; begin it again"
            )
        network = build(spec, drop_path_rate=recipe.drop_path_rate)
        network.load_state_dict(exported_weights(Path(self.folder), record))
        return network

    def teacher(self, data: DataSource, *, seed: int, device: str) -> None:
        """None: an export does not have the model that it was cut from."""


@dataclass(frozen=True)
class StartedEvaluator(ThroughScratch):
    """Trains a placement from existing weights, and stores the result.

    Attributes:
        scratch: trains it.
        start: the weights.
        rank: rank of this process among those that train it together.
    """

    scratch: ScratchEvaluator
    start: NetworkStart
    rank: Rank = ALONE

    @property
    def recipe_key(self) -> str:
        return fine_tuning_key(self.scratch.recipe_key, self.start.sha256)

    def evaluate(
        self, task: Task, on_progress: OnProgress | None = None
    ) -> Generator[EpochMetrics, None, Measurement]:
        own = replace(self.scratch, rank=self.rank)
        network = self.start.network(
            task.spec, own.recipe, own.opened(), seed=task.seed, device=own.device
        )
        teacher = None
        if own.recipe.distillation:
            teacher = self.start.teacher(own.opened(), seed=task.seed, device=own.device)
        return (yield from own.train(task, network, teacher=teacher, on_progress=on_progress))
