"""A new head for other classes, fitted in closed form to a trained model's frozen features.

The head of every family is one linear map from pooled features to logits. Where the classes differ
from those that a model was trained on, a new one starts as a linear probe: ridge regression from
the features to one-hot targets, with features and targets centred, which an intercept does, solved
exactly in float64. A regression's predictions lie near 0 and 1, and as logits they would say
almost nothing: they are multiplied by the number that gives them the least cross entropy. That
number is found on leave-one-out predictions, since those of the images that were fitted to would
ask for ever larger ones as soon as there are as many features as images. For ridge regression they
have a closed form: with residual e and leverage h of an image, its residual without it is
e / (1 - h).

Shape letters: N images, D features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.data.source import Batch, DataSource
from sharedattn.networks.network import Network
from sharedattn.recipe import Recipe

MAX_IMAGES = 4096
"""Most training images that a head is fitted to."""

RIDGE = 1e-2
"""The penalty, as a share of the features' mean variance.

Of 1e-4 to 1, on the features of a small ViT trained on ten digits and fitted to four groups of
them, 1e-2 has the best top-1 on validation with 700 images (0.955), and is within 0.035 of the
best with 26, 70 and 200.
"""

_LEAST_BATCH = 32  # epochs have no incomplete batches, so sizes from this to twice it are tried
_NUM_BISECTIONS = 60  # of an interval of some tens, to the last bits of float64


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHead:
    """The replacement of a trained model's head.

    Attributes:
        trained_classes: classes of the head that it replaces, or 0 if there is none.
        num_classes: its classes.
        num_images: training images that it is fitted to, or 0 for a detector's or segmenter's,
            which begins as it is built.
    """

    trained_classes: int
    num_classes: int
    num_images: int

    @property
    def is_fitted(self) -> bool:
        """Whether it is fitted before it is trained."""
        return self.num_images > 0

    def __str__(self) -> str:
        new = f"one of {self.num_classes:,}"
        if not self.is_fitted:
            old = f" of {self.trained_classes:,} classes" * bool(self.trained_classes)
            return f"its head{old} is left out; {new} begins untrained"
        return (
            f"the head of {self.trained_classes:,} classes is replaced by {new}"
            if self.trained_classes
            else f"there is no head; {new} classes is added"
        ) + f", fitted to {self.num_images:,} training images"

    def to_json(self) -> dict[str, Any]:
        """Every field by name, and the ridge."""
        return {**asdict(self), "ridge": RIDGE}


def num_fitted_images(data: DataSource) -> int:
    """The number of images that a head is fitted to: `MAX_IMAGES`, or about all."""
    num_batches, batch_size = _batches(data)
    return num_batches * batch_size


def fitted_head(
    network: Network,
    head: str,
    data: DataSource,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Fit a head to a trained network's features of training images without augmentation.

    Args:
        network: an all-vanilla network with its trained weights, on `device`.
        head: name of the linear map of the network that gives its logits.
        data: gives the images, the first of an epoch, and the number of classes.
        seed: seed of their choice.
        device: device that computes the features.

    Returns:
        Weights (C, D) and biases (C,), float32, on the CPU.

    Raises:
        FloatingPointError: the features are not finite.
    """
    num_batches, batch_size = _batches(data)
    plain = Recipe(epochs=1, batch_size=batch_size)
    device = torch.device(device)
    batches = data.train_batches(plain, seed=seed, epoch=0, device=device)
    first = (batch for _, batch in zip(range(num_batches), batches, strict=False))
    features_ND, labels_N = _features(network, head, first)
    weight_CD, bias_C = solve_head(features_ND, labels_N, data.num_classes)
    return weight_CD.float(), bias_C.float()


def solve_head(features_ND: Tensor, labels_N: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The scaled ridge regression from features to one-hot targets.

    Args:
        features_ND: (N, D).
        labels_N: (N,), int64.
        num_classes: C.

    Returns:
        Weights (C, D) and biases (C,) of the logits, float64.

    Raises:
        FloatingPointError: a feature is not finite.
    """
    x_ND = features_ND.double()
    if not bool(x_ND.isfinite().all()):
        raise FloatingPointError("the trained model's features of training images are not finite")
    y_NC = F.one_hot(labels_N, num_classes).double()
    mean_D, mean_C = x_ND.mean(0), y_NC.mean(0)
    x_ND, y_NC = x_ND - mean_D, y_NC - mean_C
    gram_DD = x_ND.T @ x_ND
    # The least positive number where all features are constant: the weights are then zero.
    penalty = max(RIDGE * float(gram_DD.diagonal().mean()), torch.finfo(torch.float64).tiny)
    factor_DD = torch.linalg.cholesky(gram_DD + penalty * torch.eye(len(gram_DD)).double())
    weight_DC = torch.cholesky_solve(x_ND.T @ y_NC, factor_DD)
    leverage_N = 1 / len(x_ND) + (x_ND * torch.cholesky_solve(x_ND.T, factor_DD).T).sum(1)
    residual_NC = (y_NC - x_ND @ weight_DC) / (1 - leverage_N).clamp_min(1e-12)[:, None]
    scale = _scale(y_NC + mean_C - residual_NC, labels_N)
    return scale * weight_DC.T, scale * (mean_C - mean_D @ weight_DC)


def _scale(predictions_NC: Tensor, labels_N: Tensor) -> float:
    """The factor of predictions that gives, as logits, the least cross entropy.

    It is 0 where they are no better than none. It is at most log((C - 1) N), by which an exactly
    one-hot prediction gets the probability N / (N + 1): N images cannot tell of more.
    """
    num_images, num_classes = predictions_NC.shape
    low, high = 0.0, math.log(max(1, num_classes - 1) * num_images)
    right_N = predictions_NC.gather(1, labels_N[:, None])[:, 0]
    for _ in range(_NUM_BISECTIONS):
        scale = (low + high) / 2
        expected_N = ((scale * predictions_NC).softmax(1) * predictions_NC).sum(1)
        # The cross entropy is convex in the scale; this is its slope.
        if float((expected_N - right_N).mean()) < 0:
            low = scale
        else:
            high = scale
    return (low + high) / 2


def _batches(data: DataSource) -> tuple[int, int]:
    """Number and size of the batches that a head is fitted to, with as many images as possible."""
    most = min(MAX_IMAGES, data.num_images("train"))
    sizes = range(min(_LEAST_BATCH, most), min(2 * _LEAST_BATCH, most) + 1)
    size = max(sizes, key=lambda size: (most // size * size, size))
    return most // size, size


@torch.no_grad()
def _features(network: Network, head: str, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """What the head sees, (N, D), and the labels, (N,), on the CPU."""
    network.eval()
    features, labels = [], []
    with _inputs_of(network.get_submodule(head)) as seen:
        for images, labels_B in batches:
            network(images)
            features.append(seen.pop().cpu())
            labels.append(labels_B.cpu())
    return torch.cat(features), torch.cat(labels)


@contextmanager
def _inputs_of(head: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a head is given, (B, D) for each batch."""
    seen: list[Tensor] = []

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    handle = head.register_forward_pre_hook(see)
    try:
        yield seen
    finally:
        handle.remove()
