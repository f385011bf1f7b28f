"""Drawing images with a network that predicts noise (DDIM, Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sharedattn.errors import InputError
from sharedattn.networks.network import Network
from sharedattn.training.tasks.diffusion import BETA_SCHEDULE, NUM_STEPS

SAMPLING_STEPS = 50
BATCH = 64


@torch.inference_mode()
def draw_images(
    network: Network, count: int, *, seed: int = 0, num_steps: int = SAMPLING_STEPS
) -> Tensor:
    """Draw images by DDIM without noise of its own (eta = 0), on the CPU.

    The scheduler is diffusers', with the training's schedule; each prediction of the image is cut
    to its range. Equal seeds start all networks from equal noise.

    Args:
        network: predicts noise, on the CPU.
        count: number of images.
        seed: of the noise that images begin as.
        num_steps: evaluations of the network for an image, at most 1,000.

    Returns:
        (count, C, Y, X), float32, from -1 to 1.

    Raises:
        InputError: diffusers is not installed.
    """
    scheduler = _scheduler()
    scheduler.set_timesteps(num_steps)
    generator = torch.Generator().manual_seed(seed)
    shape = (count, network.backbone.in_chans, *network.shape.image_size)
    images = torch.randn(shape, generator=generator)
    network.eval()
    drawn = []
    for part in torch.split(images, BATCH):
        for step in scheduler.timesteps:
            noise = network(part, step.expand(len(part)))
            part = scheduler.step(noise, step, part).prev_sample
        drawn.append(part.clamp(-1.0, 1.0))
    return torch.cat(drawn)


def _scheduler() -> Any:
    """diffusers' DDIM by the training's schedule.

    Raises:
        InputError: diffusers is not installed.
    """
    try:
        from diffusers import DDIMScheduler  # here, since it is an extra and takes a second
    except ImportError as error:
        raise InputError(
            "images are drawn by diffusers, which is not installed; install sharedattn[unet]"
        ) from error
    make: Any = DDIMScheduler  # not typed
    return make(num_train_timesteps=NUM_STEPS, beta_schedule=BETA_SCHEDULE)
