"""The forward process of denoising diffusion: how noise is added to images.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239). With eps ~ N(0, 1)
and T steps, step t of an image x_0 is in closed form (their eq. 4)

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,    abar_t = prod_{s <= t} (1 - beta_s)

with the schedule of Nichol and Dhariwal 2021, "Improved DDPM" (arXiv 2102.09672, eq. 17), made for
small images: beta_t = min(1 - f(t + 1) / f(t), 0.999), f(t) = cos^2(pi/2 (t/T + 0.008) / 1.008).

These are the numbers of diffusers' `DDPMScheduler(beta_schedule="squaredcos_cap_v2")`, by which
samplers of that library run the networks that are trained here. Training needs no more than them,
and so not the library.

Shape letters: B batch, C channels, Y x X pixels, T steps.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from sharedattn.hashing import derived_seed

NUM_STEPS = 1000
MAX_BETA = 0.999
OFFSET = 0.008
BETA_SCHEDULE = "squaredcos_cap_v2"  # diffusers' name of it

_FIXED_NOISE = 20_263  # its seed
_STRIDE = 619  # about the golden ratio of T, to which it is prime


@cache
def signal_shares(device: torch.device) -> Tensor:
    """abar_t (T,), float32: the share of an image in the variance of its step t."""

    def level(step: int) -> float:
        return math.cos((step / NUM_STEPS + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2

    betas = [min(1 - level(t + 1) / level(t), MAX_BETA) for t in range(NUM_STEPS)]
    shares = (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(dim=0)
    return shares.to(device, torch.float32)


def noised(images_BCYX: Tensor, noise_BCYX: Tensor, steps_B: Tensor) -> Tensor:
    """Images (B, C, Y, X) after some steps.

    Args:
        images_BCYX: x_0, about from -1 to 1.
        noise_BCYX: eps.
        steps_B: (B,), int64, from 0 to T - 1.
    """
    share_B111 = signal_shares(images_BCYX.device)[steps_B][:, None, None, None]
    return share_B111.sqrt() * images_BCYX + (1 - share_B111).sqrt() * noise_BCYX


def random_noise(images_BCYX: Tensor) -> tuple[Tensor, Tensor]:
    """Noise (B, C, Y, X) and steps (B,) for training; draws from torch's generator."""
    steps_B = torch.randint(NUM_STEPS, (len(images_BCYX),), device=images_BCYX.device)
    return torch.randn_like(images_BCYX), steps_B


def fixed_noise(images_BCYX: Tensor, numbers_B: Tensor) -> tuple[Tensor, Tensor]:
    """Noise (B, C, Y, X) and steps (B,) that the images' numbers say, on every device the same.

    T images with consecutive numbers have every step once, and fewer have them evenly.

    Args:
        images_BCYX: the images; their size alone counts.
        numbers_B: (B,), int64, not negative.
    """
    shape, device = images_BCYX.shape[1:], images_BCYX.device
    noises = []
    for number in numbers_B.tolist():
        generator = torch.Generator().manual_seed(derived_seed(_FIXED_NOISE, number))
        noises.append(torch.randn(shape, generator=generator))
    steps_B = (numbers_B * _STRIDE + NUM_STEPS // 2) % NUM_STEPS
    return torch.stack(noises).to(device, images_BCYX.dtype), steps_B
