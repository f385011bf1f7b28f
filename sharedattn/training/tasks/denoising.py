"""Denoising: the squared error of predicted noise, and the share that is predicted (`denoise_r2`).

Ho et al. 2020 (arXiv 2006.11239), their simple loss, eq. 14: of an image x_0 with noise eps at
step t, the mean over pixels and channels of (eps - eps'(x_t, t))^2. In training, eps and t are
drawn for each image and update. In evaluation they are fixed by the image's number, so that all
networks see the same, and differences between them are of the networks alone.

Shape letters: B batch, C channels, Y x X pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sharedattn.distributed import Rank
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe
from sharedattn.tasks import DENOISE, QUALITIES
from sharedattn.training.tasks.diffusion import fixed_noise, noised, random_noise
from sharedattn.training.tasks.interface import Example, MetricAccumulator, Metrics, TaskTraining


class Denoising(TaskTraining):
    """Inputs are noisy images and their steps (B,); outputs and targets are noise (B, C, Y, X).

    The data's own targets are numbers of images (B,).
    """

    def training_example(self, images: Tensor, targets: Tensor) -> Example:
        return _example(images, *random_noise(images))

    def evaluation_example(self, images: Tensor, targets: Tensor) -> Example:
        return _example(images, *fixed_noise(images, targets))

    def loss(self, outputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        return F.mse_loss(outputs, targets)

    def taught_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(outputs, teacher.to(outputs.dtype))

    def accumulator(self, device: torch.device) -> MetricAccumulator:
        return NoiseAccumulator(device)

    def random_targets(self, num_images: int, device: torch.device) -> Tensor:
        return torch.randint(num_images, (num_images,), device=device)

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.label_smoothing:
            raise InputError(
                f"`label_smoothing` of the recipe is {recipe.label_smoothing:g}, but to {DENOISE} "
                f"there are no labels; set it to 0"
            )


def _example(images_BCYX: Tensor, noise_BCYX: Tensor, steps_B: Tensor) -> Example:
    return Example((noised(images_BCYX, noise_BCYX, steps_B), steps_B), noise_BCYX)


class NoiseAccumulator(MetricAccumulator):
    """Sums squared errors and squares of noise (B, C, Y, X).

    With the sums over all images, pixels and channels

        R^2 = 1 - sum (eps - eps')^2 / sum eps^2,

    0 if it is negative: a network that predicts no noise at all has 0. The denominator is the
    same for all networks, so that R^2 orders them exactly as the mean squared error does, which
    is the loss and stands beside it as `denoise_mse`.

    Args:
        device: device of the outputs.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._squares = torch.zeros((), dtype=torch.float64, device=device)

    def _add(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self._squares += targets.double().square().flatten(1).mean(dim=1).sum()
        return (outputs.double() - targets.double()).square().flatten(1).mean(dim=1).sum()

    def _metrics(self, loss: float, num_images: int, rank: Rank) -> Metrics:
        rank.sum_(self._squares)
        explained = 1.0 - loss * num_images / self._squares.item()
        quality = max(0.0, explained)
        return Metrics(quality, loss, num_images, QUALITIES[DENOISE], {"denoise_mse": loss})
