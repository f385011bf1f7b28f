"""The training loop and the evaluation that search, verify and train share."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharedattn.backbones import build, build_network
from sharedattn.data import DataSource, Split
from sharedattn.distributed import ALONE, Rank
from sharedattn.errors import InputError
from sharedattn.hashing import derived_seed
from sharedattn.mechanisms.scores import sums_dtype
from sharedattn.networks.legality import check_diagonality
from sharedattn.networks.network import Network, RunResult
from sharedattn.placement import BackboneSpec, Envelope, Placement, ResolvedSpec
from sharedattn.progress import OnProgress, TrainingMeter
from sharedattn.recipe import Recipe
from sharedattn.tasks import head_kind
from sharedattn.training.acceleration import (
    autocast,
    check_compiler,
    compiled_whole,
    memory_format,
    training_settings,
    update_products,
)
from sharedattn.training.micro_batches import out_of_memory, parts_of
from sharedattn.training.tasks.interface import Example, Metrics, TaskTraining
from sharedattn.training.tasks.registry import task_training


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of a learning curve.

    Attributes:
        epoch: number of finished epochs, from 1.
        train_loss: mean training loss of this epoch, with all terms.
        validation: metrics after this epoch, or None if not evaluated.
        micro_batches: 2 if memory had run out by the end of this epoch, so that each batch was
            run in halves from there on; otherwise 1.
    """

    epoch: int
    train_loss: float
    validation: Metrics | None = None
    micro_batches: int = 1

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field; `micro_batches` is omitted if it is 1."""
        document = asdict(self)
        document["validation"] = None if self.validation is None else self.validation.to_json()
        if self.micro_batches == 1:
            del document["micro_batches"]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Epoch:
        """Invert `to_json`."""
        validation = document["validation"]
        return cls(
            document["epoch"],
            document["train_loss"],
            None if validation is None else Metrics.from_json(validation),
            document.get("micro_batches", 1),
        )


@dataclass(frozen=True, slots=True)
class Training:
    """The outcome of a training.

    Attributes:
        network: the trained network, averaged if the recipe says so, in eval mode.
        curve: one point per epoch; the last has the final validation metrics.
        wall_time_s: seconds of its epochs and evaluations.
    """

    network: Network
    curve: tuple[Epoch, ...]
    wall_time_s: float

    @property
    def metrics(self) -> Metrics:
        """Validation metrics after the last epoch."""
        last = self.curve[-1].validation
        assert last is not None
        return last


def initialise(network: nn.Module, scheme: str) -> None:
    """Re-initialise a network in place; draws from torch's global generator.

    Args:
        network: any network of the library.
        scheme: `timm` keeps the weights drawn at the build; `torch` calls `reset_parameters` of
            every linear and convolution layer, except those of a head on feature maps: a
            detector's begins with every anchor at the background.
    """
    if scheme == "torch":
        head = network.pyramid_head if isinstance(network, Network) else None
        of_head = set() if head is None else set(head.modules())
        for module in network.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module not in of_head:
                module.reset_parameters()


class EpochTrainer(ABC):
    """A training by epochs, from its start or from a checkpoint; subclasses define a step.

    Equal arguments give equal results on equal versions and threads, with or without resuming
    from a checkpoint: it reseeds torch's generators, from which it draws, for each epoch.

    Several processes can train one network, each with a trainer of its rank: all see the same
    batches in the same order, and each takes its share of every batch. The network is the same in
    all processes at every step. The result is that of one process up to the order of sums, except
    for dropout and stochastic depth, which each process draws independently.

    If the device runs out of memory on a batch, the batch is run again in two halves, and so are
    all later ones; the curve says so. If it runs out again, or cannot be cut, training fails.

    Args:
        network: the network to train, with its initial weights.
        data: the training and validation splits; the test split is not touched.
        recipe: the training recipe.
        seed: seed of the order of images, augmentation and dropout.
        device: device to train on.
        rank: rank of this process among those that train the network.
        on_progress: called about once a second with the training's progress, or None.

    Attributes:
        network: the network being trained.
        curve: one point per finished epoch.

    Raises:
        InputError: the data does not fit the network, timm does not know the optimiser or
            schedule, a diagonality term on maps without a diagonal, batches or batch norms that
            the processes cannot share, or no compiler for a recipe that compiles.
    """

    def __init__(
        self,
        network: Network,
        data: DataSource,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        rank: Rank = ALONE,
        on_progress: OnProgress | None = None,
    ) -> None:
        check_fit(network.backbone, data)
        self._task = task_training(network)
        self._task.check_recipe(recipe)
        if recipe.diagonality_weight:
            check_diagonality(network.shape, network.envelope)
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._device = torch.device(device)
        self._rank = rank
        self.network = network
        _check_batch_norms(self.network, rank.world_size, self._device)
        rank.share_batch_norms(self.network)
        if recipe.compile:
            check_compiler(self._device)
        self.network.to(self._device).train()
        self.network.to(memory_format=memory_format(recipe))
        self.network.grad_checkpointing = recipe.grad_checkpointing
        self._steps_per_epoch = _steps_per_epoch(data, recipe, rank.world_size)
        self._optimizer = _optimizer(self.network, recipe)
        self._schedule = Schedule(self._optimizer, recipe, self._steps_per_epoch)
        self._ema = (
            ModelEmaV3(self.network, decay=recipe.ema_decay)
            if recipe.ema_decay is not None
            else None
        )
        self._meter = (
            TrainingMeter(
                on_progress,
                epochs=recipe.epochs,
                steps=self._steps_per_epoch,
                batch_size=recipe.batch_size,
            )
            if on_progress is not None
            else None
        )
        self._wall_time_s = 0.0
        self._micro_batches = 1
        self.curve: list[Epoch] = []

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.curve)

    @property
    def finished(self) -> bool:
        """Whether all of the recipe's epochs are finished."""
        return self.epoch == self._recipe.epochs

    def run_epoch(self, *, validate: bool = False) -> Epoch:
        """Train for one more epoch.

        Args:
            validate: whether to evaluate afterwards; the last epoch always does.

        Returns:
            The new last point of the curve.

        Raises:
            FloatingPointError: the loss is no longer finite.
            torch.OutOfMemoryError: memory does not suffice for half a batch; the message says
                what to do.
        """
        started = time.perf_counter()
        # Random states do not outlast an epoch, so a checkpoint fits any number of processes.
        torch.manual_seed(derived_seed(self._seed, self.epoch, self._rank.index))
        train_loss = self._train_epoch()
        if not math.isfinite(train_loss):
            raise FloatingPointError(
                f"the training loss is {train_loss}, not a finite number, after epoch "
                f"{self.epoch + 1}; lower the learning rate or clip the gradient"
            )
        validates = validate or self.epoch + 1 == self._recipe.epochs
        if self._meter is not None:
            self._meter.end_epoch(train_loss, validates=validates)
        metrics = (
            evaluate(
                self._evaluated,
                self._data,
                "validation",
                placement=self._validated,
                batch_size=self._recipe.batch_size,
                device=self._device,
                rank=self._rank,
            )
            if validates
            else None
        )
        self.curve.append(Epoch(self.epoch + 1, train_loss, metrics, self._micro_batches))
        self._wall_time_s += time.perf_counter() - started
        return self.curve[-1]

    def result(self) -> Training:
        """The finished training."""
        assert self.finished
        # Files of weights hold contiguous tensors only.
        network = self._evaluated.to(memory_format=torch.contiguous_format).eval()
        return Training(network, tuple(self.curve), self._wall_time_s)

    def state_dict(self) -> dict[str, Any]:
        """The state to resume from, made of tensors, numbers and texts only."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "curve": [epoch.to_json() for epoch in self.curve],
            "wall_time_s": self._wall_time_s,
            "micro_batches": self._micro_batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the `state_dict` of a training with equal arguments."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        self.curve = [Epoch.from_json(document) for document in state["curve"]]
        self._wall_time_s = state["wall_time_s"]
        # Checkpoints of earlier versions have none.
        self._micro_batches = state.get("micro_batches", 1)

    @property
    @abstractmethod
    def _validated(self) -> Placement | None:
        """The placement to validate, or None for the network's only one."""

    @abstractmethod
    def _accumulate(self, images: torch.Tensor, labels: torch.Tensor, update: int) -> torch.Tensor:
        """Add a batch's gradients to the parameters; `update` is its number, from 0.

        Runs the batch in `_num_parts` parts, one after the other.

        Returns:
            The loss, a scalar without a graph.
        """

    @property
    def _num_parts(self) -> int:
        """Number of parts in which a batch is run."""
        return self._micro_batches

    @property
    def _evaluated(self) -> Network:
        evaluated: Network = self.network if self._ema is None else self._ema.module
        return evaluated

    def _train_epoch(self) -> float:
        """Run one pass over the training data, and return the mean loss of its steps."""
        recipe = self._recipe
        self.network.train()
        loss_sum = torch.zeros((), device=self._device)
        update = self.epoch * self._steps_per_epoch
        self._schedule.step_update(update)
        if self._meter is not None:
            self._meter.begin_epoch(self.epoch)
        batches = self._data.train_batches(
            recipe, seed=self._seed, epoch=self.epoch, device=self._device, rank=self._rank
        )
        with training_settings(recipe):
            for images, labels in batches:
                images = images.to(memory_format=memory_format(recipe))
                loss_sum += self._step(images, labels, update)
                update += 1
                self._schedule.step_update(update)
                if self._ema is not None:
                    self._ema.update(self.network, step=update)
                if self._meter is not None:
                    self._meter.count_step(loss_sum)
        self._rank.sum_(loss_sum)
        self._share_micro_batches()
        return loss_sum.item() / (self._steps_per_epoch * self._rank.world_size)

    def _step(self, images: torch.Tensor, labels: torch.Tensor, update: int) -> torch.Tensor:
        """Update the parameters on a batch, and return its loss."""
        try:
            loss = self._gradients(images, labels, update)
            self._rank.average_gradients(self.network.parameters())
            if self._recipe.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip_grad_norm)
            with update_products(self.network.parameters()):
                self._optimizer.step()
            return loss
        except torch.OutOfMemoryError as error:
            raise out_of_memory(error, len(images), self._num_parts) from error

    def _gradients(self, images: torch.Tensor, labels: torch.Tensor, update: int) -> torch.Tensor:
        """Give the parameters a batch's gradients, in halves if memory runs out."""
        # None rather than zeros: parameters unused in this update are not moved or decayed.
        self._optimizer.zero_grad(set_to_none=True)
        try:
            return self._accumulate(images, labels, update)
        except torch.OutOfMemoryError:
            if self._micro_batches > 1 or self._num_parts >= len(images) or self._syncs_norms:
                raise
        # Outside the handler, whose traceback keeps the failed pass's tensors.
        self._micro_batches = 2
        self._optimizer.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self._accumulate(images, labels, update)

    @property
    def _syncs_norms(self) -> bool:
        """Whether processes share batch norms, and so wait for each other in every pass."""
        return self._rank.world_size > 1 and _has_batch_norms(self.network)

    def _share_micro_batches(self) -> None:
        """Run batches in halves in all processes if memory ran out in one."""
        if self._rank.world_size > 1:
            halved = torch.tensor(float(self._micro_batches > 1), device=self._device)
            self._rank.sum_(halved)
            self._micro_batches = 2 if halved.item() else 1


class Trainer(EpochTrainer):
    """Trains one placement, from scratch or from given weights.

    Args:
        spec: the network.
        data: as in `EpochTrainer`.
        recipe: as in `EpochTrainer`.
        seed: as in `EpochTrainer`; also the seed of the initialisation.
        device: as in `EpochTrainer`.
        rank: as in `EpochTrainer`.
        on_progress: as in `EpochTrainer`.
        network: the spec's network with the weights to start from; by default it is built and
            initialised by the recipe.
        teacher: a trained network on the same classes, whose probabilities the recipe's
            `distillation` takes as targets; it stays as it is.

    Raises:
        InputError: as in `EpochTrainer`, or a recipe with `distillation` has no teacher.
    """

    def __init__(
        self,
        spec: ResolvedSpec,
        data: DataSource,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        rank: Rank = ALONE,
        on_progress: OnProgress | None = None,
        network: Network | None = None,
        teacher: Network | None = None,
    ) -> None:
        check_teacher(recipe, has_teacher=teacher is not None)
        torch.manual_seed(seed)
        if network is None:
            network = build(spec, drop_path_rate=recipe.drop_path_rate)
            initialise(network, recipe.init)
        super().__init__(
            network, data, recipe, seed=seed, device=device, rank=rank, on_progress=on_progress
        )
        self._run = compiled_whole(self.network, recipe)
        self._teacher = teacher if recipe.distillation else None
        if self._teacher is not None:
            # In eval mode, so that it draws nothing and its batch norms stay.
            self._teacher.to(self._device).eval()
            self._teacher.to(memory_format=memory_format(recipe))

    @property
    def _validated(self) -> None:
        return None

    def _accumulate(self, images: torch.Tensor, labels: torch.Tensor, update: int) -> torch.Tensor:
        total = torch.zeros((), device=self._device)
        for part_images, part_labels, share in parts_of(images, labels, self._num_parts):
            example = self._task.training_example(part_images, part_labels)
            with autocast(self._recipe, self._device):
                loss, _ = training_loss(
                    self._task,
                    self._run,
                    example,
                    self._recipe,
                    teacher=self._taught(example),
                    distillation=self._recipe.distillation,
                )
            loss = loss * share
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    @torch.no_grad()
    def _taught(self, example: Example) -> torch.Tensor | None:
        """The teacher's outputs (B, ...) on an example's inputs, or None without a teacher."""
        return None if self._teacher is None else self._teacher(*example.inputs)


def check_teacher(recipe: Recipe, *, has_teacher: bool) -> None:
    """Check that a recipe with distillation has a trained model to learn from.

    Raises:
        InputError: it has none.
    """
    if recipe.distillation and not has_teacher:
        raise InputError(
            f"`distillation` of the recipe is {recipe.distillation:g}, but this training starts "
            f"from no trained model that it could learn from; set it to 0, or start with --weights"
        )


def train(
    spec: ResolvedSpec,
    data: DataSource,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    validate_at: Collection[int] = (),
) -> Training:
    """Train one placement from scratch, and evaluate it on validation data.

    Args:
        spec: as in `Trainer`.
        data: as in `Trainer`.
        recipe: as in `Trainer`.
        seed: seed of all randomness.
        device: device to train on.
        validate_at: epochs to evaluate after, besides the last.

    Returns:
        The trained network, its curve and its duration.

    Raises:
        InputError: as in `Trainer`.
        FloatingPointError: the loss is no longer finite.
    """
    trainer = Trainer(spec, data, recipe, seed=seed, device=device)
    while not trainer.finished:
        trainer.run_epoch(validate=trainer.epoch + 1 in validate_at)
    return trainer.result()


@torch.inference_mode()
def evaluate(
    network: Network,
    data: DataSource,
    split: Split,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    placement: Placement | None = None,
    num_images: int | None = None,
    rank: Rank = ALONE,
) -> Metrics:
    """Measure a network's quality and loss on a split, in eval mode and float32.

    Several processes with the same network share the batches, and all return the same metrics.

    Args:
        network: any network.
        data: the data.
        split: the split to evaluate on.
        batch_size: number of images per batch.
        device: device of the network.
        placement: the placement to run; optional if the network was built for one.
        num_images: number of images, spread evenly over the split, or None for all of them.
        rank: rank of this process.

    Raises:
        FloatingPointError: the logits are not finite.
        InputError: the network cannot run the placement, or needs one and got none.
    """
    device = torch.device(device)
    network.eval()
    task = task_training(network)
    tally = task.accumulator(device)
    batches = data.eval_batches(
        split, batch_size=batch_size, device=device, at_most=num_images, rank=rank
    )
    for images, targets in batches:
        example = task.evaluation_example(images, targets)
        tally.add(network(*example.inputs, placement), example.targets)
    return tally.metrics(split, rank)


def check_recipe(
    spec: ResolvedSpec,
    data: DataSource,
    recipe: Recipe,
    envelope: Envelope | None = None,
    *,
    device: torch.device | str = "cpu",
    num_processes: int = 1,
    has_teacher: bool = False,
) -> None:
    """Check everything that `Trainer` checks, without training or drawing random numbers.

    Args:
        spec: any of the networks to train.
        data: the data to train on.
        recipe: the training recipe.
        envelope: contains the placements of all networks; defaults to that of `spec`.
        device: device to train on.
        num_processes: number of processes that train each network.
        has_teacher: whether the networks start from a trained model.

    Raises:
        InputError: as in `Trainer`.
    """
    check_fit(spec.backbone, data)
    check_teacher(recipe, has_teacher=has_teacher)
    data.check_recipe(recipe)
    if recipe.diagonality_weight:
        check_diagonality(spec.shape, envelope or Envelope.of(spec.placement))
    with torch.device("meta"):
        network = build(spec, drop_path_rate=recipe.drop_path_rate)
        task_training(network).check_recipe(recipe)
        if num_processes > 1:
            of_all = network if envelope is None else build_network(spec.backbone, envelope)
            _check_batch_norms(of_all, num_processes, torch.device(device))
    steps_per_epoch = _steps_per_epoch(data, recipe, num_processes)
    Schedule(_optimizer(network, recipe), recipe, steps_per_epoch)
    _check_update(recipe)


def _check_update(recipe: Recipe) -> None:
    """Try one update of a tiny network, since many optimisers check their options only then.

    Raises:
        InputError: the update fails.
    """
    with torch.random.fork_rng(devices=[]):
        # A network on `meta` is built without drawing random numbers.
        network = nn.Linear(2, 2, device="meta").to_empty(device="cpu")
        optimizer = _optimizer(network, recipe)
        for parameter in network.parameters():
            parameter.data.zero_()
            parameter.grad = torch.zeros_like(parameter)
        try:
            optimizer.step()
        except Exception as error:  # each optimiser raises its own kind
            why = " ".join(str(error).split())
            raise InputError(
                f"`optimizer` {recipe.optimizer!r} with `optimizer_options` "
                f"{dict(recipe.optimizer_options)} fails at its first update: {why}"
            ) from error


def _check_batch_norms(network: Network, num_processes: int, device: torch.device) -> None:
    if num_processes > 1 and _has_batch_norms(network) and device.type != "cuda":
        raise InputError(
            f"networks of {network.backbone.name} have batch norms, which processes share on GPUs "
            f"only, but {num_processes} processes would train one on {device.type}; train it by "
            f"one process"
        )


def _has_batch_norms(network: Network) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _steps_per_epoch(data: DataSource, recipe: Recipe, num_processes: int) -> int:
    steps = data.num_images("train") // recipe.batch_size
    if not steps:
        raise InputError(
            f"`batch_size` of the recipe is {recipe.batch_size}, more than the "
            f"{data.num_images('train')} training images; write a smaller one into the file of "
            f"--recipe, or of --supernet-recipe"
        )
    if recipe.batch_size % num_processes:
        raise InputError(
            f"`batch_size` of the recipe is {recipe.batch_size}, which the {num_processes} "
            f"processes of a trial do not divide; change one of the two"
        )
    share = recipe.batch_size // num_processes
    if (recipe.mixup or recipe.cutmix) and share % 2:
        raise InputError(
            f"`mixup` and `cutmix` pair the images that a process has of a batch, but "
            f"`batch_size` gives each {share}, an odd number; change batch_size"
        )
    return steps


def check_fit(backbone: BackboneSpec, data: DataSource) -> None:
    """Check that the data serves the network's task, and that channels and classes are its own.

    Raises:
        InputError: it does not, or they differ; the message says which.
    """
    head = head_kind(backbone.head)
    if head.task != data.task:
        raise InputError(
            f"`head` of the network is {head.name}, which is to {head.task}, but the labels of "
            f"{data.name} are read to {data.task}; name data and network of one task"
        )
    for name in ("in_chans", "num_classes"):
        ours, theirs = getattr(backbone, name), getattr(data, name)
        if ours != theirs:
            raise InputError(
                f"`{name}` of the network is {ours}, but {data.name} has {theirs}; write "
                f"{name}={theirs} into the backbone"
            )


def training_loss(
    task: TaskTraining,
    run: Callable[..., RunResult],
    example: Example,
    recipe: Recipe,
    placement: Placement | None = None,
    *,
    teacher: torch.Tensor | None = None,
    distillation: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the loss on a batch, and the outputs that it was computed from.

    Args:
        task: the network's task.
        run: `Network.run` of the network to train, which may be compiled.
        example: the batch, as the task makes it of images and targets.
        recipe: gives label smoothing and the weight of the diagonality term.
        placement: the placement to run, or None for the network's only one.
        teacher: outputs of a teacher, of the network's shape, or None.
        distillation: share of the loss that uses the teacher's outputs instead of the targets.

    Returns:
        A scalar with a graph, and outputs (B, ...) without one.
    """
    collect = frozenset({"diagonality"}) if recipe.diagonality_weight else frozenset[str]()
    result = run(*example.inputs, placement, collect=collect)
    outputs = result.logits.to(sums_dtype(result.logits))
    loss = task.loss(outputs, example.targets, recipe)
    if teacher is not None and distillation:
        taught = task.taught_loss(outputs, teacher)
        loss = (1.0 - distillation) * loss + distillation * taught
    if result.diagonality is not None:
        loss = loss + recipe.diagonality_weight * result.diagonality
    return loss, result.logits.detach()


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    options = dict(recipe.optimizer_options)
    if recipe.fused_optimizer:
        options["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            network,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            **options,
        )
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        if recipe.fused_optimizer:
            raise InputError(
                f"`fused_optimizer` of the recipe is true, but timm refuses `optimizer` "
                f"{recipe.optimizer!r} with `fused`: {error}; choose adamw or sgd, or leave out "
                f"fused_optimizer"
            ) from error
        raise InputError(
            f"timm refuses the recipe's `optimizer` {recipe.optimizer!r} with `optimizer_options` "
            f"{dict(recipe.optimizer_options)}: {error}"
        ) from error
    return optimizer


class Schedule:
    """The learning rate of every update: timm's schedule, as a whole or restarted at rungs.

    With restarts it descends to each rung and starts again, with a proportional share of the
    warm-up, like the warm restarts of Loshchilov and Hutter (2017, arXiv 1608.03983): a rung then
    sees settled weights, after less training at high rates.

    Args:
        optimizer: the optimiser whose learning rates are set.
        recipe: gives the schedule, its rungs, and whether it restarts there.
        steps_per_epoch: number of updates per epoch.

    Raises:
        InputError: the schedule is none of timm's that count updates.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int
    ) -> None:
        bounds = (0, *(recipe.rungs if recipe.restarts else ()), recipe.epochs)
        self._starts = [start * steps_per_epoch for start in bounds[:-1]]
        self._segments = [
            _timm_schedule(optimizer, recipe, last - first, steps_per_epoch)
            for first, last in pairwise(bounds)
        ]

    def step_update(self, update: int) -> None:
        """Set the learning rates for the update after `update` updates."""
        segment = bisect_right(self._starts, update) - 1
        self._segments[segment].step_update(update - self._starts[segment])


def _timm_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, epochs: int, steps_per_epoch: int
) -> Any:
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.schedule,
            num_epochs=epochs,
            warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs,
            warmup_lr=recipe.lr / 25.0,  # torch's one-cycle default, which the warm-up follows
            min_lr=recipe.min_lr,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
        )
    except (ValueError, AssertionError) as error:
        raise InputError(
            f"timm refuses the recipe's `schedule` {recipe.schedule!r}: {error}; try cosine or "
            f"constant"
        ) from error
    if scheduler is None:
        raise InputError(
            f"timm has none for the recipe's `schedule` {recipe.schedule!r}; try cosine or "
            f"constant"
        )
    return scheduler
