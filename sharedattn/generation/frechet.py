"""The Fréchet distance of drawn digits from real ones, on features of a classifier of digits.

Heusel et al. 2017 (arXiv 1706.08500, eq. 6) take a classifier of ImageNet for the features, which
says little of 16 x 16 pixels; here it is a small one, trained on these digits in seconds on a CPU,
from a fixed seed. Distances depend on the number of images, so that the one between two halves of
the real images stands beside it, by as many images: what no network can be expected to beat.

Shape letters: N images, F features, Y x X pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharedattn.data.whole_digits import whole_digits
from sharedattn.errors import InputError

NUM_FEATURES = 32
NUM_DRAWN = 539  # drawn digits that are as many as a half of the real ones
NUM_CUTS = 10  # of the real images in halves, over which distances are averaged
EPOCHS = 12
_SEED = 20_264

Floats = npt.NDArray[np.float64]


def frechet_distance(one_NF: Floats, other_MF: Floats) -> float:
    """The squared Fréchet distance of two normal distributions fitted to features.

    With means m and covariances C (of N - 1 degrees of freedom),

        |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^(1/2) C_2 C_1^(1/2))^(1/2)).

    Args:
        one_NF: features of some images, N > 1.
        other_MF: of others, M > 1.

    Returns:
        A number from 0, in squares of the features' unit.
    """
    root = _root(np.cov(one_NF, rowvar=False).reshape(one_NF.shape[1], -1))
    other = np.cov(other_MF, rowvar=False).reshape(root.shape)
    shared = np.trace(_root(root @ other @ root))
    means = one_NF.mean(axis=0) - other_MF.mean(axis=0)
    return float(means @ means + np.trace(root @ root) + np.trace(other) - 2.0 * shared)


def _root(symmetric: Floats) -> Floats:
    """The root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(symmetric)
    root: Floats = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    return root


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitDistances:
    """How far drawn digits are from real ones.

    Attributes:
        drawn: mean distance of drawn digits from a half of the real ones.
        halves: mean distance of the other half from it.
        num_images: of each side.
    """

    drawn: float
    halves: float
    num_images: int

    def __str__(self) -> str:
        return (
            f"Fréchet distance {self.drawn:.3g} of drawn digits from real ones, {self.halves:.3g} "
            f"between halves of the real ones, of {self.num_images} images each"
        )


def digit_distances(drawn_N1YX: Tensor) -> DigitDistances:
    """Distances of drawn digits, averaged over ten cuts of the training images in halves.

    Args:
        drawn_N1YX: (N, 1, 16, 16), from -1 to 1. For each cut `NUM_DRAWN` of them are taken, as
            many as a half of the real images has; if they are fewer, halves are as small.

    Raises:
        InputError: they have another size, or are fewer than there are features.
    """
    real_N1YX, _ = whole_digits()["train"]
    if drawn_N1YX.shape[1:] != real_N1YX.shape[1:] or len(drawn_N1YX) <= NUM_FEATURES:
        raise InputError(
            f"`drawn_N1YX` has the shape {tuple(drawn_N1YX.shape)}; give more than {NUM_FEATURES} "
            f"images of {' x '.join(map(str, real_N1YX.shape[1:]))}"
        )
    num = min(NUM_DRAWN, len(drawn_N1YX))
    drawn, real = digit_features(drawn_N1YX), digit_features(real_N1YX)
    found = []
    for cut in range(NUM_CUTS):
        order = np.random.default_rng((_SEED, cut)).permutation(len(real))
        one, other = real[order[:num]], real[order[num : 2 * num]]
        some = drawn[np.random.default_rng((_SEED, cut)).permutation(len(drawn))[:num]]
        found.append((frechet_distance(some, one), frechet_distance(other, one)))
    means = np.mean(found, axis=0)
    return DigitDistances(drawn=float(means[0]), halves=float(means[1]), num_images=num)


@torch.inference_mode()
def digit_features(images_N1YX: Tensor) -> Floats:
    """Features (N, 32) of images (N, 1, 16, 16) from -1 to 1, of unit variance on average."""
    features: Floats = _classifier().features(images_N1YX).double().numpy()
    return features


def digit_classes(images_N1YX: Tensor) -> Tensor:
    """The digit (N,) that the classifier of the features sees in images (N, 1, 16, 16)."""
    with torch.inference_mode():
        classes_N: Tensor = _classifier()(images_N1YX).argmax(dim=1)
        return classes_N


class _Classifier(nn.Module):
    """Three convolutions, each of which halves the map, and 32 features."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 16, 32, 64)
        self.maps = nn.Sequential(
            *(
                part
                for i, o in zip(sizes, sizes[1:], strict=False)
                for part in (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU())
            )
        )
        self.narrow = nn.Linear(sizes[-1] * 2 * 2, NUM_FEATURES)
        self.classes = nn.Linear(NUM_FEATURES, 10)
        self.register_buffer("scale", torch.ones(()))
        self.scale: Tensor

    def features(self, images_N1YX: Tensor) -> Tensor:
        """(N, 32), before they are cut at 0."""
        narrow_NF: Tensor = self.narrow(self.maps(images_N1YX).flatten(1))
        scaled_NF: Tensor = narrow_NF / self.scale
        return scaled_NF

    def forward(self, images_N1YX: Tensor) -> Tensor:
        """Logits (N, 10)."""
        logits: Tensor = self.classes(F.relu(self.features(images_N1YX)))
        return logits


@cache
def _classifier() -> _Classifier:
    """The classifier, trained on the training images; equal in every process of a machine."""
    images_N1YX, labels_N = whole_digits()["train"]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(_SEED)
        network = _Classifier()
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
        for _ in range(EPOCHS):
            for part in torch.split(torch.randperm(len(labels_N)), 49):
                loss = F.cross_entropy(network(images_N1YX[part]), labels_N[part])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    with torch.inference_mode():
        variance = network.features(images_N1YX).var(dim=0).mean()
        network.classes.weight.mul_(variance.sqrt())
        network.scale.copy_(variance.sqrt())
    return network.eval()
