"""One training loop and one evaluation, used by search, verify and train alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, slots=True)
class Training:
    """The outcome of a training.

    Attributes:
        network: the trained network, averaged where the recipe says so, in eval mode.
        curve: one point an epoch; the last holds the final validation metrics.
        wall_time_s: seconds from first step to last evaluation.
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


def train(
    spec: NetworkSpec,
    data: DataSource,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] | None = None,
    validate_every: int | None = None,
) -> Training:
    """Train one placement from scratch and evaluate it on validation data.

    Equal arguments give equal results on equal versions and threads; nothing else is drawn from.

    Args:
        spec: the network.
        data: its training and validation splits; the test split is not touched.
        recipe: how to train.
        seed: of the initialisation, the order of images, augmentation and dropout.
        device: where to train.
        on_epoch: called after each epoch; may raise to stop the training.
        validate_every: epochs between validations; None: after the last epoch only.

    Returns:
        The trained network, its curve and the time it took.

    Raises:
        InputError: data that does not fit the network, an optimiser or schedule that timm does
            not know, or a diagonality term of maps without a diagonal.
        FloatingPointError: the loss is no longer finite.
    """
    check_fit(spec, data)
    _check_diagonality(spec, recipe, Envelope.of(spec.placement))
    device = torch.device(device)
    torch.manual_seed(seed)
    network = build(spec, drop_path_rate=recipe.drop_path_rate)
    initialise(network, recipe.init)
    network.to(device).train()
    network.grad_checkpointing = recipe.grad_checkpointing
    steps_per_epoch = _steps_per_epoch(data, recipe)
    optimizer = _optimizer(network, recipe)
    scheduler = _scheduler(optimizer, recipe, steps_per_epoch)
    ema = ModelEmaV3(network, decay=recipe.ema_decay) if recipe.ema_decay is not None else None
    evaluated: Any = network if ema is None else ema.module

    curve: list[Epoch] = []
    started = time.perf_counter()
    for epoch in range(recipe.epochs):
        network.train()
        loss_sum = torch.zeros((), device=device)
        batches = data.train_batches(recipe, seed=seed, epoch=epoch, device=device)
        for step, (images, labels) in enumerate(batches):
            with _autocast(recipe, device):
                loss = _loss(network, images, labels, recipe)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_grad_norm)
            optimizer.step()
            update = epoch * steps_per_epoch + step + 1
            scheduler.step_update(update)
            if ema is not None:
                ema.update(network, step=update)
            loss_sum += loss.detach()
        train_loss = loss_sum.item() / steps_per_epoch
        if not math.isfinite(train_loss):
            raise FloatingPointError(
                f"`the training loss is finite` must hold, but it is {train_loss} after epoch "
                f"{epoch + 1}; lower the learning rate or clip the gradient"
            )
        last = epoch + 1 == recipe.epochs
        due = last or (validate_every is not None and (epoch + 1) % validate_every == 0)
        metrics = (
            evaluate(evaluated, data, "validation", batch_size=recipe.batch_size, device=device)
            if due
            else None
        )
        curve.append(Epoch(epoch + 1, train_loss, metrics))
        if on_epoch is not None:
            on_epoch(curve[-1])
    return Training(evaluated.eval(), tuple(curve), time.perf_counter() - started)


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
    _scheduler(_optimizer(network, recipe), recipe, _steps_per_epoch(data, recipe))


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


def _scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> Any:
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.schedule,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
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
