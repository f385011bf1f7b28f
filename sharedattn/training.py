"""One training loop and one evaluation, used by search, verify and train alike."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F

from sharedattn.backbones import build, describe
from sharedattn.data import DataSource, Split
from sharedattn.errors import InputError
from sharedattn.legality import check_diagonality
from sharedattn.network import Network
from sharedattn.placement import Envelope, NetworkSpec
from sharedattn.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an evaluation found.

    Attributes:
        top1: share of images whose class is the first guess, 0 to 1.
        loss: mean cross entropy, in nats.
        num_images: images evaluated.
    """

    top1: float
    loss: float
    num_images: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of a learning curve.

    Attributes:
        epoch: epochs finished, from 1.
        train_loss: mean training loss of this epoch, all its terms.
        validation: metrics after this epoch, where they were asked for.
    """

    epoch: int
    train_loss: float
    validation: Metrics | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Epoch:
        """The inverse of `to_json`."""
        validation = document["validation"]
        return cls(
            document["epoch"],
            document["train_loss"],
            None if validation is None else Metrics(**validation),
        )


@dataclass(frozen=True, slots=True)
class Training:
    """The outcome of a training.

    Attributes:
        network: the trained network, averaged where the recipe says so, in eval mode.
        curve: one point an epoch; the last holds the final validation metrics.
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
        scheme: `timm`: leave what the build drew; `torch`: `reset_parameters` of every linear
            and convolution layer.
    """
    if scheme == "torch":
        for module in network.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.reset_parameters()


class Trainer:
    """The training of one placement, epoch by epoch, from scratch or from a checkpoint.

    Equal arguments give equal results on equal versions and threads, in one go or from a
    checkpoint on: it draws from torch's generators as from its own, whatever else drew from them
    between two epochs.

    Args:
        spec: the network.
        data: its training and validation splits; the test split is not touched.
        recipe: how to train.
        seed: of the initialisation, the order of images, augmentation and dropout.
        device: where to train.

    Attributes:
        network: what is trained.
        curve: one point an epoch that is finished.

    Raises:
        InputError: data that does not fit the network, an optimiser or schedule that timm does
            not know, or a diagonality term of maps without a diagonal.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        data: DataSource,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        check_fit(spec, data)
        _check_diagonality(spec, recipe, Envelope.of(spec.placement))
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._device = torch.device(device)
        torch.manual_seed(seed)
        self.network = build(spec, drop_path_rate=recipe.drop_path_rate)
        initialise(self.network, recipe.init)
        self.network.to(self._device).train()
        self.network.grad_checkpointing = recipe.grad_checkpointing
        self._steps_per_epoch = _steps_per_epoch(data, recipe)
        self._optimizer = _optimizer(self.network, recipe)
        self._schedule = Schedule(self._optimizer, recipe, self._steps_per_epoch)
        self._ema = (
            ModelEmaV3(self.network, decay=recipe.ema_decay)
            if recipe.ema_decay is not None
            else None
        )
        self._random_state = self._generator_states()
        self._wall_time_s = 0.0
        self.curve: list[Epoch] = []

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.curve)

    @property
    def finished(self) -> bool:
        """Whether all of the recipe's epochs are."""
        return self.epoch == self._recipe.epochs

    def run_epoch(self, *, validate: bool = False) -> Epoch:
        """Train for one epoch more.

        Args:
            validate: whether to evaluate afterwards; the last epoch always does.

        Returns:
            The new last point of the curve.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        started = time.perf_counter()
        self._restore_generators()
        train_loss = self._train_epoch()
        if not math.isfinite(train_loss):
            raise FloatingPointError(
                f"`the training loss is finite` must hold, but it is {train_loss} after epoch "
                f"{self.epoch + 1}; lower the learning rate or clip the gradient"
            )
        self._random_state = self._generator_states()
        metrics = (
            evaluate(
                self._evaluated,
                self._data,
                "validation",
                batch_size=self._recipe.batch_size,
                device=self._device,
            )
            if validate or self.epoch + 1 == self._recipe.epochs
            else None
        )
        self.curve.append(Epoch(self.epoch + 1, train_loss, metrics))
        self._wall_time_s += time.perf_counter() - started
        return self.curve[-1]

    def result(self) -> Training:
        """The finished training."""
        assert self.finished
        return Training(self._evaluated.eval(), tuple(self.curve), self._wall_time_s)

    def state_dict(self) -> dict[str, Any]:
        """All that a training goes on from: tensors, numbers and texts alone."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "random": self._random_state,
            "curve": [epoch.to_json() for epoch in self.curve],
            "wall_time_s": self._wall_time_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the `state_dict` of a training of the same arguments."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        self._random_state = state["random"]
        self.curve = [Epoch.from_json(document) for document in state["curve"]]
        self._wall_time_s = state["wall_time_s"]

    @property
    def _evaluated(self) -> Network:
        evaluated: Network = self.network if self._ema is None else self._ema.module
        return evaluated

    def _train_epoch(self) -> float:
        """One pass over the training data; the mean loss of its steps."""
        recipe = self._recipe
        self.network.train()
        loss_sum = torch.zeros((), device=self._device)
        update = self.epoch * self._steps_per_epoch
        self._schedule.step_update(update)
        batches = self._data.train_batches(
            recipe, seed=self._seed, epoch=self.epoch, device=self._device
        )
        for images, labels in batches:
            with _autocast(recipe, self._device):
                loss = _loss(self.network, images, labels, recipe)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_grad_norm)
            self._optimizer.step()
            update += 1
            self._schedule.step_update(update)
            if self._ema is not None:
                self._ema.update(self.network, step=update)
            loss_sum += loss.detach()
        return loss_sum.item() / self._steps_per_epoch

    def _generator_states(self) -> list[torch.Tensor]:
        """States of the generators that training draws from: the CPU's and the device's."""
        states = [torch.get_rng_state()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states

    def _restore_generators(self) -> None:
        torch.set_rng_state(self._random_state[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(self._random_state[1], self._device)


def train(
    spec: NetworkSpec,
    data: DataSource,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    validate_at: Collection[int] = (),
) -> Training:
    """Train one placement from scratch, in one go, and evaluate it on validation data.

    Args:
        spec: as of `Trainer`, as are the four that follow.
        data: its splits.
        recipe: how to train.
        seed: of everything drawn.
        device: where to train.
        validate_at: epochs to evaluate after, besides the last.

    Returns:
        The trained network, its curve and the time it took.

    Raises:
        InputError: as `Trainer`.
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
) -> Metrics:
    """Accuracy and loss of a network on all images of a split, in eval mode and float32.

    Raises:
        FloatingPointError: the logits are not finite.
    """
    device = torch.device(device)
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    num_images = 0
    for images, labels in data.eval_batches(split, batch_size=batch_size, device=device):
        logits = network(images)
        correct += (logits.argmax(dim=1) == labels).sum()
        loss_sum += F.cross_entropy(logits, labels, reduction="sum").double()
        num_images += len(labels)
    loss = loss_sum.item() / num_images
    if not math.isfinite(loss):
        raise FloatingPointError(f"`the {split} loss is finite` must hold, but it is {loss}")
    return Metrics(correct.item() / num_images, loss, num_images)


def check_recipe(
    spec: NetworkSpec, data: DataSource, recipe: Recipe, envelope: Envelope | None = None
) -> None:
    """Refuse, before anything is trained, what `train` would refuse; draws no random number.

    Args:
        spec: any network of those to be trained.
        data: what they are trained on.
        recipe: how.
        envelope: holds the placements of all of them; None: there is but one.

    Raises:
        InputError: as `train`.
    """
    check_fit(spec, data)
    _check_diagonality(spec, recipe, envelope or Envelope.of(spec.placement))
    with torch.device("meta"):
        network = build(spec, drop_path_rate=recipe.drop_path_rate)
    Schedule(_optimizer(network, recipe), recipe, _steps_per_epoch(data, recipe))


def _check_diagonality(spec: NetworkSpec, recipe: Recipe, envelope: Envelope) -> None:
    if recipe.diagonality_weight:
        check_diagonality(describe(spec.backbone), envelope)


def _steps_per_epoch(data: DataSource, recipe: Recipe) -> int:
    steps = data.num_images("train") // recipe.batch_size
    if not steps:
        raise InputError(
            f"`batch_size <= training images` must hold, but got {recipe.batch_size} and "
            f"{data.num_images('train')}; choose a recipe with smaller batches"
        )
    if (recipe.mixup or recipe.cutmix) and recipe.batch_size % 2:
        raise InputError(
            f"`mixup and cutmix pair the images of a batch, so batch_size is even` must hold, "
            f"but got {recipe.batch_size}"
        )
    return steps


def check_fit(spec: NetworkSpec, data: DataSource) -> None:
    """Refuse data whose channels or classes are not the network's.

    Raises:
        InputError: says which of them differ.
    """
    for name in ("in_chans", "num_classes"):
        ours, theirs = getattr(spec.backbone, name), getattr(data, name)
        if ours != theirs:
            raise InputError(
                f"`{name} of the network and of the data agree` must hold, but the network has "
                f"{ours} and {data.name} has {theirs}"
            )


def _loss(
    network: Network, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    collect = frozenset({"diagonality"}) if recipe.diagonality_weight else frozenset[str]()
    result = network.run(images, collect=collect)
    # Mixed labels (B, classes) are smoothed by timm's Mixup already.
    smoothing = recipe.label_smoothing if labels.ndim == 1 else 0.0
    loss = F.cross_entropy(result.logits.float(), labels, label_smoothing=smoothing)
    if result.diagonality is not None:
        loss = loss + recipe.diagonality_weight * result.diagonality
    return loss


@contextmanager
def _autocast(recipe: Recipe, device: torch.device) -> Iterator[None]:
    if recipe.amp == "none" or device.type == "cpu":
        yield
    else:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            network,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            **dict(recipe.optimizer_options),
        )
        return optimizer
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"`the recipe's optimiser is timm's and takes its options` must hold, but "
            f"{recipe.optimizer!r} with {dict(recipe.optimizer_options)} is refused: {error}"
        ) from error


class Schedule:
    """The learning rate of every update: timm's schedule, from rung to rung.

    A trial that is judged in the middle of one long descent of the learning rate is judged by
    noise, so with rungs the schedule comes down at each of them and starts again, each descent with
    its share of the warm-up, like the warm restarts of Loshchilov and Hutter (2017, arXiv
    1608.03983). Without rungs it is one descent.

    Args:
        optimizer: whose learning rates are set.
        recipe: names the schedule and its rungs.
        steps_per_epoch: updates of an epoch.

    Raises:
        InputError: no schedule of timm's that goes by updates.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int
    ) -> None:
        bounds = (0, *recipe.rungs, recipe.epochs)
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
            f"`the recipe's schedule is timm's` must hold, but {recipe.schedule!r} is refused: "
            f"{error}"
        ) from error
    if scheduler is None:
        raise InputError(
            f"`the recipe's schedule is timm's` must hold, but got {recipe.schedule!r}; "
            f"try cosine or constant"
        )
    return scheduler
